"""Weights: fetched once, whole or not at all, the same bytes ever after, and read without running what is in them."""

import errno
import hashlib
import json
import os
import pickle
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import warm
from click.testing import CliRunner
from safetensors.torch import save_file
from small_disk import Disk, small_disk  # noqa: F401

from toto.command import CommandGroup
from toto.errors import UserError
from toto.tokenize import weights_child
from toto.tokenize import weights_fetch as fetching
from toto.tokenize.tokenizers.dvae_net import DVAEEncoder, DVAESize
from toto.tokenize.weights import known, obtain
from toto.tokenize.weights_cli import weights as weights_group
from toto.tokenize.weights_convert import convert_names, stored, write_converted
from toto.tokenize.weights_legacy import MAGIC
from toto.tokenize.weights_reading import read_tensors

BODY = np.random.default_rng(0).bytes(3_000_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
DVAE = DVAEEncoder(DVAESize(hidden=8, blocks=1, vocab_size=64)).state_dict()


@pytest.fixture(autouse=True)
def warm_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """What converts weights starts warm here; in test_tokenize_weights_safety.py it does not."""
    monkeypatch.setattr(sys, "executable", str(warm.launcher()))


class Server(ThreadingHTTPServer):
    """Serves one file; breaks off, forgets ranges or changes the file as a test asks."""

    body, etag = BODY, '"one"'
    cut_after: int | None = None  # bytes of each answer
    ranges, heeds_if_range, cuts, status = True, True, 10**9, 0
    shift, more = 0, dict[str, str]()  # of where the rest begins; headers of every answer
    after_a_cut: Callable[[], Any] = staticmethod(lambda: None)
    asked: list[str | None]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked = []
        self.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that hang up are meant to
        self.uri = f"http://127.0.0.1:{self.server_port}/some/encoder.pkl?dl=1"


class Answer(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get("Range")
        server.asked.append(asked)
        if server.status:
            return self.send_error(server.status)
        same = not server.heeds_if_range or self.headers.get("If-Range") in (None, server.etag)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and server.ranges and same else 0
        begin = max(0, start - server.shift) if start else 0
        part = server.body[begin:]
        if start >= len(server.body) > 0:
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {begin}-{len(server.body) - 1}/{len(server.body)}")
        for name, value in {"Content-Length": str(len(part)), "ETag": server.etag, **server.more}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if server.cut_after is not None and server.cuts > 0:
            server.cuts -= 1
            part = part[: server.cut_after]
            server.after_a_cut()
        self.wfile.write(part)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fetching, "PAUSES_S", (0.0, 0.0, 0.0))
    return tmp_path / "cache"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as served:
        threading.Thread(target=served.serve_forever, args=(0.02,), daemon=True).start()
        yield served
        served.shutdown()


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Converts here, since a child takes seconds to import torch."""
    monkeypatch.setattr(weights_child, "convert", write_converted)


def left_behind(cache: Path) -> list[str]:
    """Files of the cache but for locks."""
    return sorted(p.name for p in cache.rglob("*") if p.is_file() and p.name != ".lock")


def test_a_download_that_breaks_off_goes_on_where_it_stopped(server: Server, cache: Path) -> None:
    server.cut_after = 700_000
    found = obtain(server.uri, SHA256)
    assert found.path.read_bytes() == BODY and found.sha256 == SHA256
    assert server.asked == [None, "bytes=700000-", "bytes=1400000-", "bytes=2100000-", "bytes=2800000-"]
    assert left_behind(cache) == ["encoder.pkl", "record.json"]


def test_a_second_use_fetches_nothing(server: Server) -> None:
    first = obtain(server.uri)
    assert obtain(server.uri) == first == known(server.uri) and len(server.asked) == 1


@pytest.mark.parametrize("heeds_if_range", [True, False])
def test_the_beginning_of_another_version_is_thrown_away(server: Server, heeds_if_range: bool) -> None:
    server.cut_after, server.cuts = 1_000_000, 1
    server.after_a_cut = lambda: setattr(server, "etag", '"two"') or setattr(server, "body", BODY[::-1])
    server.heeds_if_range = heeds_if_range
    assert obtain(server.uri).path.read_bytes() == BODY[::-1]


def test_the_rest_is_taken_only_where_it_begins_where_it_was_asked_to(server: Server) -> None:
    server.cut_after, server.cuts, server.shift = 1_000_000, 1, 10**9
    assert obtain(server.uri, SHA256).path.read_bytes() == BODY
    assert server.asked == [None, "bytes=1000000-", None]


def test_a_file_that_became_shorter_is_not_taken_for_its_old_beginning(server: Server) -> None:
    server.cut_after, server.cuts = 1_000_000, 1
    server.after_a_cut = lambda: setattr(server, "body", BODY[:500_000])
    server.heeds_if_range = False
    assert obtain(server.uri).path.read_bytes() == BODY[:500_000]


@pytest.mark.parametrize("etag", ["", 'W/"one"'])
def test_without_a_strong_version_a_download_starts_over(server: Server, etag: str) -> None:
    server.etag, server.cut_after, server.cuts = etag, 1_000_000, 1
    server.after_a_cut = lambda: setattr(server, "body", BODY[::-1])
    assert obtain(server.uri).path.read_bytes() == BODY[::-1] and server.asked == [None, None]


@pytest.mark.parametrize(
    ("more", "body", "said"),
    [
        ({"Content-Encoding": "gzip"}, BODY, "packed as gzip"),
        ({"Content-Length": ""}, BODY, "does not say how long"),
        ({}, b"", "it is empty"),
    ],
    ids=["packed", "no length", "empty"],
)
def test_an_answer_that_may_not_be_the_whole_file_is_refused(
    server: Server, cache: Path, more: dict[str, str], body: bytes, said: str
) -> None:
    server.more, server.body = more, body
    with pytest.raises(UserError, match=f"cannot be fetched .*{said}"):
        obtain(server.uri)
    assert "encoder.pkl" not in left_behind(cache)


def test_a_web_page_instead_of_weights_does_not_stay(server: Server, in_process: None, tmp_path: Path) -> None:
    server.body = b"<html>sign in</html>"
    with pytest.raises(UserError, match="a web page, no weights"):
        stored("dvae-encoder", server.uri, None)
    torch.save(DVAE, tmp_path / "encoder.pt")
    server.body = (tmp_path / "encoder.pt").read_bytes()
    assert stored("dvae-encoder", server.uri, None).sha256 == hashlib.sha256(server.body).hexdigest()


def test_a_store_that_asks_for_credentials_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of the stores' libraries are none of Python's."""
    memory = pytest.importorskip("fsspec.implementations.memory")
    login = pytest.importorskip("botocore.exceptions", reason="s3fs is not installed").NoCredentialsError

    def refuse(*_: Any, **__: Any) -> None:
        raise login

    monkeypatch.setattr(memory.MemoryFileSystem, "info", refuse)
    with pytest.raises(UserError, match="^memory://bucket/encoder.pt: access denied .*check the credentials") as error:
        obtain("memory://bucket/encoder.pt")
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(("kind", "said"), [("folder", "a folder, where a file"), ("pipe", "a device or a pipe")])
def test_what_is_no_file_is_said(tmp_path: Path, kind: str, said: str) -> None:
    path = tmp_path / "encoder"
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(UserError, match=said):
        obtain(str(path))


def test_a_server_that_never_sends_more_is_given_up(server: Server) -> None:
    server.cut_after = 0
    with pytest.raises(UserError, match="cannot be fetched .*run again, it goes on"):
        obtain(server.uri)
    assert len(server.asked) == 4
    server.cut_after = None
    assert obtain(server.uri).sha256 == SHA256


def test_a_server_without_ranges_sends_all_again(server: Server) -> None:
    server.cut_after, server.cuts, server.ranges = 1_000_000, 1, False
    assert obtain(server.uri).sha256 == SHA256


def test_what_is_not_there_is_said_at_once(server: Server) -> None:
    server.status = 404
    with pytest.raises(UserError, match="cannot be fetched .HTTP 404.*fetch it by hand"):
        obtain(server.uri)
    assert len(server.asked) == 1


def test_a_pinned_hash_that_differs_refuses_the_download_and_leaves_nothing(server: Server, cache: Path) -> None:
    with pytest.raises(UserError, match=f"its sha256 is {SHA256}, not {'0' * 64}"):
        obtain(server.uri, "0" * 64)
    assert left_behind(cache) == []


def test_four_at_once_fetch_it_once(server: Server) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(obtain(server.uri).sha256)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [SHA256] * 4 and len(server.asked) == 1


def test_other_uris_come_through_fsspec() -> None:
    import fsspec

    with fsspec.open("memory://bucket/encoder.pt", "wb") as file:
        file.write(BODY)
    assert obtain("memory://bucket/encoder.pt", SHA256).path.read_bytes() == BODY
    with pytest.raises(UserError, match="no such file"):
        obtain("memory://bucket/missing.pt")


def test_nothing_is_fetched_that_the_disk_has_no_room_for(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match="3,000,000 bytes to fetch, 1,000 free"):
        obtain(server.uri)
    assert not list(cache.rglob(".partial"))


def test_a_download_goes_on_after_the_disk_was_full(
    disk: Disk, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(disk.place))
    monkeypatch.setattr(fetching, "_refuse_size", lambda *_: None)  # another program takes the room meanwhile
    filler = disk.fill(1_500_000)
    with pytest.raises(OSError) as full:
        obtain(server.uri)
    assert full.value.errno == errno.ENOSPC and str(disk.place) in str(full.value.filename)
    filler.unlink()
    assert obtain(server.uri).sha256 == SHA256 and server.asked[-1] is not None


def test_a_file_that_changed_since_its_first_use_is_refused_unless_its_hash_is_given(tmp_path: Path) -> None:
    path = tmp_path / "encoder.pt"
    path.write_bytes(b"first")
    first = obtain(str(path))
    assert first.path == path and obtain(str(path)) == first
    path.write_bytes(b"second")
    with pytest.raises(UserError, match=r"has changed: its sha256 was .* give weights_sha256"):
        obtain(str(path))
    second = hashlib.sha256(b"second").hexdigest()
    assert obtain(str(path), second).sha256 == second == obtain(str(path)).sha256
    with pytest.raises(UserError, match="no such file of weights"):
        obtain(str(tmp_path / "missing"))


class Poison:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path, how: str) -> None:
        self._path, self._how = path, how

    def __reduce__(self) -> Any:
        if self._how == "eval":
            return eval, (f"open({str(self._path)!r}, 'w')",)
        if self._how == "open":
            return open, (str(self._path), "w")
        return os.system, (f"touch {self._path}",)


