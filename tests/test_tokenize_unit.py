"""A unit whose way to the target fails for a moment is done anew; one that fails for good is not."""

import errno
from pathlib import Path

import pytest
from clips import PIXELS, run_arguments, write_clips

from toto import Dataset
from toto.shards.store import LocalStore
from toto.tokenize import unit
from toto.tokenize.cli import cli


def fail_publishing(monkeypatch: pytest.MonkeyPatch, code: int, times: int) -> list[str]:
    """The next `times` shards cannot be moved to their names; returns the list of tries."""
    publish, tries = LocalStore.publish, list[str]()

    def failing(self: LocalStore, finished: Path, name: str) -> None:
        if name.startswith("shards/"):
            tries.append(name)
            if len(tries) <= times:
                raise OSError(code, "the drive is away", name)
        publish(self, finished, name)

    monkeypatch.setattr(LocalStore, "publish", failing)
    monkeypatch.setattr(unit, "PAUSES_S", (0.0, 0.0, 0.0))
    return tries


def test_a_unit_is_done_anew_while_that_may_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos, out = write_clips(tmp_path / "videos", 1, 8), tmp_path / "out"
    tries = fail_publishing(monkeypatch, errno.EIO, 3)
    cli.main(["run", *run_arguments(videos, out), *PIXELS, "--ray-address", "local"], standalone_mode=False)
    assert len(tries) == 4 and len(Dataset(out)) == 1


@pytest.mark.parametrize(("code", "tries"), [(errno.EIO, 4), (errno.ENOSPC, 1)])
def test_a_lasting_failure_ends_the_run_and_leaves_nothing_half_written(
    code: int, tries: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos, out = write_clips(tmp_path / "videos", 1, 8), tmp_path / "out"
    tried = fail_publishing(monkeypatch, code, 99)
    with pytest.raises(OSError, match="the drive is away"):
        cli.main(["run", *run_arguments(videos, out), *PIXELS, "--ray-address", "local"], standalone_mode=False)
    assert len(tried) == tries and len(Dataset(out)) == 0
    assert {path.name for path in (out / "tmp").iterdir()} == {"seal.lock"}
