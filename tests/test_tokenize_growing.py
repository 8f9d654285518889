"""A dataset that grows: what is committed never changes, what is new is added, nothing comes twice."""

import json
from pathlib import Path

import pytest
from clips import PIXELS, call, rows_of, tokenize, write_clips

from toto import Dataset
from toto.errors import UserError
from toto.shards.store import open_store
from toto.shards.verify import verify


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Six clips of 270 frames: two make a unit."""
    return write_clips(tmp_path / "videos", 6, 270)


def files_of(out: Path, *folders: str) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for folder in folders for path in (out / folder).iterdir()}


def test_limit_then_new_files_then_all_gives_the_rows_of_one_run(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert tokenize(videos, out, *PIXELS, "--limit", "3").returncode == 0
    first = files_of(out, "plan", "shards", "commits", "sources")
    old = Dataset(out)
    assert {row.source for row in old.rows()} == {f"clip-{i:03d}.mp4" for i in range(3)}

    write_clips(videos, 5, 270, first=6)
    assert tokenize(videos, out, *PIXELS).returncode == 0
    assert first.items() <= files_of(out, "plan", "shards", "commits", "sources").items()
    assert tokenize(videos, tmp_path / "once", *PIXELS).returncode == 0
    assert rows_of(out) == rows_of(tmp_path / "once") and set(rows_of(out).values()) == {1}
    assert verify(open_store(out), deep=True).ok

    again = Dataset(out, id=old.dataset_id)
    assert len(again) == len(old) < len(Dataset(out)) and (again.row(2).pixels == old.row(2).pixels).all()
    assert again.quarantine().num_rows == 0


def test_a_file_that_sorts_first_is_planned_after_those_that_were_there(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert tokenize(videos, out, *PIXELS).returncode == 0
    units = set(files_of(out, "commits"))
    (videos / "clip-000.mp4").rename(videos / "another.mp4")
    assert tokenize(videos, out, *PIXELS).returncode == 0
    assert units < set(files_of(out, "commits"))
    assert {row.source for row in Dataset(out).rows()} == {"another.mp4", *(f"clip-{i:03d}.mp4" for i in range(6))}


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (("--set", "datasets.folder.stride=2"), "stride"),
        (("--set", "datasets.folder.keep_pixels=8"), "keep_pixels"),
        (("--set", "datasets.folder.seed=1"), "seed"),
        (("--set", "datasets.folder.run_frames=all"), "run_frames"),
        (("--set", "datasets.folder.min_frames=2"), "min_frames"),
        (("--set", "datasets.folder.crop=center"), "crop"),
        (("--set", "datasets.folder.views=2"), "views"),
        (("--set", "datasets.folder.fps=5"), "stride"),
        (("--tokenizer", "dct-512"), "tokenizer"),
    ],
)
def test_other_settings_on_the_same_target_are_refused_by_name(
    change: tuple[str, str], key: str, tmp_path: Path
) -> None:
    videos, out = write_clips(tmp_path / "videos", 1, 8), tmp_path / "out"
    assert tokenize(videos, out, *PIXELS).returncode == 0
    before = files_of(out, "plan", "commits", "manifest")
    write_clips(videos, 1, 8, first=1)
    done = tokenize(videos, out, *PIXELS, *change)
    assert done.returncode == 2 and f" {key} " in done.stderr and "another --out" in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) <= 2 and files_of(out, "plan", "commits", "manifest") == before


def test_settings_that_change_no_row_may_change(tmp_path: Path) -> None:
    videos, out = write_clips(tmp_path / "videos", 2, 8), tmp_path / "out"
    assert tokenize(videos, out, *PIXELS, "--limit", "1").returncode == 0
    free = ("decode_timeout_s=30", "decode_memory_mb=3000", "max_bad_fraction=0.5")
    options = [word for value in free for word in ("--set", f"datasets.folder.{value}")]
    assert tokenize(videos, out, *PIXELS, *options).returncode == 0
    assert len(Dataset(out)) == 2


def test_a_vanished_commit_is_done_again_but_a_sealed_one_missing_stops_the_seal(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert tokenize(videos, out, *PIXELS).returncode == 0
    sealed = (out / "dataset.json").read_bytes()
    plans = [path for path in (out / "plan").iterdir() if path.suffix == ".parquet"]
    for path in (out / "commits").iterdir():
        path.rename(tmp_path / path.name)
    plans[0].rename(tmp_path / plans[0].name)
    done = tokenize(videos, out, *PIXELS, "--limit", "2")
    assert done.returncode == 1 and "lost their commit" in done.stderr and len(done.stderr.splitlines()) <= 2
    assert (out / "dataset.json").read_bytes() == sealed


def test_retry_takes_up_only_what_gave_no_row(tmp_path: Path) -> None:
    videos, out = write_clips(tmp_path / "videos", 2, 8), tmp_path / "out"
    good = (videos / "clip-001.mp4").read_bytes()
    (videos / "clip-001.mp4").write_bytes(b"still downloading")
    assert tokenize(videos, out, *PIXELS).returncode == 0
    assert Dataset(out).quarantine()["reason"].to_pylist() == ["open_error"]
    arguments = ["folder", "--out", out, "--ray-address", "local", "--quiet", *PIXELS]
    arguments += [w for s in (f"root={videos}", "stride=1", "resolution=32") for w in ("--set", f"datasets.folder.{s}")]
    none = call("tokenize", "retry", *arguments, "--reason", "timeout")
    assert none.returncode == 1 and "no quarantined sources with reason 'timeout'" in none.stderr
    (videos / "clip-001.mp4").write_bytes(good)
    done = call("tokenize", "retry", *arguments, "--reason", "open_error", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["quarantine"] == {}
    dataset = Dataset(out)
    assert sorted(row.source for row in dataset.rows()) == ["clip-000.mp4", "clip-001.mp4"]
    assert dataset.quarantine().num_rows == 0 and verify(open_store(out), deep=True).ok
    attempts = dict(zip(dataset.sources()["key"].to_pylist(), dataset.sources()["attempt"].to_pylist(), strict=True))
    assert attempts["clip-000.mp4"] == 0
    again = call("tokenize", "retry", *arguments)
    assert again.returncode == 1 and "no quarantined sources" in again.stderr


def test_a_damaged_plan_says_which_file_to_put_back(tmp_path: Path) -> None:
    videos, out = write_clips(tmp_path / "videos", 1, 8), tmp_path / "out"
    assert tokenize(videos, out, *PIXELS).returncode == 0
    plan = out / "plan" / "0001.parquet"
    plan.write_bytes(plan.read_bytes()[:-20])
    done = tokenize(videos, out, *PIXELS)
    assert done.returncode == 1 and "0001.parquet" in done.stderr and len(done.stderr.splitlines()) <= 2
    with pytest.raises(UserError, match="snapshots with id"):
        Dataset(out, id="0000")
