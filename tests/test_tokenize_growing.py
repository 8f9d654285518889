"""A dataset that grows: what is planned, committed and sealed never changes, whatever happens to the files since."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner
from clips import PIXELS, one_line, rows_of, run_arguments, tokenize, write_clips, write_video
from drill_tokenize import content

from toto import Dataset
from toto.errors import UsageError, UserError
from toto.shards.seal import seal
from toto.shards.store import open_store
from toto.tokenize.cli import cli, resolve
from toto.tokenize.estimate import Estimator
from toto.tokenize.plan import extend_plans, read_plans
from toto.tokenize.sources import list_sources


def tree(out: Path) -> dict[str, bytes]:
    """Every file of a dataset."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def run(videos: Path, out: Path, *arguments: str, command: str = "run") -> dict[str, object]:
    """`toto-tokenize run` in this process; what it says in JSON."""
    words = [command, *run_arguments(videos, out), *PIXELS, "--ray-address", "local", "--json", *arguments]
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout.splitlines()[-1])


def plan_alone(videos: Path, out: Path) -> None:
    """What a run leaves that is killed when it has planned."""
    sets = [word for word in (*run_arguments(videos, out), *PIXELS) if word.startswith("datasets.")]
    target = resolve("folder", "none", str(out), tuple(sets), ())
    estimate = Estimator(target.job).kept_frames
    extend_plans(open_store(target.job.out), target.job, list_sources(target.config), estimate, None)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Four clips of 300 frames: two units of 512 frames and more."""
    return write_clips(tmp_path / "clips", 4, 300)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(videos, their dataset): one clip, and another that came later."""
    folder = tmp_path_factory.mktemp("made")
    run(write_clips(folder / "clips", 1, 20), folder / "set")
    write_clips(folder / "clips", 1, 20, first=1)
    return folder / "clips", folder / "set"


def test_a_dataset_that_grew_has_the_rows_of_one_made_at_once(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    run(clips, out, "--limit", "3")
    before, first = tree(out), content(out)
    write_video(clips / "a-new-first.mp4", 40, seed=90)
    write_clips(clips / "below", 4, 300, first=91)
    run(clips, out)
    after = tree(out)
    kept = [name for name in before if name.startswith(("plan/", "commits/", "shards/", "sources/", "manifest/"))]
    assert "plan/0001.parquet" in kept and len([name for name in kept if name.startswith("commits/")]) == 2
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert len(Counter(row.row_id for row in Dataset(out).rows())) == len(Dataset(out))
    run(clips, tmp_path / "at-once")
    assert rows_of(out) == rows_of(tmp_path / "at-once")
    assert first.rows < rows_of(out)
    old = Dataset(out, id=first.dataset_id)
    assert len(old) == first.rows.total()
    assert {row.source for row in old.rows()} == {f"clip-{i:03d}.mp4" for i in range(3)}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("stride", "2"),
        ("crop", "center"),
        ("resolution", "64"),
        ("views", "2"),
        ("run_frames", "all"),
        ("min_frames", "2"),
        ("seed", "7"),
        ("keep_pixels", "32"),
        ("labels", "folders"),
    ],
)
def test_another_setting_is_refused_by_its_name_and_nothing_is_written(
    key: str, value: str, made: tuple[Path, Path]
) -> None:
    videos, out = made
    before = tree(out)
    words = ["run", *run_arguments(videos, out), *PIXELS, "--ray-address", "local"]
    with pytest.raises(UsageError, match=rf"was planned with {key} = .*, this run has '?{value}'?"):
        cli.main([*words, "--set", f"datasets.folder.{key}={value}"], standalone_mode=False)
    assert tree(out) == before


def test_another_tokenizer_is_refused_with_exit_code_2(made: tuple[Path, Path]) -> None:
    videos, out = made
    before = tree(out)
    done = tokenize(videos, out, "--tokenizer", "dct-512", "--set", "datasets.folder.keep_pixels=16")
    assert done.returncode == 2
    assert one_line(done.stderr, "was planned with tokenizer none"), done.stderr
    assert tree(out) == before


