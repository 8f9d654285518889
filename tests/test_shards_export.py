"""Exports, each read back by the real library: the same pieces, in the same order, with where they come from."""

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow.parquet as pq
import pytest
import warm
from click.testing import CliRunner
from clips import environment
from hypothesis import given, settings
from hypothesis import strategies as st
from rewrites import worlds
from token_world import Image, Video, moving_videos, still_images, write_tokens

from toto import Dataset
from toto.errors import UserError
from toto.shards.cli import cli
from toto.shards.export.arrays import NpyFile
from toto.shards.row import Row, Window, cut_window

GRID = (4, 3)
Piece = tuple[np.ndarray, dict[str, Any]]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of 2 views and 2 runs, in several shards and batches; images; labels that the rows have too."""
    train = [
        Video(v.key, v.codes, label=v.label, views=2, runs=(13, 7)) for v in moving_videos(7, frames=20, grid=GRID)
    ]
    val = [Video(v.key, v.codes, "val", v.label, views=2) for v in moving_videos(2, "val", frames=9, grid=GRID)]
    images = [Image(i.key, i.codes, label=i.label, views=2) for i in still_images(3, grid=GRID)]
    root = tmp_path_factory.mktemp("export") / "shards"
    return write_tokens(root, [*train, *val], images, unit_sources=3, batch_bytes=400)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("LITDATA_CACHE_DIR", str(tmp_path / "lit"))


def export(shards: Path, out: Path, words: str) -> dict[str, Any]:
    done = CliRunner().invoke(cli, ["export", str(shards), "--out", str(out), "--json", *words.split()])
    if isinstance(done.exception, UserError):
        raise done.exception
    assert done.exception is None, done.output
    return json.loads(done.stdout.splitlines()[-1])


def pieces_of(shards: Path, split: str, how: str) -> list[Window]:
    """What an export must hold, from the rows themselves."""
    rows = list(Dataset(shards, split=split).rows())
    if "--rows" in how:
        return [cut_window(row, 0, row.n_frames) for row in rows]
    return [window for row in rows for window in cuts(row, 4, 2, 1)]


def from_webdataset(out: Path, split: str, name: str) -> Iterator[Piece]:
    import webdataset

    tars = sorted(str(path) for path in out.glob(f"{split}-*.tar"))
    for piece in webdataset.WebDataset(tars, shardshuffle=False, empty_check=False).decode():
        yield piece[f"{name}.npy"], piece["json"]


def from_hf(out: Path, split: str, name: str) -> Iterator[Piece]:
    from datasets import load_dataset

    loaded = load_dataset(str(out), split=split, cache_dir=str(out.parent / "hf-cache"))
    arrays = loaded.with_format("numpy", columns=[name], dtype=np.uint16)
    for piece, plain in zip(arrays, loaded, strict=True):
        yield piece[name], {key: value for key, value in plain.items() if key != name}


def from_litdata(out: Path, split: str, name: str) -> Iterator[Piece]:
    from litdata import StreamingDataset

    with chdir(out):  # a string that names a file here stays a string
        for piece in StreamingDataset(str(out / split), shuffle=False):
            facts = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in piece.items() if k != name}
            facts["label"] = None if facts["label"] == -1 else facts["label"]
            yield piece[name], {**facts, "pts_us": facts["pts_us"] or None}


def from_npy(out: Path, split: str, name: str) -> Iterator[Piece]:
    yield from from_flat(np.load(out / f"{split}.npy", mmap_mode="r"), out, split, name)


def from_bin(out: Path, split: str, name: str) -> Iterator[Piece]:
    meta = json.loads((out / "meta.json").read_text())
    yield from from_flat(np.memmap(out / f"{split}.bin", dtype=meta["dtype"], mode="r"), out, split, name)


def from_flat(array: np.ndarray, out: Path, split: str, name: str) -> Iterator[Piece]:
    for i, facts in enumerate(pq.read_table(out / f"{split}.pieces.parquet").to_pylist()):
        piece = array.reshape(-1)[facts.pop("begin") : facts.pop("end")]
        if array.ndim > 1:
            assert np.array_equal(array[i].reshape(-1), piece)
        yield piece.reshape(-1, *facts["grid"]) if name == "codes" else piece, facts


READERS: dict[str, Callable[[Path, str, str], Iterator[Piece]]] = {
    "webdataset": from_webdataset,
    "hf": from_hf,
    "litdata": from_litdata,
    "npy": from_npy,
    "bin": from_bin,
}


@pytest.mark.parametrize("how", ["--frames 4 --stride 2 --hop 1", "--rows --codes"])
@pytest.mark.parametrize("target", READERS)
def test_the_real_library_reads_back_every_piece_and_its_source(
    shards: Path, tmp_path: Path, target: str, how: str
) -> None:
    small = "" if target in ("npy", "bin") else " --shard-bytes 3000"
    said = export(shards, tmp_path / "out", f"--to {target} {how}{small}")
    name = "codes" if "--codes" in how else "ids"
    for split in ("train", "val"):
        expected = pieces_of(shards, split, how)
        found = list(READERS[target](tmp_path / "out", split, name))
        assert said["pieces"][split] == len(found) == len(expected) > 0
        for (array, facts), window in zip(found, expected, strict=True):
            check_piece(array, facts, window, name)
    if small:
        assert said["files"] > 4  # two and more of the larger split
    assert said["images_left_out"] == (0 if "--rows" in how else 6)


@pytest.mark.parametrize(("target", "examples"), [("webdataset", 3), ("hf", 2), ("litdata", 3), ("npy", 6), ("bin", 6)])
def test_whatever_is_exported_reads_back(target: str, examples: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    @settings(max_examples=examples)
    @given(worlds(), st.none() | st.tuples(*[st.integers(1, 3)] * 3), st.booleans(), st.integers(1, 400))
    def reads_back(made: dict[str, Any], cut: tuple[int, int, int] | None, codes: bool, size: int) -> None:
        folder = tmp_path_factory.mktemp("any")
        root = write_tokens(folder / "in", **made)
        frames, stride, hop = cut or (0, 0, 0)
        words = f"--frames {frames} --stride {stride} --hop {hop}" if cut else "--rows"
        words += (" --codes" if codes else "") + ("" if target in ("npy", "bin") else f" --shard-bytes {size}")
        expected = {
            split: [
                window
                for row in Dataset(root, split=split).rows()
                for window in ([cut_window(row, 0, row.n_frames)] if cut is None else cuts(row, frames, stride, hop))
            ]
            for split in Dataset(root).splits
        }
        if not any(expected.values()):
            with pytest.raises(UserError, match="has no "):
                export(root, folder / "out", f"--to {target} {words}")
            return
        said = export(root, folder / "out", f"--to {target} {words}")
        assert said["pieces"] == {split: len(windows) for split, windows in expected.items()}
        name = "codes" if codes else "ids"
        for split, windows in expected.items():
            found = list(READERS[target](folder / "out", split, name)) if windows else []
            for (array, facts), window in zip(found, windows, strict=True):
                check_piece(array, facts, window, name)

    reads_back()


def cuts(row: Row, frames: int, stride: int, hop: int) -> list[Window]:
    """The windows of a row; images have none."""
    if row.kind != 1:
        return []
    last = row.n_frames - (frames - 1) * stride
    return [cut_window(row, start, frames, stride) for start in range(0, last, hop * stride)]


def check_piece(array: np.ndarray, facts: dict[str, Any], window: Window, name: str) -> None:
    row = window.row
    expected = window.tokens if name == "ids" else row.codes[window.positions]
    assert array.shape == expected.shape and np.array_equal(array, expected)
    assert array.dtype == np.uint16
    times = window.pts_us
    assert facts == {
        "source": row.source,
        "kind": "video" if row.kind == 1 else "image",
        "run": row.run,
        "view": row.view,
        "label": row.label,
        "frame_index": window.frame_index.tolist(),
        "pts_us": None if times is None else times.tolist(),
        "crop": list(row.crop),
        "grid": [row.grid_h, row.grid_w],
        "flags": 0,
        "row_id": row.row_id.hex(),
    }


@pytest.mark.parametrize("how", ["--frames 4 --hop 2", "--rows"])
def test_a_seed_shuffles_all_pieces_and_decides_the_order(shards: Path, tmp_path: Path, how: str) -> None:
    arrays = {}
    for name, order in (("stored", "stored"), ("a", "1"), ("b", "1"), ("c", "2")):
        export(shards, tmp_path / name, f"--to npy {how} --order {order}")
        arrays[name] = [(p.tobytes(), f["row_id"]) for p, f in from_npy(tmp_path / name, "train", "ids")]
    assert arrays["a"] == arrays["b"]
    assert sorted(arrays["a"]) == sorted(arrays["c"]) == sorted(arrays["stored"])
    assert arrays["stored"] != arrays["a"] != arrays["c"]


@pytest.mark.parametrize("target", READERS)
def test_what_the_readme_says_reads_it(shards: Path, tmp_path: Path, target: str) -> None:
    out = tmp_path / "out"
    export(shards, out, f"--to {target} --frames 4 --split val")
    code = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)[0]
    code = code.replace("path/of/this/folder", str(out)).replace(
        "split='val'", f"split='val', cache_dir={str(tmp_path)!r}"
    )
    with chdir(out):
        exec(compile(code, "README.md", "exec"), {})


def test_the_label_is_that_of_the_labels_table(shards: Path, tmp_path: Path) -> None:
    with patch.object(Dataset, "labels", lambda self, table: {"train/0001.mp4": 77}):
        export(shards, tmp_path / "out", "--to npy --rows")
    for _, facts in from_npy(tmp_path / "out", "train", "ids"):
        assert (facts["label"] == 77) == (facts["source"] == "train/0001.mp4")


@pytest.mark.parametrize("target", ["litdata", "bin"])
def test_ids_beyond_16_bits_take_32(tmp_path: Path, target: str) -> None:
    codes = np.arange(69_000, 69_024).reshape(2, 4, 3)
    root = write_tokens(tmp_path / "shards", [Video("a.mp4", codes)], vocab_size=70_000)
    assert export(root, tmp_path / "out", f"--to {target} --rows --codes")["dtype"] == "uint32"
    [(array, _)] = READERS[target](tmp_path / "out", "train", "codes")
    assert array.dtype == np.uint32 and np.array_equal(array, codes)


@pytest.mark.parametrize("target", ["webdataset", "litdata"])
def test_an_export_is_the_same_bytes_each_time(shards: Path, tmp_path: Path, target: str) -> None:
    for name in ("a", "b"):
        export(shards, tmp_path / name, f"--to {target} --frames 4 --order 7")
    found = [[p for p in sorted((tmp_path / name).rglob("*")) if p.is_file()] for name in ("a", "b")]
    files = [{path.name: path.read_bytes() for path in paths} for paths in found]
    assert files[0] == files[1]


def test_what_is_there_is_never_overwritten_without_being_asked(shards: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    first = export(shards, out, "--to npy --frames 4")
    with pytest.raises(UserError, match="holds an export already; .* --force"):
        export(shards, out, "--to bin --frames 4")
    assert {path.name for path in out.iterdir()} >= {"train.npy", "meta.json"} and first["files"] == 6
    export(shards, out, "--to bin --frames 4 --force")
    assert not (out / "train.npy").exists() and (out / "train.bin").exists()
    (out / "model.npy").write_bytes(b"trained on it")
    with pytest.raises(UserError, match=r"files that are not of the export \(model.npy\); choose another --out"):
        export(shards, out, "--to npy --frames 4 --force")
    assert (out / "model.npy").exists() and (out / "train.bin").exists()
    other.mkdir()
    (other / "meta.json").write_text("{}")
    with pytest.raises(UserError, match="not an export"):
        export(shards, other, "--to npy --frames 4 --force")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--to npy --frames 99", r"no run of 99 frames in splits train, val \(the longest has 13\); give --frames 13"),
        ("--to npy --frames 99 --split val", "no run of 99 frames in split val "),
        ("--to npy --rows --frames 4", "--rows takes whole rows"),
        ("--to npy --split test", "no split 'test'; it has: train, val"),
        ("--to npy --order random", "--order random: `stored`, or a whole number"),
        ("--to npy --rows --shard-bytes 9", "one file a split"),
    ],
)
def test_what_does_not_go_is_refused_and_leaves_nothing(shards: Path, tmp_path: Path, words: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        export(shards, tmp_path / "out", words)
    assert list(tmp_path.iterdir()) == []


def test_pieces_of_several_grids_are_refused_where_one_shape_is_needed(tmp_path: Path) -> None:
    codes = np.zeros((4, 2, 3), int)
    videos = [Video("a.mp4", codes), Video("b.mp4", codes.transpose(0, 2, 1)), Video("c.mp4", codes[:, :1])]
    root = write_tokens(tmp_path / "shards", videos)
    with pytest.raises(UserError, match="c.mp4: a piece of shape .* its grid differs"):
        export(root, tmp_path / "out", "--to npy --frames 4")  # a and b have as many ids
    with pytest.raises(UserError, match="b.mp4: a piece of shape .* its grid differs"):
        export(root, tmp_path / "out", "--to hf --rows --codes")
    assert export(root, tmp_path / "out", "--to webdataset --frames 4 --codes")["pieces"] == {"train": 3}


def endless() -> None:
    """The third piece is never written."""
    write, left = NpyFile.write, iter(range(2))

    def waiting(*piece: Any) -> None:
        while next(left, None) is None:
            time.sleep(0.05)  # a signal that comes just before a sleep does not wake it
        write(*piece)

    NpyFile.write = waiting  # type: ignore[method-assign]


def test_a_killed_export_leaves_no_folder_and_the_next_one_clears_up(shards: Path, tmp_path: Path) -> None:
    place, said = tmp_path / "place", (tmp_path / "stdout", tmp_path / "stderr")
    place.mkdir()
    words = ["export", str(shards), "--to", "npy", "--rows", "--out", str(place / "out")]
    for sign, code in ((signal.SIGKILL, -9), (signal.SIGINT, 130)):
        before = {*place.iterdir()}
        process = warm.start("shards", words, said, environment(), first=endless)
        while not any((new / "train.pieces.parquet").exists() for new in {*place.iterdir()} - before):
            assert process.is_alive(), said[1].read_text()
            time.sleep(0.02)
        os.kill(process.pid or 0, sign)
        process.join()
        assert process.exitcode == code and not (place / "out").exists()
        assert len(list(place.iterdir())) == (1 if sign == signal.SIGKILL else 0)
    export(shards, place / "out", "--to npy --rows")
    assert [path.name for path in place.iterdir()] == ["out"]
    (place / "out").rename(place / ".out.0123abcd.old")  # killed between taking the old one away and showing the new
    export(shards, place / "out", "--to npy --rows")
    assert [path.name for path in place.iterdir()] == ["out"]
