"""What a person meets at the command line: short errors, exit codes, help with examples, machine-readable ends."""

import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest
from clips import call, run_arguments, short_error, tokenize, write_clips, write_image

from toto import Dataset
from toto.errors import UserError
from toto.shards.store import open_store


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_clips(tmp_path_factory.mktemp("videos"), 2, 12)
    write_image(folder / "one.png")
    (folder / "notes.txt").write_text("not media")
    return folder


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "k4000"], ["k4000", "k400"]),
        (["run", "folder", "--set", "datasets.folder.strid=2"], ["strid", "stride"]),
        (["run", "folder", "--set", "datasets.folder.crop=middle"], ["datasets.folder.crop", "middle", "center"]),
        (["run", "folder", "--set", "datasets.folder.root=x", "--tokenizer", "dvea"], ["dvea", "dct"]),
        (["run", "folder", "--set", "datasets.folder.root=x", "--set", "datasets.folder.resolution=100"], ["100", "8"]),
        (["run", "folder", "--set", "datasets.folder.root=x", "--tokenizer", "none"], ["keep_pixels"]),
        (["run", "folder", "--config", "nowhere.yaml"], ["nowhere.yaml"]),
        (["run", "demo", "--workers", "0"], ["--workers"]),
        (["run"], ["DATASET"]),
        (["rum", "demo"], ["rum"]),
    ],
)
def test_wrong_usage_exits_with_2_and_says_what_is_right(
    arguments: list[str], words: list[str], tmp_path: Path
) -> None:
    error = short_error(call("tokenize", *arguments, cwd=tmp_path), 2)
    assert all(word in error for word in words), error


def test_an_unset_variable_names_itself(tmp_path: Path) -> None:
    error = short_error(call("tokenize", "run", "k400", cwd=tmp_path, K400=""), 2)
    assert "K400" in error