@pytest.mark.parametrize("how", ["system", "eval", "open"])
@pytest.mark.parametrize("wrap", [lambda p: p, lambda p: {"state_dict": {**DVAE, "x": p}}, lambda p: [p, p]])
def test_a_poisoned_pickle_is_refused_and_does_nothing(tmp_path: Path, how: str, wrap: Any) -> None:
    target, path = tmp_path / "created", tmp_path / "encoder.pkl"
    torch.save(wrap(Poison(target, how)), path)
    with pytest.raises(UserError, match=r"nothing in it was run|damaged"):
        read_tensors(path)
    assert not target.exists()
    torch.load(path, weights_only=False)
    assert target.exists()  # the poison works where pickles are run


def test_a_stand_in_does_nothing_whatever_the_pickle_calls_it_with(tmp_path: Path) -> None:
    """A name that is taken for its prefix, called with arguments, with items and with a state."""
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": DVAE}, path)
    called = b"cpytorch_lightning.utilities\nrun\nX\x02\x00\x00\x00lsq\x00\x85R"  # run("ls")
    body = b"\x80\x02}(X\x01\x00\x00\x00a" + called + b"}X\x01\x00\x00\x00kK\x01sbu."
    _replace_pickle(path, body)
    assert read_tensors(path) == {}


