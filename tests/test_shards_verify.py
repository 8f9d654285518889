"""Damage of any kind to any listed file is found, and the reader never hands out a damaged row."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from clips import call, tokenize, write_clips, write_image
from fuzz_world import with_file
from token_world import moving_videos, write_tokens

from toto import Dataset
from toto.errors import UserError
from toto.shards.commit import parse_commit
from toto.shards.manifest import MANIFEST_SCHEMA
from toto.shards.parquet import parquet_bytes
from toto.shards.rewrite.derive import Options
from toto.shards.rewrite.pack import pack
from toto.shards.schema import row_id
from toto.shards.shard_file import TAIL_BYTES
from toto.shards.snapshot import snapshot_bytes
from toto.shards.store import Store, open_store
from toto.shards.verify import verify

DAMAGES = 120


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


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve units of one video each, without pixels."""
    return write_tokens(tmp_path_factory.mktemp("many") / "set", moving_videos(12), unit_sources=1, batch_bytes=200)


def flipped(data: bytes) -> bytes:
    """With one bit changed in the middle."""
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]


def table_bytes(units: list[dict[str, Any]]) -> bytes:
    """A manifest of these units."""
    return parquet_bytes(pa.Table.from_pylist(units, MANIFEST_SCHEMA))


def in_memory(root: Path, change: Callable[[str, bytes], bytes] = lambda name, data: data) -> Store:
    """The dataset in a store that is not a folder."""
    store = open_store(f"memory://{uuid.uuid4().hex}")
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if path.is_file() and not name.startswith("tmp/"):
            store.write(name, change(name, path.read_bytes()))
    return store


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
        Dataset(dataset, cache_bytes=0).row(0)


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
        Dataset(dataset, cache_bytes=0).row(0)


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


def test_a_shard_in_the_place_of_another_is_found(many: Path, tmp_path: Path) -> None:
    """Its batches agree with their own hashes, and here the file does with all of them."""
    first, second, *_ = sorted((many / "shards").iterdir())
    root = with_file(many, tmp_path / "copy", f"shards/{first.name}", second.read_bytes(), True)
    assert any("another unit" in problem for problem in verify(open_store(root), deep=True).problems)
    with pytest.raises(UserError, match="another unit"):
        list(Dataset(root, cache_bytes=0).rows())


def test_the_manifest_is_held_against_the_rows(many: Path, tmp_path: Path) -> None:
    """A manifest and a commit that agree with each other, and with no row."""
    manifest = Dataset(many).info["files"]["manifest"]["path"]
    units = pq.read_table(many / manifest, use_threads=False).to_pylist()
    units[0]["tokens"] += 1
    commit = f"commits/{units[0]['unit']}.json"
    value = json.loads((many / commit).read_text())
    value["tokens"] += 1
    once = with_file(many, tmp_path / "once", manifest, table_bytes(units), True)
    twice = with_file(once, tmp_path / "twice", commit, json.dumps(value).encode(), True)
    quick, deep = (verify(open_store(twice), deep).problems for deep in (False, True))
    assert not any(problem.startswith("shards/") for problem in quick)
    assert any("tells of other rows than it holds" in problem for problem in deep)