def test_what_is_not_there_exits_with_1(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for root, word in (("nowhere", "nowhere"), ("empty", "no ")):
        done = tokenize(tmp_path / root, tmp_path / "out")
        assert word in short_error(done, done.returncode) and done.returncode in (1, 2)
    for command in ("info", "verify", "view"):
        done = call("shards", command, str(tmp_path / "nowhere"))
        assert done.returncode == 1 and "nowhere" in done.stdout + done.stderr and "Traceback" not in done.stderr
        (tmp_path / "file").touch()
        done = call("shards", command, str(tmp_path / "file"))
        assert done.returncode == 1 and "file is a file; a dataset is a folder" in done.stdout + done.stderr


def test_status_of_nothing_says_how_to_begin(videos: Path, tmp_path: Path) -> None:
    sets = ("--set", f"datasets.folder.root={videos}")
    error = short_error(call("tokenize", "status", "folder", "--out", tmp_path / "out", *sets), 1)
    assert "nothing is planned" in error and "toto-tokenize run" in error


def test_status_asks_for_the_target_alone(tmp_path: Path) -> None:
    done = call("tokenize", "status", "k400", "--out", tmp_path / "out", cwd=tmp_path, K400="")
    assert "nothing is planned" in short_error(done, 1)


def test_a_dataset_does_not_begin_among_its_sources_nor_they_in_it(videos: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(videos, tmp_path / "all" / "videos"))
    (tmp_path / "link").symlink_to(root)
    before = sorted(tmp_path.rglob("*"))
    for out in (root, root / "set", tmp_path / "all", tmp_path / "link" / "deep" / "set"):
        error = short_error(tokenize(root, out), 2)
        assert f"--out {out} is, holds or lies in the sources' folder {root} (datasets.folder.root)" in error
    assert sorted(tmp_path.rglob("*")) == before
    assert tokenize(root, tmp_path / "set").returncode == 0
    shutil.move(tmp_path / "set", root / "set")
    assert tokenize(root, root / "set").returncode == 0, "what was begun there goes on"


@pytest.mark.parametrize("root", ["s3://key:hush@bucket/dir", "http://127.0.0.1:9/a?token=hush"])
def test_a_root_with_a_password_is_refused_before_anything_and_not_printed(root: str, tmp_path: Path) -> None:
    done = tokenize(root, tmp_path / "out")  # type: ignore[arg-type]
    error = short_error(done, 2)
    assert "datasets.folder.root" in error and "no password and no query" in error and "credentials" in error
    assert "hush" not in done.stdout + done.stderr and not (tmp_path / "out").exists()


def test_debug_adds_the_traceback(tmp_path: Path) -> None:
    done = call("tokenize", "run", "k4000", "--debug", cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" in done.stderr and "k400" in done.stderr


@pytest.mark.parametrize(
    ("stage", "command"),
    [("tokenize", c) for c in ("", "plan", "run", "retry", "status")]
    + [("shards", c) for c in ("", "info", "verify", "view")],
)
def test_help_has_an_example(stage: str, command: str) -> None:
    done = call(stage, *filter(None, [command]), "--help")
    assert done.returncode == 0 and "Example" in done.stdout


def test_json_is_the_last_line(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = run_arguments(videos, out)
    planned = json.loads(
        call("tokenize", "plan", *[a for a in arguments if a != "--quiet"], "--json").stdout.splitlines()[-1]
    )
    assert planned["sources"] == 3 and planned["frames_kept"] == 25 and planned["tokens"] == 25 * 16
    assert planned["ignored"] == {".txt": 1} and planned["done"] == 0 and not out.exists()
    ran = json.loads(tokenize(videos, out, "--json").stdout.splitlines()[-1])
    assert ran["frames"] == 25 and ran["units"] == {"committed": 1, "planned": 1} and ran["units_done"] == 1
    info = json.loads(call("shards", "info", out, "--json").stdout.splitlines()[-1])
    assert {info[key] for key in ("dataset_id",)} == {ran["dataset_id"]}
    assert (info["rows"], info["frames"], info["tokens"]) == (3, 25, 25 * 16 + 6)
    status = json.loads(
        call("tokenize", "status", *[a for a in arguments if a != "--quiet"], "--json").stdout.splitlines()[-1]
    )
    assert status["committed_units"] == 1 and status["results"] == {"ok": 3} and status["running"] == []


def test_a_plan_says_what_is_done_already_and_which_option_has_no_effect(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert tokenize(videos, out, "--limit", "2").returncode == 0
    arguments = [word for word in run_arguments(videos, out) if word != "--quiet"]
    done = call("tokenize", "plan", *arguments, "--gpu", "B200", "--json")
    assert f"done already at {out}: 2 of these sources; costs are of the whole" in done.stdout
    planned = json.loads(done.stdout.splitlines()[-1])
    assert (planned["sources"], planned["done"], planned["encode_gpu_hours"]) == (3, 2, None)
    assert done.stderr.count("\n") == 1 and "warning: --gpu is without effect" in done.stderr


def test_a_finished_run_changes_nothing_when_run_again(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert tokenize(videos, out).returncode == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert tokenize(videos, out).returncode == 0
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_nothing_usable_exits_with_1_and_is_sealed_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"")
    error = short_error(tokenize(tmp_path / "videos", tmp_path / "out"), 1)
    assert "no source was usable" in error and "empty 1" in error
    dataset = Dataset(tmp_path / "out")
    assert len(dataset) == 0 and dataset.quarantine()["reason"].to_pylist() == ["empty"]
    assert dataset.windows(16) == 0 and list(dataset.rows()) == []
    assert call("shards", "verify", "--deep", tmp_path / "out").returncode == 0
    done = call("tokenize", "status", *run_arguments(tmp_path / "videos", tmp_path / "out")[:3])
    assert f"in quarantine: empty 1; {tmp_path / 'out'}/quarantine.parquet" in done.stdout
    assert ["empty", "a.mp4"] in [line.split() for line in done.stdout.splitlines()]


def test_a_few_bad_sources_of_many_fail_the_run_only_above_max_bad_fraction(tmp_path: Path) -> None:
    for i in range(100):
        write_image(tmp_path / "videos" / f"{i:03d}.png", (8, 8), i)
    for i in range(3):
        (tmp_path / "videos" / f"bad-{i}.png").write_bytes(b"no picture")
    error = short_error(tokenize(tmp_path / "videos", tmp_path / "out"), 1)
    assert "3 of 103 sources gave no row" in error and "max_bad_fraction" in error
    assert len(Dataset(tmp_path / "out")) == 100
    assert (
        tokenize(tmp_path / "videos", tmp_path / "out", "--set", "datasets.folder.max_bad_fraction=0.05").returncode
        == 0
    )


def test_a_hostile_archive_is_not_unpacked(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    write_image(videos / "good.png")
    evil = tarfile.TarInfo("../../evil.png")
    evil.size = 4
    for name in ("evil.tar", "evil.mp4"):  # left out by its suffix; taken for a video, which it is not
        with tarfile.open(videos / name, "w") as archive:
            archive.addfile(evil, io.BytesIO(b"evil"))
    assert tokenize(videos, tmp_path / "out").returncode == 0
    dataset = Dataset(tmp_path / "out")
    assert len(dataset) == 1 and dataset.quarantine()["reason"].to_pylist() == ["open_error"]
    assert not list(tmp_path.parent.rglob("evil.png"))


def test_another_folder_does_not_end_up_in_the_same_dataset(videos: Path, tmp_path: Path) -> None:
    write_clips(tmp_path / "other", 1, 5, first=7)
    assert tokenize(videos, tmp_path / "out").returncode == 0
    error = short_error(tokenize(tmp_path / "other", tmp_path / "out"), 2)
    assert str(videos) in error and "another --out" in error
    moved = Path(shutil.copytree(videos, tmp_path / "moved"))
    assert tokenize(moved, tmp_path / "out").returncode == 0  # the same sources at another place


def test_a_changed_source_is_reported_and_stays_as_it_was(tmp_path: Path) -> None:
    videos = write_clips(tmp_path / "videos", 2, 10)
    first = json.loads(tokenize(videos, tmp_path / "out", "--json").stdout.splitlines()[-1])
    write_clips(videos, 1, 14)
    done = tokenize(videos, tmp_path / "out", "--json")
    assert done.returncode == 0 and "changed since they were planned: 1 source (first: " in done.stdout
    again = json.loads(done.stdout.splitlines()[-1])
    assert again["changed"] == ["clip-000.mp4"] and again["dataset_id"] == first["dataset_id"]


def test_labels_of_a_split_stay_when_another_split_is_added(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for i in range(2):
            write_image(tmp_path / "imagenet" / split / f"n0000000{i}" / f"{split}_{i}.JPEG", seed=i)
    for split in ("val", "train"):
        sets = [f"root={tmp_path / 'imagenet'}", f"split=[{split}]", "resolution=32", "views=1"]
        options = [word for s in sets for word in ("--set", f"datasets.imagenet1k.{s}")]
        done = call("tokenize", "run", "imagenet1k", "--out", tmp_path / "out", "--ray-address", "local", *options)
        assert done.returncode == 0, done.stderr
    dataset = Dataset(tmp_path / "out")
    assert dataset.splits == ["train", "val"]
    assert dataset.labels() == {row.source: row.label for row in dataset.rows()} and len(dataset.labels()) == 4


def test_a_store_that_cannot_be_reached_is_one_line(videos: Path, tmp_path: Path) -> None:
    nowhere = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", "HOME": str(tmp_path)}
    environment = {**nowhere, "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    for command in (
        ["tokenize", "run", *run_arguments(videos, Path("x")), "--ray-address", "local"],
        ["shards", "info"],
    ):
        stage, *words = [word if word != "x" else "s3://toto-nowhere/set" for word in map(str, command)]
        done = call(stage, *words, *(["s3://toto-nowhere/set"] if stage == "shards" else []), **environment)
        assert "s3://toto-nowhere/set" in short_error(done, 1)


def test_a_server_that_nobody_answers_at_is_named() -> None:
    with pytest.raises(UserError, match="cannot open ftp://127.0.0.1:9/set: ConnectionRefusedError"):
        open_store("ftp://127.0.0.1:9/set")


def test_a_new_class_comes_after_the_known_ones(tmp_path: Path) -> None:
    labels = ("--set", "datasets.folder.labels=folders")
    for name in ("bee", "cat"):
        write_image(tmp_path / "videos" / name / "1.png")
    assert tokenize(tmp_path / "videos", tmp_path / "out", *labels).returncode == 0
    write_image(tmp_path / "videos" / "ant" / "1.png")
    write_image(tmp_path / "videos" / "cat" / "2.png")
    assert tokenize(tmp_path / "videos", tmp_path / "out", *labels).returncode == 0
    dataset = Dataset(tmp_path / "out")
    expected = {"bee/1.png": 0, "cat/1.png": 1, "cat/2.png": 1, "ant/1.png": 2}
    assert dataset.labels() == expected == {row.source: row.label for row in dataset.rows()}
    assert {c["name"]: c["label"] for c in dataset.annotations("classes").to_pylist()} == {"bee": 0, "cat": 1, "ant": 2}