def _replace_pickle(path: Path, body: bytes) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, body if name.endswith("data.pkl") else data)


def legacy(value: object, path: Path) -> Path:
    """What torch.save wrote before 1.6."""
    torch.save(value, path, _use_new_zipfile_serialization=False)
    return path


@pytest.mark.filterwarnings("ignore")  # torch tells that it stores source code
def test_a_whole_module_in_the_format_before_torch_1_6_is_read_without_running_it(tmp_path: Path) -> None:
    dall_e = pytest.importorskip("dall_e", reason="dall-e is not installed")
    encoder = dall_e.Encoder(n_hid=8, vocab_size=32)
    found = read_tensors(legacy(encoder, tmp_path / "encoder.pkl"))
    expected = encoder.state_dict()
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_state_dict_in_the_format_before_torch_1_6_is_read(tmp_path: Path) -> None:
    shared = torch.arange(12.0).reshape(3, 4)
    state = {"a": shared.t(), "b": shared[1:], "c": torch.tensor([1, 2]), "d": torch.ones(2, 2).half()}
    found = read_tensors(legacy(state, tmp_path / "state.pt"))
    assert found.keys() == state.keys() and all(torch.equal(found[name], state[name]) for name in state)


def test_a_poisoned_file_of_the_format_before_torch_1_6_does_nothing(tmp_path: Path) -> None:
    path, mark = legacy({"a": torch.ones(3)}, tmp_path / "encoder.pkl"), tmp_path / "run"
    data = path.read_bytes()
    head = sum(len(pickle.dumps(value, 2)) for value in (MAGIC, 1001))  # magic and version; next comes a dict
    path.write_bytes(data[:head] + pickle.dumps(Poison(mark, "system"), 2) + data[head:])
    with pytest.raises(UserError, match="asks for .*; nothing in it was run"):
        read_tensors(path)
    assert not mark.exists()


