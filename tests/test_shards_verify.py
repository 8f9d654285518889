"""Damage of any kind to any listed file is found, and the reader never hands out a damaged row."""

import json
import os
import random
import shutil
from pathlib import Path

import pytest
from clips import call, tokenize, write_clips, write_image

from toto import Dataset
from toto.errors import UserError
from toto.shards.snapshot import snapshot_bytes
from toto.shards.store import open_store
from toto.shards.verify import verify

DAMAGES = 300


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with codes, pixels, labels and a quarantine."""
    folder = tmp_path_factory.mktemp("set")
    write_clips(folder / "videos" / "drift", 3, 40)
    write_image(folder / "videos" / "still" / "one.png")
    (folder / "videos" / "still" / "bad.png").write_bytes(b"no picture")
    sets = ("labels=folders", "keep_pixels=16")
    done = tokenize(folder / "videos", folder / "out", *(w for s in sets for w in ("--set", f"datasets.folder.{s}")))
    assert done.returncode == 0, done.stderr
    return folder / "out"


@pytest.fixture
def dataset(whole: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def listed_files(root: Path) -> list[str]:
    """dataset.json and every file that it names, directly or through the manifest."""
    files = Dataset(root).info["files"]
    small = [files[key]["path"] for key in ("manifest", "quarantine", "card")]
    small += [ref["path"] for ref in [*files["annotations"].values(), *files["plans"]]]
    deep = [str(p.relative_to(root)) for folder in ("shards", "sources", "commits") for p in (root / folder).iterdir()]
    return sorted(["dataset.json", *small, *deep])


def test_an_untouched_dataset_is_whole(whole: Path) -> None:
    for deep in (False, True):
        report = verify(open_store(whole), deep)
        assert report.ok and not report.leftovers
    assert report.rows == len(Dataset(whole)) == 4


def test_every_flip_and_every_truncation_is_found(dataset: Path) -> None:
    rng = random.Random(0)
    names = listed_files(dataset)
    assert {name.partition("/")[0] for name in names} >= {
        "shards",
        "commits",
        "manifest",
        "annotations",
        "dataset.json",
    }
    pristine = list(Dataset(dataset).rows())
    missed = []
    for i in range(DAMAGES):
        name = names[i % len(names)]
        path = dataset / name
        data = path.read_bytes()
        place = rng.randrange(len(data))
        cut = rng.random() < 0.2
        path.write_bytes(
            data[:place] if cut else data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
        )
        if verify(open_store(dataset), deep=True).ok:
            missed.append((name, place, cut))
        if name.startswith("shards/"):
            assert _reads_only_true_rows(dataset, pristine), (name, place, cut)
        path.write_bytes(data)
    assert missed == []
    assert verify(open_store(dataset), deep=True).ok


def test_missing_and_foreign_files(dataset: Path) -> None:
    (shard,) = (dataset / "shards").iterdir()
    shutil.copy(shard, dataset / "shards" / "stranger.arrow")
    report = verify(open_store(dataset), deep=True)
    assert report.ok and report.leftovers == ["shards/stranger.arrow"]
    shard.unlink()
    assert any("missing" in problem for problem in verify(open_store(dataset)).problems)
    with pytest.raises(UserError, match="missing"):
        Dataset(dataset).row(0)


@pytest.mark.parametrize(
    "name", ["commits/foo.json", "plan/0099.parquet", "annotations/evil.parquet", "manifest/evil.json"]
)
def test_junk_that_a_run_would_stumble_over_is_a_problem(name: str, dataset: Path) -> None:
    (dataset / name).write_bytes(b"junk")
    assert any(problem.startswith(name) for problem in verify(open_store(dataset)).problems)


def test_a_copied_commit_is_no_second_unit(dataset: Path) -> None:
    (commit,) = (dataset / "commits").iterdir()
    shutil.copy(commit, dataset / "commits" / f"{'0' * 16}.json")
    assert any(f"{'0' * 16}.json" in problem for problem in verify(open_store(dataset)).problems)


def test_a_pipe_in_place_of_a_shard_stops_nobody(dataset: Path) -> None:
    (shard,) = (dataset / "shards").iterdir()
    shard.unlink()
    os.mkfifo(shard)
    assert any("not a regular file" in problem for problem in verify(open_store(dataset), deep=True).problems)
    with pytest.raises(UserError, match="not a regular file"):
        Dataset(dataset).row(0)


def test_names_that_lead_out_of_the_dataset_are_refused(dataset: Path) -> None:
    value = json.loads((dataset / "dataset.json").read_text())
    del value["sha256"]
    value["files"]["manifest"]["path"] = "../secret.parquet"
    (dataset / "dataset.json").write_bytes(snapshot_bytes(value))
    with pytest.raises(UserError, match="no name of a file in a dataset"):
        Dataset(dataset)
    assert call("shards", "verify", dataset).returncode == 1


def test_a_snapshot_without_its_fields_is_refused(dataset: Path) -> None:
    value = json.loads((dataset / "dataset.json").read_text())
    del value["sha256"], value["totals"]
    value["files"] = []
    (dataset / "dataset.json").write_bytes(snapshot_bytes(value))
    for command in ("info", "verify", "view"):
        done = call("shards", command, dataset)
        assert done.returncode == 1 and "totals, files missing" in done.stdout + done.stderr, done.stderr


def test_rows_of_another_tokenizer_are_found(dataset: Path) -> None:
    value = json.loads((dataset / "dataset.json").read_text())
    del value["sha256"]
    value["tokenizer"]["id"] = "0" * 16
    (dataset / "dataset.json").write_bytes(snapshot_bytes(value))
    assert any("another tokenizer" in problem for problem in verify(open_store(dataset)).problems)
    with pytest.raises(UserError, match="another tokenizer"):
        Dataset(dataset).row(0)


def test_another_format_version_is_refused_by_name(dataset: Path) -> None:
    value = json.loads((dataset / "dataset.json").read_text())
    value["format_version"] = 2
    (dataset / "dataset.json").write_text(json.dumps(value))
    with pytest.raises(UserError, match="format version 2; this toto reads version 1"):
        Dataset(dataset)


def test_the_command_says_what_is_wrong_and_exits_with_1(dataset: Path) -> None:
    assert call("shards", "verify", "--deep", dataset).returncode == 0
    (shard,) = (dataset / "shards").iterdir()
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 4
    shard.write_bytes(data)
    done = call("shards", "verify", "--deep", dataset, "--json")
    assert done.returncode == 1 and shard.name in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["ok"] is False


def _reads_only_true_rows(root: Path, pristine: list) -> bool:
    """Each row reads back as written, or not at all, with an error that names the shard."""
    for i, row in enumerate(pristine):
        try:
            found = Dataset(root).row(i)
        except UserError as error:
            assert "shards/" in str(error)
            continue
        same = found.record.row_id == row.record.row_id and (found.record.tokens == row.record.tokens).all()
        if not (same and (found.pixels == row.pixels).all() and found.record.label == row.record.label):
            return False
    return True
