"""Datasets of videos in their official layouts, tokenized in one process: rows, labels, splits, tables, quarantine."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from click.testing import CliRunner
from clips import reasons_of
from footage import numbered, write
from listings import dataset, refusal, tree
from made import make, numbers

from toto import Dataset
from toto.errors import UsageError
from toto.tokenize.cli import cli
from toto.tokenize.sources import list_sources

pytestmark = pytest.mark.usefixtures("cache")

FRAMES = 3
UID = "aaaaaaaa-0000-4000-8000-00000000000"


def put(root: Path, *names: str) -> None:
    """A video of three numbered frames under each name, whatever its suffix says."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write(root / "made.mov", numbered(FRAMES)).rename(root / name)


def howto100m(root: Path) -> None:
    put(root, "a/-97kyZVWVG0.mp4", "nVbIUDjzWY4.webm")
    rows = "".join(f"{video},Food,Tea,1,25938\n" for video in ("nVbIUDjzWY4", "-97kyZVWVG0", "_gone_gone_"))
    said = {"nVbIUDjzWY4": {"text": ["tea"], "start": [0.5], "end": [2]}}
    texts = {
        "HowTo100M_v1.csv": f"video_id,category_1,category_2,rank,task_id\n{rows}",
        "task_ids.csv": "25938\tMake Tea\n",
    }
    tree(root, **texts, **{"caption.json": json.dumps(said)})


def ego4d(root: Path) -> None:
    put(root, f"v2/video_540ss/{UID}1.mp4", f"v2/video_540ss/{UID}2.mp4")
    videos = [{"video_uid": f"{UID}{i}", "scenarios": ["Cooking"]} for i in (1, 2, 3)]
    tree(root / "v2", **{"ego4d.json": json.dumps({"videos": videos, "clips": []})})


def ucf101(root: Path) -> None:
    put(root, *(f"UCF-101/YoYo/v_YoYo_g0{i}_c01.avi" for i in (1, 8)))
    lists = {"classInd.txt": "1 Archery\r\n2 YoYo\r\n", "testlist01.txt": "YoYo/v_YoYo_g01_c01.avi\r\n"}
    train = "YoYo/v_YoYo_g08_c01.avi 2\r\nArchery/v_Archery_g09_c01.avi 1\r\n"
    tree(root / "ucfTrainTestlist", **lists, **{"trainlist01.txt": train})


def hmdb51(root: Path) -> None:
    put(root, "wave/_[a]_;-)_wave_0.avi", "run/b&c!_run_1.avi")
    rows = "_[a]_;-)_wave_0.avi,wave_test,2,1,0\nb&c!_run_1.avi,run_test,1,2,1\ngone.avi,run_test,1,1,1\n"
    tree(root, **{"hmdb51.csv": f"video_id,label,split1,split2,split3\n{rows}"})


def cater(root: Path) -> None:
    put(root, *(f"all_actions/videos/CATER_new_00000{i}.avi" for i in (0, 1)))
    lines = ("CATER_new_000000.avi 14\nCATER_new_000009.avi 2\n", "CATER_new_000001.avi 23\n")
    tree(root / "all_actions/lists/localize", **{"train.txt": lines[0], "val.txt": lines[1]})
    objects = [{"shape": "spl", "locations": {str(frame): [2.5, 0.5, 0.3] for frame in range(FRAMES)}}]
    tree(root / "all_actions/scenes", **{"CATER_new_000001.json": json.dumps({"objects": objects})})


def kinetics(root: Path) -> None:
    put(root, "train/0wR5jVB-WPk_000417_000427.mp4", "loose/-caPS4FHFF8_000036_000046.mp4")
    with tarfile.open(root / "val.tar", "w") as tar:
        tar.add(root / "loose" / "-caPS4FHFF8_000036_000046.mp4", "-caPS4FHFF8_000036_000046.mp4")
    (root / "loose" / "-caPS4FHFF8_000036_000046.mp4").unlink()
    header = "label,youtube_id,time_start,time_end,split\n"
    train = '"riding a bike",0wR5jVB-WPk,417,427,train\nabseiling,AAAAAAAAAAA,0,10,train\n'
    tree(root / "annotations", **{"train.csv": header + train, "val.csv": f"{header}abseiling,-caPS4FHFF8,36,46,val\n"})


