"""Two commands on one target at the same time: the slower one neither doubles rows nor takes back a newer plan."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clips import PIXELS, call, run_arguments, tokenize, write_clips

from toto import Dataset
from toto.errors import UsageError
from toto.shards.store import LocalStore, open_store
from toto.shards.verify import verify
from toto.tokenize import retry, run
from toto.tokenize.cli import cli


def before(function: Callable[..., Any], other: Callable[[], None]) -> Callable[..., Any]:
    """The function, with another process at work the first time that it is called."""
    waiting = [other]

    def called(*arguments: Any) -> Any:
        if waiting:
            waiting.pop()()
        return function(*arguments)

    return called


def test_a_run_that_was_held_up_seals_the_newest_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos, out = write_clips(tmp_path / "videos", 1, 8), tmp_path / "out"

    def another_run() -> None:
        write_clips(videos, 1, 8, first=1)
        assert tokenize(videos, out, *PIXELS).returncode == 0

    monkeypatch.setattr(run, "execute", before(run.execute, another_run))
    cli.main(["run", *run_arguments(videos, out), *PIXELS, "--ray-address", "local"], standalone_mode=False)
    info = Dataset(out).info
    assert info["units"] == {"committed": 2, "planned": 2} and len(info["files"]["plans"]) == 2
    assert verify(open_store(out), deep=True).ok


def test_two_retries_at_once_give_each_row_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    videos, out = write_clips(tmp_path / "videos", 2, 8), tmp_path / "out"
    good = (videos / "clip-001.mp4").read_bytes()
    (videos / "clip-001.mp4").write_bytes(b"")
    assert tokenize(videos, out, *PIXELS).returncode == 0
    (videos / "clip-001.mp4").write_bytes(good)
    words = ["retry", *run_arguments(videos, out), *PIXELS, "--ray-address", "local"]

    def another_retry() -> None:
        done = call("tokenize", *words, "--reason", "empty")
        assert done.returncode == 0, done.stderr

    monkeypatch.setattr(retry, "_planned_again", before(retry._planned_again, another_retry))
    assert cli.main(words, standalone_mode=False) == 0
    assert "nothing to do: no quarantined sources\n" in capsys.readouterr().out
    with pytest.raises(UsageError, match="was planned with seed = 0, this run has 1"):
        cli.main([*words, "--set", "datasets.folder.seed=1"], standalone_mode=False)
    assert sorted(row.source for row in Dataset(out).rows()) == ["clip-000.mp4", "clip-001.mp4"]
    assert verify(open_store(out), deep=True).ok


def test_one_that_lost_its_unit_and_finds_its_file_taken_away_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos, out = write_clips(tmp_path / "videos", 1, 8), tmp_path / "out"

    def taken_away(store: LocalStore, name: str) -> int:
        monkeypatch.undo()
        assert tokenize(videos, out, *PIXELS).returncode == 0  # the winner
        raise FileNotFoundError(name)

    monkeypatch.setattr(LocalStore, "size", taken_away)
    cli.main(["run", *run_arguments(videos, out), *PIXELS, "--ray-address", "local"], standalone_mode=False)
    assert [row.source for row in Dataset(out).rows()] == ["clip-000.mp4"] and verify(open_store(out), deep=True).ok