def test_a_source_that_changed_after_its_commit_is_reported_and_not_done_again(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    assert run(clips, out)["changed"] == []
    before = tree(out)
    write_video(clips / "clip-001.mp4", 50, seed=99)
    said = run(clips, out)
    assert (said["changed"], said["units_done"]) == (["clip-001.mp4"], 0)
    assert tree(out) == before


def test_a_source_replaced_before_its_unit_was_done_is_told_of_once_and_recorded_as_it_was_done(tmp_path: Path) -> None:
    clips, out = write_clips(tmp_path / "clips", 3, 20), tmp_path / "set"
    other, touched, _ = names = sorted(clips.iterdir())
    plan_alone(clips, out)
    write_video(other, 30, seed=9)
    os.utime(touched, ns=(1, 1_000_000))
    said = run(clips, out)
    assert said["changed"] == said["changed_done"] == [other.name, touched.name]
    sources = Dataset(out).sources()
    assert sources["size"].to_pylist() == [path.stat().st_size for path in names]
    assert sources["frames_kept"].to_pylist() == [30, 20, 20]
    before = tree(out)
    assert run(clips, out)["changed"] == [] and tree(out) == before, "its rows are of the file that is there"
    os.utime(touched, ns=(1, 2_000_000))
    said = run(clips, out)
    assert (said["changed"], said["changed_done"]) == ([touched.name], []) and tree(out) == before


def test_a_source_that_came_after_it_was_planned_as_missing_is_done(tmp_path: Path) -> None:
    clips, out = write_clips(tmp_path / "clips", 2, 20), tmp_path / "set"
    late = clips / "clip-001.mp4"
    late.rename(tmp_path / "later.mp4")
    late.symlink_to(tmp_path / "nowhere.mp4")
    plan_alone(clips, out)
    late.unlink()
    (tmp_path / "later.mp4").rename(late)
    said = run(clips, out)
    assert (said["quarantine"], said["changed_done"]) == ({}, [late.name])
    assert run(clips, out)["changed"] == []


def test_of_sources_without_rows_nothing_is_said_when_they_change(tmp_path: Path) -> None:
    clips, out = write_clips(tmp_path / "clips", 1, 20), tmp_path / "set"
    for name in ("a.mp4", "b.mp4"):
        (clips / name).write_bytes(b"no video")
    run(clips, out)
    for name in ("a.mp4", "b.mp4"):
        (clips / name).write_bytes(b"no video either")
    assert run(clips, out)["changed"] == []
    write_video(clips / "a.mp4", 20, seed=4)
    said = run(clips, out, "--limit", "1", command="retry")
    assert (said["changed"], said["units_done"], said["quarantine"]) == ([], 1, {"open_error": 1})
    write_video(clips / "a.mp4", 25, seed=5)
    assert run(clips, out)["changed"] == ["a.mp4"], "its rows are those of the retry"


def test_a_commit_that_vanished_is_made_again_the_same(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    run(clips, out)
    before = content(out)
    next((out / "commits").iterdir()).unlink()
    assert run(clips, out)["units_done"] == 1
    assert content(out) == before


def test_without_a_sealed_units_commit_nothing_is_sealed(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    run(clips, out)
    next((out / "commits").iterdir()).unlink()
    before = tree(out)
    store = open_store(out)
    target = resolve(
        "folder", "none", str(out), (f"datasets.folder.root={clips}", "datasets.folder.keep_pixels=16"), ()
    )
    with pytest.raises(UserError, match="1 sealed unit without a commit"):
        seal(store, lambda: read_plans(store).spec(target.job))
    assert tree(out) == before


def test_a_lost_unit_whose_source_is_gone_too_does_not_replace_the_sealed_one(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    run(clips, out)
    sealed = tree(out)["dataset.json"]
    *_, last = read_plans(open_store(out)).units.values()
    (out / "commits" / f"{last.id}.json").unlink()
    for source in last.sources:
        (clips / source.key).unlink()
    done = tokenize(clips, out, *PIXELS)
    assert done.returncode == 1
    assert one_line(done.stderr, "1 sealed unit without a commit, or with other rows than before"), done.stderr
    assert tree(out)["dataset.json"] == sealed