def test_a_file_of_the_format_before_torch_1_6_is_cut_or_lies(tmp_path: Path) -> None:
    path = legacy({"a": torch.ones(1000)}, tmp_path / "encoder.pkl")
    data = path.read_bytes()
    for damaged in (data[:-100], data[: len(data) // 20], data.replace(b"M\xe8\x03", b"M\xff\xff", 1)):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="not taken"):
            read_tensors(path)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"<!DOCTYPE html><html>sign in</html>", "a web page"),
        (b"", "no weights"),
        (b"RIFF1234", "no weights"),
        (b"PK\x03\x04 and then nothing", "damaged"),
        (b"\x10\0\0\0\0\0\0\0{ no JSON at all ", "damaged safetensors"),
        (pickle.dumps({"a": 1}), "not what torch.save writes"),
    ],
)
def test_what_is_no_weights_is_said_in_a_line(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "weights"
    path.write_bytes(data)
    with pytest.raises(UserError, match=said):
        read_tensors(path)


def test_a_cut_off_checkpoint_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "encoder.pt"
    torch.save(DVAE, path)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(UserError, match="damaged"):
        read_tensors(path)


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "encoder.pt"
    torch.save(DVAE, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, bytes(10**8) if name.endswith("data/0") else data)
    with pytest.raises(UserError, match="larger inside than outside"):
        read_tensors(path)


def test_a_tensor_larger_than_its_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "encoder.pt"
    torch.save({**DVAE, "huge": torch.zeros(1).expand(2**40)}, path)  # four terabytes in a few bytes
    with pytest.raises(UserError, match="'huge' claims to be larger than its bytes"):
        read_tensors(path)


def test_converted_weights_outlive_their_source_and_are_checked(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "encoder.pt"
    torch.save(DVAE, path)
    first = stored("dvae-encoder", str(path), None)
    path.unlink()
    again = stored("dvae-encoder", None, first.sha256)
    assert stored("dvae-encoder", str(path), None) == first, "its hash was recorded"
    assert again.path == first.path and again.shapes["blocks.output.conv.weight"] == (64, 64, 1, 1)
    assert set(again.tensors("blocks.input")) == {"blocks.input.weight", "blocks.input.bias"}
    data = bytearray(first.path.read_bytes())
    data[-1] ^= 1
    first.path.write_bytes(data)
    with pytest.raises(UserError, match="is damaged; remove it"):
        again.tensors("blocks.")


def test_a_fetched_file_may_be_removed_once_it_is_converted(tmp_path: Path, server: Server) -> None:
    torch.save(DVAE, tmp_path / "encoder.pt")
    server.body = (tmp_path / "encoder.pt").read_bytes()
    first = stored("dvae-encoder", server.uri, None)
    obtain(server.uri).path.unlink()
    assert stored("dvae-encoder", server.uri, None) == first and len(server.asked) == 1


def test_weights_of_another_kind_are_refused_by_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"fc.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(UserError, match=r"no weights of a sdvae: encoder.conv_in.weight is not there .it holds fc"):
        stored("sdvae", str(path), None)
    gumbel = {"encoder.conv_in.weight": 0, "quantize.embed.weight": 0}
    with pytest.raises(UserError, match="Gumbel"):
        convert_names("vqgan", gumbel, "a.ckpt")


ROOT = CommandGroup()
ROOT.add_command(weights_group)


def run(*arguments: str) -> tuple[int, str, Any]:
    """Exit code, output and JSON of `weights` under a root group, as the command line has it."""
    done = CliRunner().invoke(ROOT, ["weights", *arguments, "--json"])
    if isinstance(done.exception, UserError):
        return done.exception.exit_code, str(done.exception), json.loads(done.stdout.splitlines()[-1])
    return done.exit_code, done.stdout, json.loads(done.stdout.splitlines()[-1])


def test_the_commands_say_where_weights_are_and_whether_they_are_right(tmp_path: Path, server: Server) -> None:
    path = tmp_path / "local.pt"
    torch.save(DVAE, path)
    server.body = path.read_bytes()
    config = tmp_path / "pipelines.yaml"
    config.write_text(f"tokenizers:\n  mine: {{backend: dvae, weights: '{server.uri}'}}\n  dct: {{backend: dct}}\n")
    options = ("--config", str(config))
    code, text, found = run(*options)
    assert (code, found[0]["state"], found[0]["tokenizer"]) == (0, "not here", "mine")
    code, text, _ = run("check", "mine", *options)
    assert (code, text) == (1, "mine: not all weights are here; run toto-tokenize weights fetch mine")
    code, text, found = run("fetch", "mine", *options)
    assert code == 0 and found[0]["sha256"] == hashlib.sha256(server.body).hexdigest() and "are not needed" in text
    code, _, found = run("check", "mine", *options)
    assert (code, found[0]["state"]) == (0, "right")
    Path(found[0]["path"]).write_bytes(BODY)
    code, text, found = run("check", "mine", *options)
    assert (code, found[0]["state"]) == (1, "changed") and "not what it was" in text
    assert f"remove {Path(found[0]['path']).parent} to fetch it again" in text
    assert run("fetch", "dct", *options)[2] == []


def test_check_of_a_file_of_ones_own_that_changed_says_what_helps(tmp_path: Path) -> None:
    path = tmp_path / "own.pkl"
    path.write_bytes(b"first")
    obtain(str(path))
    path.write_bytes(b"second")
    own = ("--set", f"tokenizers.dvae.weights={path}", "--set", "tokenizers.dvae.decoder=null")
    code, text, found = run("check", "dvae", *own)
    assert (code, found[0]["state"]) == (1, "changed")
    assert "not what it was" in text and "give weights_sha256" in text and "fetch it again" not in text
    digest = hashlib.sha256(b"second").hexdigest()
    code, _, found = run("check", "dvae", *own, "--set", f"tokenizers.dvae.weights_sha256={digest}")
    assert (code, found[0]["state"]) == (0, "right")
    code, text, _ = run("check", "dvae", *own, "--set", f"tokenizers.dvae.weights_sha256={'0' * 64}")
    assert code == 1 and f"its sha256 is {digest}, not 000" in text and "set weights_sha256" in text
