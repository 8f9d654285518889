"""The decoder's child: what it gives, and what becomes of a source that hangs, crashes or eats memory.

Faults are injected from outside: see faults.py.
"""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from faults import import_path, memory_group
from footage import numbered, read, request, write

from toto.errors import UserError
from toto.tokenize import decode_child
from toto.tokenize import decoder as decoder_module
from toto.tokenize.clip import Block, DecoderDied, SourceError, SourceInfo
from toto.tokenize.decoder import Decoder
from toto.tokenize.slots import SLOT_BYTES, SLOTS, GivenSlots, Slots
from toto.tokenize.transient import TransientError, pauses_for, resumed
from toto.tokenize.wire import Inbox, send


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of videos; one that is called as a fault has it when it is opened."""
    monkeypatch.setenv("PYTHONPATH", import_path(tmp_path / "path"))
    (tmp_path / "videos").mkdir()
    return tmp_path / "videos"


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    with Decoder(timeout_s=2, memory_mb=1024) as started:
        yield started


def video(folder: Path, name: str, frames: int = 20) -> Path:
    return write(folder / f"{name}.mov", numbered(frames))


def kept(decoder: Decoder, path: Path) -> int:
    *_, info = decoder.decode(request(path))
    assert isinstance(info, SourceInfo)
    return info.frames_kept


def is_running(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and (state[0] != "Z" or "l" in state)  # "Zl": its first thread has ended, others have not yet


def ends(pid: int) -> bool:
    """Whether a process ends within minutes, waited for in small steps."""
    for _ in range(2000):
        if not is_running(pid):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("pixels", [24, 320])  # blocks of 16 x 320 x 320 x 3 bytes are too large for a slot
def test_the_child_gives_what_decoding_here_gives(tmp_path: Path, decoder: Decoder, pixels: int) -> None:
    path = video(tmp_path, "clip", 100)
    asked = {"crop": "random", "views": 2, "pixels": pixels, "run_frames": 32}
    blocks, info = read(path, **asked)
    *received, facts = decoder.decode(request(path, **asked))
    assert facts == info
    for ours, theirs in zip(received, blocks, strict=True):
        assert isinstance(ours, Block)
        assert (ours.run, ours.view, ours.crop) == (theirs.run, theirs.view, theirs.crop)
        for name in ("frames", "pixels", "index", "pts_us"):
            assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name


def test_a_bad_source_leaves_the_child_in_place(tmp_path: Path, decoder: Decoder) -> None:
    good = video(tmp_path, "good")
    assert kept(decoder, good) == 20
    pid = decoder.pid
    with pytest.raises(SourceError, match="missing"):
        kept(decoder, tmp_path / "gone.mov")
    assert kept(decoder, good) == 20
    assert decoder.pid == pid


@pytest.mark.parametrize("fault", ["sleep_in_c", "sleep_in_c_holding_the_lock", "loop", "chatter_for_ever"])
def test_a_source_that_hangs_times_out_and_the_next_one_decodes(faults: Path, decoder: Decoder, fault: str) -> None:
    with pytest.raises(SourceError) as failed:
        kept(decoder, video(faults, fault))
    assert failed.value.reason == "timeout"
    assert kept(decoder, video(faults, "good")) == 20


@pytest.mark.parametrize(
    ("fault", "reason", "said"),
    [
        ("read_past_null", "crash", "SIGSEGV"),
        ("abort", "crash", "SIGABRT"),
        ("exit_early", "crash", "exit code 3"),
        ("be_killed", "oom", "SIGKILL"),
    ],
)
def test_a_death_is_told_by_its_cause_and_the_next_source_decodes(
    faults: Path, decoder: Decoder, fault: str, reason: str, said: str
) -> None:
    with pytest.raises(DecoderDied) as died:
        kept(decoder, video(faults, fault))
    assert died.value.reason == reason
    assert said in died.value.detail
    assert kept(decoder, video(faults, "good")) == 20


def test_a_source_that_eats_memory_meets_the_limit_of_its_child(faults: Path) -> None:
    with Decoder(timeout_s=60, memory_mb=512) as decoder:  # RLIMIT_AS: allocation fails inside the child
        with pytest.raises(DecoderDied) as died:
            kept(decoder, video(faults, "eat_memory"))
        assert died.value.reason == "oom"
        assert kept(decoder, video(faults, "good")) == 20


def test_a_source_that_the_kernel_kills_for_memory_is_told_as_such(
    faults: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with memory_group(256 << 20) as group, Decoder(timeout_s=60, memory_mb=1 << 20) as decoder:
        with capsys.disabled():
            print(f"memory limit: cgroup {group}")
        assert kept(decoder, video(faults, "good")) == 20
        (group / "cgroup.procs").write_text(str(decoder.pid))
        with pytest.raises(DecoderDied) as died:
            kept(decoder, video(faults, "eat_memory"))
        assert died.value.reason == "oom"
        assert "SIGKILL" in died.value.detail
        assert kept(decoder, video(faults, "good")) == 20


def test_what_libraries_print_does_not_disturb_the_messages(faults: Path, decoder: Decoder) -> None:
    assert kept(decoder, video(faults, "chatter")) == 20


def test_a_passing_failure_is_tried_again(faults: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOTO_TEST_STUMBLES", str(tmp_path / "stumbles"))
    with Decoder(timeout_s=30, memory_mb=1024) as decoder:
        assert kept(decoder, video(faults, "stumble")) == 20
    assert (tmp_path / "stumbles").read_text() == "xx"


def test_a_source_is_resumed_without_repeating_what_was_given() -> None:
    failures = iter([3, 1, 5])

    def start() -> Iterator[int]:
        last = next(failures)
        yield from range(last)
        if last < 5:
            raise TransientError("again")

    assert list(resumed(start, (0.0, 0.0, 0.0))) == [0, 1, 2, 3, 4]


def test_a_failure_that_does_not_pass_ends_the_tries() -> None:
    tries = []

    def start() -> Iterator[int]:
        tries.append(1)
        raise TransientError("always")
        yield 0

    with pytest.raises(TransientError):
        list(resumed(start, (0.0, 0.0)))
    assert len(tries) == 3


def test_a_store_gets_half_a_minute_more_than_a_disk() -> None:
    here = [pauses_for(uri) for uri in ("/a.mp4", "file:///a.mp4", "part:0+9:/a.tar", "frames:/a")]
    there = [pauses_for(uri) for uri in ("s3://b/a.mp4", "https://h/a.mp4", "part:0+9:gs://b/a.tar", "frames:s3://b/a")]
    assert set(here) == {(0.5, 2.0, 8.0)} and set(there) == {(0.5, 2.0, 8.0, 30.0)}


def test_waiting_for_a_store_is_not_the_silence_of_a_decoder_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_child, "BEAT_S", 0.01)
    ours, theirs = os.pipe()
    with decode_child.Pulse(theirs, 60) as pulse:
        pulse.rest(0.1)
    assert os.read(ours, 10_000).count(b'"beat"') >= 2
    os.close(ours)
    os.close(theirs)


def test_an_abandoned_source_leaves_the_decoder_usable(tmp_path: Path, decoder: Decoder) -> None:
    long = video(tmp_path, "long", 2000)
    parts = decoder.decode(request(long))
    assert isinstance(next(parts), Block)
    parts.close()  # type: ignore[attr-defined]
    assert kept(decoder, video(tmp_path, "good")) == 20


def test_a_child_that_died_while_idle_is_replaced_without_a_word(tmp_path: Path, decoder: Decoder) -> None:
    good = video(tmp_path, "good")
    assert kept(decoder, good) == 20
    assert decoder.pid is not None
    os.kill(decoder.pid, signal.SIGKILL)
    assert ends(decoder.pid)
    assert kept(decoder, good) == 20


def test_the_child_is_renewed_after_its_share_of_sources(
    tmp_path: Path, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_module, "SOURCES_PER_CHILD", 3)
    good = video(tmp_path, "good")
    pids = [(kept(decoder, good), decoder.pid)[1] for _ in range(7)]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]


@pytest.mark.skipif(sys.platform != "linux", reason="a process's environment is read in /proc")
@pytest.mark.parametrize("given", ["", "glibc.malloc.tcache_count=7"])
def test_the_child_asks_for_huge_pages_unless_it_was_told_how_to_allocate(
    given: str, tmp_path: Path, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    if given:
        monkeypatch.setenv("GLIBC_TUNABLES", given)
    else:
        monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    assert kept(decoder, video(tmp_path, "good")) == 20
    found = Path(f"/proc/{decoder.pid}/environ").read_text().split("\0")
    assert f"GLIBC_TUNABLES={given or 'glibc.malloc.hugetlb=1'}" in found


@pytest.mark.parametrize("fault", ["loop", "sleep_in_c", "sleep_in_c_holding_the_lock"])
def test_the_child_dies_with_a_parent_that_is_killed(faults: Path, fault: str) -> None:
    path = video(faults, fault)
    code = f"""
        from footage import request
        from toto.tokenize.decoder import Decoder
        decoder = Decoder(timeout_s=3, memory_mb=1024)
        list(decoder.decode(request({str(video(faults, "first"))!r})))
        print(decoder.pid, flush=True)
        list(decoder.decode(request({str(path)!r})))
    """
    tests = os.pathsep.join([os.environ["PYTHONPATH"], str(Path(__file__).parent)])
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": tests},
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    while not (faults.parent / "path" / "begun").exists():
        time.sleep(0.01)
    parent.kill()
    parent.communicate()
    assert ends(child)


def test_a_child_that_cannot_start_is_the_users_error_in_two_lines() -> None:
    with Decoder(timeout_s=5, memory_mb=40) as decoder, pytest.raises(UserError) as failed:
        list(decoder.decode(request("anything.mov")))
    assert len(str(failed.value).splitlines()) == 2
    assert "decode_memory_mb" in str(failed.value)


def test_a_disk_that_fails_is_told_from_a_file_that_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from toto.tokenize import input_file

    path = video(tmp_path, "good")
    input_file.still_readable(str(path))

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("builtins.open", fail)
    with pytest.raises(TransientError):
        input_file.still_readable(str(path))


def test_messages_survive_any_cut_of_the_stream() -> None:
    body = np.arange(5000, dtype=np.uint8)
    reading, writing = os.pipe()
    send(writing, {"type": "beat"})
    send(writing, {"type": "block", "n": 1}, [body[:4000], body[4000:]])
    os.close(writing)
    inbox, messages = Inbox(), []
    with open(reading, "rb") as stream:
        while byte := stream.read(7):
            inbox.feed(byte)
            while (message := inbox.take()) is not None:
                messages.append(message)
    assert [message["type"] for message, _ in messages] == ["beat", "block"]
    assert messages[1][1] == body.tobytes()


def test_nonsense_from_the_child_is_not_believed() -> None:
    inbox = Inbox()
    inbox.feed(b"\xff\xff\xff\xff and so on")
    with pytest.raises(ValueError, match="header"):
        inbox.take()
    for length in (None, [1], -1, 0.5, 1e400):
        inbox = Inbox()
        header = json.dumps({"type": "beat", "bytes": length}).encode()
        inbox.feed(len(header).to_bytes(4, "big") + header)
        with pytest.raises(ValueError, match="body"):
            inbox.take()


def test_slots_pass_bytes_on_and_refuse_what_does_not_fit() -> None:
    given = GivenSlots()
    arrays = [np.arange(12, dtype=np.uint8), np.ones((2, 3), np.uint8)]
    mine = Slots(given.place)
    for _ in range(3):
        slot = mine.put(arrays)
        assert slot is not None
        assert given.copy(slot, 18) == b"".join(array.tobytes() for array in arrays)
        mine.free(slot)
    assert mine.put([np.empty(SLOT_BYTES + 1, np.uint8)]) is None
    assert Slots("").put(arrays) is None
    for nonsense in ((-1, 1), (SLOTS, 1), (0, -1), (0, SLOT_BYTES + 1), (0, None), ([0], 1), (0.5, 1), ("0", 1)):
        with pytest.raises(ValueError, match="bytes in slot"):
            given.copy(*nonsense)
    given.close()


def test_memory_that_cannot_be_sealed_is_done_without_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def refuse(handle: int, *_: int) -> None:
        made.append(handle)
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    assert GivenSlots().place == ""
    for handle in made:
        with suppress(FileNotFoundError):  # it may be another file's by now
            assert "toto-blocks" not in os.readlink(f"/proc/self/fd/{handle}")
