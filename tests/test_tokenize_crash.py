"""kill -9 at every named point, then the same command again: the same dataset as without any kill."""

import os
from collections import Counter
from pathlib import Path

import pytest
from clips import PIXELS, call, killed, rows_of, tokenize, write_clips, write_image

from toto import Dataset
from toto.shards.store import open_store
from toto.shards.verify import verify
from toto.tokenize.crash import POINTS

# Points that a run passes once for each unit or source: killed the second time, with work already committed.
REPEATED = {
    "after_source",
    "after_shard_closed",
    "after_shard",
    "after_sources",
    "before_commit",
    "after_commit",
}
CODES = ("--tokenizer", "dct-512")  # the canary needs codes
STRAY = f"{16 * '0'}-{8 * '0'}.arrow"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips of 300 frames and two pictures: three units of at least 512 frames and one of the rest."""
    folder = write_clips(tmp_path_factory.mktemp("clips"), 6, 300)
    write_image(folder / "a" / "one.png", seed=1)
    write_image(folder / "a" / "two.png", seed=2)
    (folder / "broken.mp4").write_bytes(b"not a video")
    return folder


@pytest.fixture(scope="module")
def undisturbed(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Counter[str]]:
    """(dataset id, multiset of rows) of a run that nobody disturbs."""
    out = tmp_path_factory.mktemp("undisturbed") / "set"
    assert tokenize(world, out, *PIXELS).returncode == 0
    assert Dataset(out).info["units"]["committed"] >= 3
    return Dataset(out).dataset_id, rows_of(out)


@pytest.mark.parametrize("point", [point for point in POINTS if point != "after_canary"])
def test_killed_at_a_point_and_run_again(
    point: str, world: Path, undisturbed: tuple[str, Counter[str]], tmp_path: Path
) -> None:
    out = tmp_path / "set"
    crashed = tokenize(world, out, *PIXELS, TOTO_CRASH_AT=f"{point}:2" if point in REPEATED else point)
    assert killed(crashed), crashed.stderr
    again = tokenize(world, out, *PIXELS)
    assert again.returncode == 0, again.stderr
    assert (Dataset(out).dataset_id, rows_of(out)) == undisturbed
    assert verify(open_store(out), deep=True).ok


def test_killed_after_the_canary_and_run_again(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "clips", 1, 20)
    ids = []
    for name, point in (("a", "after_canary"), ("b", "")):
        crashed = tokenize(folder, tmp_path / name, *CODES, TOTO_CRASH_AT=point)
        assert killed(crashed) == bool(point), crashed.stderr
        assert tokenize(folder, tmp_path / name, *CODES).returncode == 0
        ids.append(Dataset(tmp_path / name).dataset_id)
    assert ids[0] == ids[1]


def test_what_a_killed_run_left_is_named_a_leftover_and_cleaned_when_old(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    assert killed(tokenize(world, out, *PIXELS, TOTO_CRASH_AT="after_shard"))
    left = [path for path in (out / "shards").iterdir()]
    assert len(left) == 1
    assert tokenize(world, out, *PIXELS).returncode == 0
    stray = out / "shards" / STRAY
    stray.write_bytes(b"of another run")
    report = verify(open_store(out), deep=True)
    assert report.ok and report.leftovers == [f"shards/{STRAY}"]
    arguments = (
        "status",
        "folder",
        "--out",
        str(out),
        "--set",
        f"datasets.folder.root={world}",
        *PIXELS,
        "--clean",
    )
    assert call("tokenize", *arguments).returncode == 0 and stray.exists()  # younger than 24 hours
    os.utime(stray, (0, 0))
    done = call("tokenize", *arguments)
    assert done.returncode == 0 and not stray.exists(), done.stderr
    assert verify(open_store(out), deep=True).leftovers == []


def test_a_run_does_not_write_over_the_files_of_others(world: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    refused = tokenize(world, tmp_path, *PIXELS)
    assert refused.returncode == 2 and "no part of a dataset (README.md)" in refused.stderr
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == "mine"