CASES: dict[str, tuple[Callable[[Path], None], dict[str, tuple[str, int | None]], str, set[str]]] = {
    # layout: what writes it, rows' sources -> (split, label), the one listed and not there, annotation tables
    "howto100m": (
        howto100m,
        {"-97kyZVWVG0": ("train", None), "nVbIUDjzWY4": ("train", None)},
        "_gone_gone_",
        {"videos", "captions"},
    ),
    "ego4d": (ego4d, {f"{UID}1": ("train", None), f"{UID}2": ("train", None)}, f"{UID}3", {"videos", "scenarios"}),
    "ucf101": (
        ucf101,
        {"YoYo/v_YoYo_g08_c01": ("train", 1), "YoYo/v_YoYo_g01_c01": ("test", 1)},
        "Archery/v_Archery_g09_c01",
        {"labels", "classes", "folds"},
    ),
    "hmdb51": (
        hmdb51,
        {"run/b&c!_run_1": ("train", 0), "wave/_[a]_;-)_wave_0": ("test", 1)},
        "run/gone",
        {"labels", "classes", "folds"},
    ),
    "cater": (
        cater,
        {"CATER_new_000000": ("train", 14), "CATER_new_000001": ("val", 23)},
        "CATER_new_000009",
        {"labels", "classes", "lists", "snitch"},
    ),
    "kinetics": (
        kinetics,
        {"train/0wR5jVB-WPk_000417_000427": ("train", 1), "val/-caPS4FHFF8_000036_000046": ("val", 0)},
        "train/AAAAAAAAAAA_000000_000010",
        {"labels", "classes"},
    ),
}


@pytest.mark.parametrize("layout", CASES)
def test_a_layout_becomes_rows_splits_labels_and_tables(layout: str, tmp_path: Path) -> None:
    write_it, wanted, gone, tables = CASES[layout]
    write_it(tree(tmp_path / "root"))
    made = make(tmp_path / "root", tmp_path / "out", layout=layout)
    rows = {row.source: row for row in made.rows()}
    assert {source: row.label for source, row in rows.items()} == {s: label for s, (_, label) in wanted.items()}
    assert all(numbers(row) == list(range(FRAMES)) for row in rows.values())
    for split in {split for split, _ in wanted.values()}:
        held = {row.source for row in Dataset(tmp_path / "out", split=split).rows()}
        assert held == {source for source, (its, _) in wanted.items() if its == split}
    assert reasons_of(tmp_path / "out") == {gone: "missing"}
    assert set(made.info["files"]["annotations"]) == tables
    for name in tables - {"classes"}:
        sources = set(made.annotations(name)["source"].to_pylist())
        assert sources and sources <= {*wanted, gone}
    if "labels" in tables:
        labels = {row["source"]: (row["split"], row["label"]) for row in made.annotations("labels").to_pylist()}
        assert {source: labels[source] for source in wanted} == wanted and set(labels) == {*wanted, gone}


@pytest.mark.parametrize("layout", CASES)
def test_a_layout_in_a_bucket_lists_like_a_local_one(layout: str, tmp_path: Path) -> None:
    CASES[layout][0](tree(tmp_path / "root"))
    bucket = fsspec.filesystem("memory")
    bucket.put(f"{tmp_path}/root", "/layouts/root", recursive=True)
    try:
        here = list_sources(dataset(tmp_path / "root", layout))
        there = list_sources(dataset("memory://layouts/root", layout))
    finally:
        bucket.rm("/layouts", recursive=True)
    facts = [(source.key, source.split, source.label, source.size) for source in here.sources]
    assert [(source.key, source.split, source.label, source.size) for source in there.sources] == facts
    assert there.annotations == here.annotations and there.ignored == here.ignored


@pytest.mark.parametrize("command", [("plan",), ("run", "--ray-address", "local", "--quiet")])
def test_plan_and_run_say_which_official_list_is_not_there(command: tuple[str, ...], tmp_path: Path) -> None:
    kinetics(tree(tmp_path / "root"))
    (tmp_path / "root" / "annotations" / "val.csv").unlink()
    sets = (f"root={tmp_path}/root", "tokenizer=dct-512", "resolution=16", "homepage=https://example.org")
    options = [word for value in sets for word in ("--set", f"datasets.k600.{value}")]
    name, *more = command
    done = CliRunner().invoke(cli, [name, "k600", *more, "--out", str(tmp_path / "out"), "--json", *options])
    (warning,) = json.loads(done.stdout.splitlines()[-1])["warnings"]
    assert "no list for split val (val.csv, looked for in" in warning and warning.endswith("https://example.org")
    assert done.exit_code == 0 and f"warning: {warning}\n" in done.stderr


def test_a_variant_or_fold_that_a_layout_has_not_is_refused(tmp_path: Path) -> None:
    root = tree(tmp_path, "a.mp4")
    message = refusal(dataset(root, "folder", fold=2), UsageError)
    assert "datasets.mine.fold: only layouts ucf101, hmdb51 have it" in message
    assert "datasets.mine.variant: only layouts davis" in refusal(dataset(root, "kinetics", variant="k400"), UsageError)
