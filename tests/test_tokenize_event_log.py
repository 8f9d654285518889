"""The log of a run: what happened, a line each, on disk as it happens and in a bucket at the end; and its progress."""

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from clips import PIXELS, call, killed, run_arguments, tokenize, write_clips, write_video

import toto.tokenize.unit
from toto import Dataset
from toto.shards.store import open_store
from toto.tokenize import event_log
from toto.tokenize.cli import cli
from toto.tokenize.event_log import EventLog
from toto.tokenize.monitor import Monitor, Snapshot, running
from toto.tokenize.plan import read_plans
from toto.tokenize.worker import Counters


def logs(out: Path) -> list[list[dict[str, Any]]]:
    """The lines of each log, oldest first."""
    found = sorted((out / "log").glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    return [[json.loads(line) for line in path.read_text().splitlines()] for path in found]


def test_a_run_leaves_a_line_for_whatever_happened(tmp_path: Path) -> None:
    videos, out = write_clips(tmp_path / "clips", 2, 300), tmp_path / "set"
    (videos / "empty.mp4").touch()
    assert tokenize(videos, out, *PIXELS).returncode == 0
    (log,) = logs(out)
    first, *units, seal, end = [line for line in log if line["event"] != "quarantined"]
    (bad,) = [line for line in log if line["event"] == "quarantined"]
    assert (bad["source"], bad["reason"]) == ("empty.mp4", "empty")
    assert first["event"] == "run" and first["options"]["engine"] == "local" and first["units"] == len(units)
    assert sum(unit["rows"] for unit in units) == len(Dataset(out)) and all(unit["seconds"] > 0 for unit in units)
    assert {unit["unit"] for unit in units} == {path.stem for path in (out / "commits").iterdir()}
    assert seal["dataset_id"] == Dataset(out).dataset_id
    assert (end["event"], end["outcome"]) == ("end", "finished")
    assert str(tmp_path) not in json.dumps(log)  # keys and numbers, no places


def test_a_run_with_nothing_to_do_leaves_no_log(tmp_path: Path) -> None:
    videos, out = write_clips(tmp_path / "clips", 1, 20), tmp_path / "set"
    for _ in range(2):
        assert tokenize(videos, out, *PIXELS).returncode == 0
    assert len(logs(out)) == 1


def test_what_a_killed_run_had_done_stands_in_its_log_and_the_next_has_its_own(tmp_path: Path) -> None:
    videos, out = write_clips(tmp_path / "clips", 6, 300), tmp_path / "set"
    assert killed(tokenize(videos, out, *PIXELS, TOTO_CRASH_AT="after_commit:2"))
    assert tokenize(videos, out, *PIXELS).returncode == 0
    one, two = logs(out)
    assert [line["event"] for line in one] == ["run", "unit"]
    assert two[0]["units_before"] == 2 and two[-1]["outcome"] == "finished"


def test_in_a_bucket_the_log_is_one_file_at_the_end() -> None:
    store = open_store("memory://bucket-of-logs/set")
    log = EventLog(store)
    log.event("unit", unit="a")
    assert store.list("log") == []
    log.event("end", outcome="finished")
    assert [json.loads(line)["event"] for line in store.read(log.name).splitlines()] == ["unit", "end"]


def test_a_long_log_ends_with_how_much_was_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "LIMIT", 1000)
    log = EventLog(open_store(tmp_path))
    for i in range(100):
        log.event("quarantined", source=f"{i:03d}", reason="empty")
    log.event("end", outcome="finished")
    ((*lines, end),) = logs(tmp_path)
    assert end["left_out"] == 100 - len(lines) > 0
    assert sum(path.stat().st_size for path in (tmp_path / "log").iterdir()) < 1200


def test_units_of_two_versions_are_told_of_in_one_line_and_on_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    videos, out = write_clips(tmp_path / "clips", 1, 20), tmp_path / "set"
    words = ["run", *run_arguments(videos, out), *PIXELS, "--ray-address", "local"]
    cli.main(words, standalone_mode=False)
    assert "warning" not in capsys.readouterr().err
    write_clips(videos, 1, 20, first=1)
    monkeypatch.setattr(toto.tokenize.unit, "__version__", "99.0")
    cli.main(words, standalone_mode=False)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and re.search(r"warning: .* different versions: .*, 99\.0", said)
    versions = Dataset(out).info["made_by"]["versions"]
    assert len(versions) == 2 and ", ".join(versions) in (out / "README.md").read_text()
    rows = [(row.source, row.n_frames) for row in Dataset(out).rows()]
    assert sorted(rows) == [("clip-000.mp4", 20), ("clip-001.mp4", 20)]


def test_sources_that_change_or_vanish_between_plan_and_run_are_told_of(tmp_path: Path) -> None:
    videos, out = write_clips(tmp_path / "clips", 4, 300), tmp_path / "set"
    assert killed(tokenize(videos, out, *PIXELS, TOTO_CRASH_AT="after_plan"))
    write_video(videos / "clip-001.mp4", 40, seed=9)  # other bytes
    write_video(videos / "clip-003.mp4", 500, seed=3)  # it grew
    os.utime(videos / "clip-000.mp4", (1, 1))  # the same bytes with another time
    (videos / "clip-002.mp4").unlink()
    done = tokenize(videos, out, *PIXELS, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["changed"] == ["clip-000.mp4", "clip-001.mp4", "clip-003.mp4"]
    assert said["quarantine"] == {"missing": 1}
    assert Dataset(out).sources().column("frames_kept").to_pylist() == [300, 40, 0, 500]
    assert logs(out)[0][0]["changed"] == said["changed"]


def test_the_progress_line_says_what_is_in_flight() -> None:
    counters = Counters(decoded=4000, kept=1000, tokens=256_000, quarantined=3, in_flight=2_500_000)
    line = Snapshot(2, 10, 900, 5000, 10.0, counters, at_work=4).line()
    assert "2/10 units" in line and "in flight 4, 2.5 MB of frames" in line
    assert "400 frames/s decoded · 100 kept · 25,600 tokens/s · 3 quarantined · 0:40 left" in line
    assert Snapshot(0, 10, 0, 5000, 2.0, Counters(), starting="Ray").line() == "tokenize 0/10 units · starting Ray"


def test_another_process_is_told_where_a_run_stands_while_it_goes_on(tmp_path: Path) -> None:
    videos, out = write_clips(tmp_path / "clips", 1, 20), tmp_path / "set"
    assert tokenize(videos, out, *PIXELS).returncode == 0
    store = open_store(out)
    asked = ("tokenize", "status", *[word for word in run_arguments(videos, out) if word != "--quiet"], "--json")
    with Monitor(store, list(read_plans(store).units.values()), 0, lambda: None, EventLog(store), quiet=True) as going:
        going.watch(lambda: Counters(kept=7, tokens=448), lambda: 1)
        until = time.monotonic() + 60
        while not running(store) and time.monotonic() < until:
            time.sleep(0.05)
        (told,) = json.loads(call(*asked, *PIXELS).stdout.splitlines()[-1])["running"]
    assert (told["units"], told["units_done"], told["at_work"]) == (1, 0, 1)
    assert told["run"].endswith(f"-{os.getpid()}") and told["eta_s"] is not None
    assert json.loads(call(*asked, *PIXELS).stdout.splitlines()[-1])["running"] == []