def test_any_number_of_processes_reports_the_same(many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toto.shards.verify.TASK_UNITS", 2)
    root = Path(shutil.copytree(many, tmp_path / "copy"))
    for folder, step in (("shards", 2), ("sources", 3), ("commits", 4)):
        for path in sorted((root / folder).iterdir())[::step]:
            path.write_bytes(flipped(path.read_bytes()))
    seen: list[tuple[int, int, int]] = []
    one, two = (verify(open_store(root), True, lambda *done: seen.append(done), workers) for workers in (1, 2))
    assert vars(one) == vars(two) and len(one.problems) > 12
    assert seen[: len(seen) // 2] == seen[len(seen) // 2 :] and seen[-1][:2] == (12, 12)


def test_a_shard_that_kills_its_reader_is_a_problem_and_the_others_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a fault inside pyarrow would: in every process that reads it."""
    root = write_tokens(tmp_path / "set", moving_videos(2), unit_sources=1)
    name = sorted(f"shards/{path.name}" for path in (root / "shards").iterdir())[1]
    code = f"""
import os, signal
from toto.shards.verify.units import Checker
check = Checker._check_shard
Checker._check_shard = lambda self, unit, *more: (
    os.kill(os.getpid(), signal.SIGSEGV) if unit["path"] == {name!r} else check(self, unit, *more)
)
"""
    (tmp_path / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr("toto.shards.verify.TASK_UNITS", 1)
    report = verify(open_store(root), deep=True, workers=2)
    (problem,) = report.problems
    assert problem == f"{name}: whoever reads it dies, in a library or for want of memory"
    assert report.rows == 1


def test_damage_to_a_derived_dataset_is_found(many: Path, tmp_path: Path) -> None:
    pack(str(many), str(tmp_path / "packed"), 2_900, 0, Options(workers=1, proof=False, say=lambda text: None))
    assert verify(open_store(tmp_path / "packed"), deep=True).ok
    for name in listed_files(tmp_path / "packed"):
        path = tmp_path / "packed" / name
        data = path.read_bytes()
        path.write_bytes(flipped(data))
        assert not verify(open_store(tmp_path / "packed"), deep=True).ok, name
        path.write_bytes(data)


def test_a_row_that_stands_in_two_units_is_found(tmp_path: Path) -> None:
    videos = moving_videos(6)
    with patch("token_world.row_id", lambda key, run, view: row_id("train/0000.mp4", run, view)):
        root = write_tokens(tmp_path / "set", videos, unit_sources=2)

    def claimed(sources: list[bytes], runs: np.ndarray, views: np.ndarray) -> bytes:
        return b"".join(row_id("train/0000.mp4", *place) for place in zip(runs.tolist(), views.tolist(), strict=True))

    with patch("toto.shards.untrusted.row_rules.row_ids", claimed):
        assert "5 rows stand more than once" in verify(open_store(root), deep=True).problems


def test_a_remote_shard_is_fetched_once(many: Path) -> None:
    """Every byte of it by one request or another, none twice but those of its end, where the footer is."""
    store = in_memory(many)
    read: Counter[str] = Counter()
    ranges = store.read_ranges

    def counted(name: str, wanted: list[tuple[int, int]]) -> list[bytes]:
        read[name] += sum(length for _, length in wanted)
        return ranges(name, wanted)

    with patch.object(store, "read_ranges", counted), patch("toto.shards.shard_file.TAIL_BYTES", 1024):
        quick, deep = verify(store), (dict(read), read.clear(), verify(store, deep=True))[2]
    assert quick.ok and deep.ok and deep.rows == len(Dataset(many))
    sizes = {f"shards/{path.name}": path.stat().st_size for path in (many / "shards").iterdir()}
    assert sizes.keys() == read.keys()
    assert all(read[name] <= size + 1024 + 8 for name, size in sizes.items())


def test_quick_looks_at_the_ends_of_remote_shards_alone(many: Path) -> None:
    store = in_memory(many)
    with patch.object(store, "read_ranges", wraps=store.read_ranges) as read:
        assert verify(store).ok
    asked = [length for call_ in read.call_args_list for _, length in call_.args[1]]
    assert sum(asked) <= 12 * (TAIL_BYTES + 8)
    assert verify(in_memory(many, lambda name, data: flipped(data) if "shards/" in name else data), deep=True).problems


def test_ctrl_c_stops_at_once_and_leaves_no_process(many: Path) -> None:
    slow = "import time; from toto.shards import cli; from toto.shards.verify import units as v; "
    slow += "c = v.Checker.__call__; "
    slow += "v.Checker.__call__ = lambda *a: (print('at work', flush=True), time.sleep(60), c(*a))[2]; cli.main()"
    done = subprocess.Popen(
        [sys.executable, "-c", slow, "verify", "--deep", str(many)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert done.stdout and done.stdout.readline() == b"at work\n"
    done.send_signal(signal.SIGINT)
    _, said = done.communicate(timeout=200)
    assert done.returncode == 130 and b"stopped by Ctrl-C" in said


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("files.manifest", None),
        ("files.manifest.bytes", "5"),
        ("files.plans", {}),
        ("tokenizer.vocab_size", -1),
        ("tokenizer.id", []),
        ("splits.train", 3),
        ("totals.hours", "x"),
        ("annotations", {"labels": 1}),
        ("settings.keep_pixels", [8]),
        ("settings.views", "2"),
    ],
)
def test_a_snapshot_of_another_shape_is_refused_where_it_is(place: str, value: Any, dataset: Path) -> None:
    whole = json.loads((dataset / "dataset.json").read_text())
    del whole["sha256"]
    *path, last = place.split(".")
    inner = whole
    for key in path:
        inner = inner[key]
    inner[last] = value
    (dataset / "dataset.json").write_bytes(snapshot_bytes(whole))
    with pytest.raises(UserError, match=re.escape(place.replace("annotations", "annotations.labels"))):
        Dataset(dataset)
    assert not verify(open_store(dataset)).ok


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"sha256": "", "format_version": 1, "x": NaN}', '{"a": "\\ud800"}', "[]"],
    ids=["deep", "NaN", "half a letter", "a list"],
)
def test_odd_json_is_no_dataset(text: str, dataset: Path) -> None:
    (dataset / "dataset.json").write_text(text)
    with pytest.raises(UserError, match="dataset.json"):
        Dataset(dataset)
    commit = next((dataset / "commits").iterdir())
    commit.write_text(text)
    with pytest.raises(UserError, match="not a readable commit"):
        parse_commit(commit.read_bytes(), f"commits/{commit.name}")


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
    *_, verdict, advice, told = done.stdout.splitlines()
    assert "problem" in verdict and advice.startswith("there is no repair: put these files back from a copy")
    assert json.loads(told)["ok"] is False


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
