"""`toto-tokenize run NAME` for every dataset of pipelines.yaml, with its own settings, on a tiny one in its layout."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
import test_tokenize_listed_layouts as layouts
from listings import tree
from test_tokenize_davis import lists, mask_of, sequence
from test_tokenize_ego4d_sta import annotations, item
from test_tokenize_imagenet_tars import archives, place, train_tars
from test_tokenize_listed_layouts import put
from test_tokenize_plan import DATASETS, variable_of

from toto import Dataset
from toto.shards.store import open_store
from toto.shards.verify import verify
from toto.tokenize.cli import cli
from toto.tokenize.estimate import Estimator

pytestmark = pytest.mark.usefixtures("cache")


def folder(root: Path) -> None:
    put(root, "holiday/a.mov")


def webdataset(root: Path) -> None:
    put(root, "a.mov")
    with tarfile.open(root / "00000.tar", "w") as tar:
        tar.add(root / "a.mov", "000000000.mp4")
        for suffix, data in ((".txt", b"a cat"), (".json", b"{}")):
            info = tarfile.TarInfo(f"000000000{suffix}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def davis(root: Path) -> None:
    sequence(root, "bear", [mask_of([1]), mask_of([1, 2])])
    sequence(root, "cows", [mask_of([1]), None])
    lists(root, train="bear\n", val="cows\n")


def ego4d_sta(root: Path) -> None:
    put(root, "full_scale/a.mp4", "full_scale/b.mp4")
    for split, video in (("train", "a"), ("val", "b")):
        said = json.dumps(annotations(item(video, 2), split=split))
        tree(root / "annotations", **{f"fho_sta_{split}.json": said})


Made = tuple[Callable[[Path], object], dict[str, int]]  # what writes a root; the rows of each split
KINETICS: Made = (layouts.kinetics, {"train": 1, "val": 1})
WORLDS: dict[str, Made] = {
    "folder": (folder, {"all": 1}),
    "webdataset": (webdataset, {"all": 1}),
    "k400": (layouts.kinetics, {"train": 3, "val": 3}),  # three crops
    "k600": KINETICS,
    "k700": (layouts.kinetics, {"train": 3, "val": 3}),
    "howto100m": (layouts.howto100m, {"train": 2}),
    "ego4d": (layouts.ego4d, {"train": 2}),
    "imagenet21k": (lambda root: place(root, train_tars()), {"train": 56 * 4}),
    "imagenet1k": (lambda root: place(root, archives()), {"train": 40, "val": 40, "test": 20}),
    "ucf101": (layouts.ucf101, {"train": 1, "test": 1}),
    "hmdb51": (layouts.hmdb51, {"train": 1, "test": 1}),
    "cater": (layouts.cater, {"train": 1, "val": 1}),
    "davis": (davis, {"train": 1, "val": 1}),
    "ego4d-sta": (ego4d_sta, {"train": 2, "val": 2}),  # each twice, once mirrored
}


def test_every_entry_has_a_world_here() -> None:
    assert set(WORLDS) == set(DATASETS)


@pytest.mark.parametrize("name", WORLDS)
def test_a_dataset_runs_by_its_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_it, wanted = WORLDS[name]
    monkeypatch.setattr(layouts, "FRAMES", 64)  # at stride 4 as many as min_frames asks for
    write_it(tree(tmp_path / "root"))
    monkeypatch.setenv(variable_of(name), str(tmp_path / "root"))
    words = ["run", name, "--out", str(tmp_path / "out"), "--ray-address", "local", "--quiet", "--tokenizer", "none"]
    small = ["--set", f"datasets.{name}.resolution=16", "--set", f"datasets.{name}.keep_pixels=16"]
    with patch.object(Estimator, "kept_frames", lambda self, sources: [1] * len(sources)):
        assert cli.main([*words, *small], standalone_mode=False) == 0
    assert verify(open_store(tmp_path / "out"), deep=True).ok
    made = Dataset(tmp_path / "out")
    assert {split: len(Dataset(tmp_path / "out", split=split)) for split in made.splits} == wanted
