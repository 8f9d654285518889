"""import: codes that somebody else made read back as they are; what is bad or hostile is quarantined or refused."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from rewrites import QUIET, code_folder, in_child, killing_at, whole

from toto import Dataset, tokenizers
from toto.errors import UsageError, UserError
from toto.shards.cli import cli
from toto.shards.export.run import Export, export
from toto.shards.recipe import make_recipe
from toto.shards.rewrite.importing import import_tokens
from toto.shards.rewrite.npy import BadFile, read_npy
from toto.shards.stream import Stream
from toto.tokenize.tokenizers.dct import DCT

RNG = np.random.default_rng(0)


def imported(source: Path, out: Path, **more: Any) -> Dataset:
    """Imports and opens it; it is whole."""
    import_tokens(source, str(out), **{"tokenizer": "somebodys", "options": QUIET, **more})
    assert whole(out)
    return Dataset(out)


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "<i4", "<i8", ">i8", "<u4"])
def test_videos_of_any_whole_number_read_back(dtype: str, tmp_path: Path) -> None:
    codes = RNG.integers(0, 256, (5, 4, 6)).astype(dtype)
    arrays = {"a/grid.npy": codes, "a/flat.npy": codes.reshape(5, 24), "b/fortran.npy": np.asfortranarray(codes)}
    dataset = imported(code_folder(tmp_path / "in", arrays, fps=30, stride=4), tmp_path / "out")
    assert {row.source: row.codes.tolist() for row in dataset.rows()} == dict.fromkeys(sorted(arrays), codes.tolist())
    window = dataset.window(0, frames=2, stride=2)
    assert window.frame_index.tolist() == [0, 8] and np.abs(window.pts_us - [0, 266_667]).max() <= 1


@settings(max_examples=12)
@given(
    st.lists(st.integers(0, 7), min_size=1, max_size=5),
    st.tuples(st.integers(1, 3), st.integers(1, 4)),
    st.integers(1, 40),
    st.sampled_from(["u1", "<u2", ">u4", "<i8"]),
    st.booleans(),
    st.integers(1, 2_000),
)
def test_whatever_is_imported_reads_back_and_exports_what_was_imported(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: list[int],
    grid: tuple[int, int],
    vocab: int,
    dtype: str,
    flat: bool,
    size: int,
) -> None:
    tmp, rng = tmp_path_factory.mktemp("any"), np.random.default_rng(len(lengths) + vocab)
    codes = {f"{i % 2}/{i}.npy": rng.integers(0, vocab, (n, *grid)) for i, n in enumerate(lengths)}
    arrays = {name: (c.reshape(len(c), -1) if flat else c).astype(dtype) for name, c in codes.items()}
    source = code_folder(tmp / "in", arrays, vocab_size=vocab, grid=list(grid))
    import_tokens(source, str(tmp / "out"), "somebodys", shard_bytes=size, options=QUIET)
    dataset, used = Dataset(tmp / "out"), {name: c for name, c in codes.items() if len(c)}
    assert {row.source: row.codes.tolist() for row in dataset.rows()} == {n: c.tolist() for n, c in used.items()}
    assert dataset.quarantine()["reason"].to_pylist() == ["empty"] * (len(codes) - len(used)) and whole(tmp / "out")
    if used:
        export(str(tmp / "out"), Export("npy", None, codes=True), str(tmp / "npy"), False, lambda done, total: None)
        pieces = pq.read_table(tmp / "npy" / "train.pieces.parquet").to_pylist()
        numbers = np.load(tmp / "npy" / "train.npy")
        found = {piece["source"]: numbers[piece["begin"] : piece["end"]].tolist() for piece in pieces}
        assert found == {name: c.reshape(-1).tolist() for name, c in used.items()}


def test_images_with_views_and_labels_as_llamagen_writes_them(tmp_path: Path) -> None:
    codes = RNG.integers(0, 300, (6, 1, 2, 24))
    arrays = {f"imagenet256_codes/{i}.npy": codes[i] for i in range(6)}
    arrays |= {f"imagenet256_labels/{i}.npy": np.array([i % 2]) for i in range(6)}
    facts = {"kind": "image", "views": 2, "flips": True, "classes": ["tench", "goldfish"]}
    places = {"codes": "imagenet256_codes", "labels": "imagenet256_labels"}
    dataset = imported(code_folder(tmp_path / "in", arrays, **facts, **places), tmp_path / "out")
    assert [row.codes.reshape(-1).tolist() for row in dataset.rows()] == codes.reshape(12, 24).tolist()
    assert [(row.view, row.flags) for row in dataset.rows()] == [(0, 0), (1, 64)] * 6
    assert dataset.labels() == {f"{i}.npy": i % 2 for i in range(6)} and dataset.base_views == 1
    assert dataset.annotations("classes")["name"].to_pylist() == ["tench", "goldfish"]


def test_1x_segments_are_runs_that_no_window_crosses(tmp_path: Path) -> None:
    source = tmp_path / "train_v1.1"
    source.mkdir()
    codes = RNG.integers(0, 1 << 18, (100, 4, 4)).astype(np.uint32)
    codes.tofile(source / "video.bin")
    np.repeat(np.array([0, 1, 7, 0], np.int32), (30, 41, 19, 10)).tofile(source / "segment_ids.bin")
    told = {"token_dtype": "uint32", "s": 4, "num_images": 100, "hz": 30, "vocab_size": 1 << 18}
    (source / "metadata.json").write_text(json.dumps(told))
    dataset = imported(source, tmp_path / "out", tokenizer="magvit2", given={"patch": 16})
    rows = list(dataset.rows())
    assert [(row.source, row.n_frames) for row in rows] == [
        ("segment-000000", 30),
        ("segment-000001", 41),
        ("segment-000007", 19),
        ("segment-000000.2", 10),
    ]
    assert (np.concatenate([row.codes for row in rows]) == codes).all() and rows[0].tokens.dtype == np.uint32
    assert dataset.windows(16) == 1 + 2 + 1 and np.abs(rows[1].pts_us - np.arange(41) * 1e6 / 30).max() <= 1_000
    recipe = make_recipe([("1x", str(tmp_path / "out"), 1, "train")], frames=4, stride=1, seed=0, batch_sequences=2)
    assert Stream(recipe).sequence(0).tokens.max() < (1 << 18) + 4
    (source / "video.bin").write_bytes(codes.tobytes()[:-4])
    with pytest.raises(UserError, match="video.bin has 6,396 bytes instead of 6,400"):
        import_tokens(source, str(tmp_path / "cut"), "magvit2", given={"patch": 16}, options=QUIET)


def header(text: str, body: bytes = b"", version: bytes = b"\1\0") -> bytes:
    """An .npy file with this header."""
    padded = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY" + version + len(padded).to_bytes(2, "little") + padded + body


BAD = {
    "object.npy": ("wrong_dtype", None),
    "floats.npy": ("wrong_dtype", None),
    "high.npy": ("bad_codes", None),
    "negative.npy": ("bad_codes", None),
    "narrow.npy": ("wrong_shape", None),
    "nothing.npy": ("empty", b""),
    "text.npy": ("not_an_array", b"hello"),
    "zip.npy": ("not_an_array", b"PK\3\4" + bytes(60)),
    "huge.npy": ("not_an_array", header("{'descr': '<u2', 'fortran_order': False, 'shape': (1099511627776, 4, 6), }")),
    "minus.npy": ("not_an_array", header("{'descr': '<u2', 'fortran_order': False, 'shape': (-1, 4, 6), }")),
    "overflow.npy": (
        "not_an_array",
        header("{'descr': '<u2', 'fortran_order': False, 'shape': (" + "9" * 40 + ",), }"),
    ),
    "absurd.npy": (
        "empty",
        header("{'descr': '<u2', 'fortran_order': False, 'shape': (" + "9" * 18 + ", " + "9" * 18 + ", 0), }"),
    ),
    "scalar.npy": ("wrong_shape", header("{'descr': '<u2', 'fortran_order': False, 'shape': (), }", bytes(2))),
    "code.npy": ("not_an_array", header("__import__('os').system('touch pwned')")),
    "nested.npy": ("not_an_array", header("(" * 100)),
    "longer.npy": ("not_an_array", header("{'descr': '<u2', 'fortran_order': False, 'shape': (1, 4, 6), }", bytes(50))),
    "record.npy": (
        "not_an_array",
        header("{'descr': [('a', '<u2')], 'fortran_order': False, 'shape': (24,), }", bytes(48)),
    ),
}


def test_bad_and_hostile_files_are_quarantined_and_the_rest_is_imported(tmp_path: Path) -> None:
    good = np.zeros((2, 4, 6), np.int64)
    source = code_folder(tmp_path / "in", {"good.npy": good, "high.npy": good + 300, "negative.npy": good - 1})
    np.save(source / "object.npy", np.array([{}]), allow_pickle=True)
    np.save(source / "floats.npy", np.zeros((2, 4, 6)))
    np.save(source / "narrow.npy", np.zeros((2, 4, 5), int))
    for name, (_, data) in BAD.items():
        if data is not None:
            (source / name).write_bytes(data)
    os.mkfifo(source / "pipe.npy")
    np.save(tmp_path / "private.npy", good)
    (source / "out.npy").symlink_to(tmp_path / "private.npy")
    (source / "broken.npy").symlink_to("nowhere.npy")
    (source / "loop.npy").symlink_to("loop.npy")
    dataset = imported(source, tmp_path / "out")
    assert [row.source for row in dataset.rows()] == ["good.npy"]
    told = {line["key"]: line["reason"] for line in dataset.quarantine().to_pylist()}
    absent = dict.fromkeys(("pipe.npy", "out.npy", "broken.npy", "loop.npy"), "missing")
    assert told == {**{name: reason for name, (reason, _) in BAD.items()}, **absent}
    assert not Path("pwned").exists() and dataset.info["totals"]["quarantined"] == len(BAD) + len(absent)


def test_a_huge_header_is_not_read(tmp_path: Path) -> None:
    text = "{'descr': '<u2', 'fortran_order': False, 'shape': (1,), " + " " * 60_000 + "}"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text.encode() + bytes(2))
    with pytest.raises(BadFile, match="not_an_array"):
        read_npy(tmp_path / "a.npy", tmp_path)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"vocab_size": None}, "vocab_size = 'None' is not of its kind"),
        ({"patch": 0}, "patch = 0; 1 to 4096"),
        ({"grid": [4]}, "grid = .4."),
        ({"kind": "audio"}, "video or image"),
        ({"fps": -1}, "fps = -1"),
        ({"fps": 10**400}, "fps = 1000"),
        ({"fps": 1e-320}, "0.001 to 10,000"),
        ({"grid": [65_535, 2]}, "at most 65,536 codes"),
        ({"splits": {"a": "../.."}}, "no name of a split"),
        ({"codes": "../elsewhere"}, "leads out of the folder"),
        ({"labels": "/etc"}, "leads out of the folder"),
        ({"labels": {"a.npy": "cat"}}, "is not a class number"),
        ({"views": True}, "not of its kind"),
    ],
)
def test_wrong_metadata_is_refused_by_key(facts: dict[str, Any], said: str, tmp_path: Path) -> None:
    source = code_folder(tmp_path / "in", {"a.npy": np.zeros((1, 4, 6), int)}, **facts)
    with pytest.raises(UsageError, match=said):
        import_tokens(source, str(tmp_path / "out"), "somebodys", options=QUIET)
    assert not (tmp_path / "out").exists()


def test_all_that_is_missing_is_named_at_once(tmp_path: Path) -> None:
    source = code_folder(tmp_path / "in", {"a.npy": np.zeros((1, 4, 6), int)})
    (source / "metadata.json").unlink()
    for told, said in (
        ({}, "does not tell vocab_size and patch; complete it, or give --vocab-size and --patch$"),
        ({"vocab_size": 9}, "does not tell patch; complete it, or give --patch$"),
    ):
        with pytest.raises(UsageError, match=said):
            import_tokens(source, str(tmp_path / "out"), "somebodys", given=told, options=QUIET)


def test_killed_and_run_again_it_is_the_same(tmp_path: Path) -> None:
    arrays = {f"{i}.npy": RNG.integers(0, 300, (3, 4, 6)) for i in range(12)}
    source, out = code_folder(tmp_path / "in", arrays), tmp_path / "out"
    expected = imported(source, tmp_path / "alone", shard_bytes=400).dataset_id
    in_child(lambda: import_tokens(source, str(out), "somebodys", shard_bytes=400, options=killing_at(7))).join()
    assert imported(source, out, shard_bytes=400).dataset_id == expected


def test_pictures_need_the_tokenizer_and_its_whole_object_brings_it(tmp_path: Path) -> None:
    source = code_folder(tmp_path / "in", {"a.npy": np.zeros((2, 4, 6), int)}, vocab_size=64)
    out, picture = str(tmp_path / "out"), str(tmp_path / "view.png")
    with pytest.raises(UsageError, match="toto has a tokenizer of this name"):
        import_tokens(source, out, "dct", options=QUIET)
    done = CliRunner().invoke(cli, ["import", str(source), "--out", out, "--tokenizer", "somebodys", "--json"])
    assert done.exit_code == 0 and json.loads(done.output.splitlines()[-1])["rows"] == 1
    with pytest.raises(UsageError, match="unknown tokenizer 'somebodys'.*\n?.*entry point toto.tokenizers"):
        tokenizers.load(Dataset(out).tokenizer)
    assert "entry point toto.tokenizers" in str(CliRunner().invoke(cli, ["view", out, "--out", picture]).exception)
    (tmp_path / "dct.json").write_text(json.dumps({"tokenizer": DCT(64).spec}))
    dataset = imported(source, tmp_path / "known", tokenizer=str(tmp_path / "dct.json"))
    assert dataset.tokenizer["id"] == DCT(64).spec["id"]
    assert CliRunner().invoke(cli, ["view", str(tmp_path / "known"), "--out", picture]).exit_code == 0


def test_other_files_or_facts_on_the_same_target_are_refused(tmp_path: Path) -> None:
    one = code_folder(tmp_path / "one", {"a.npy": np.zeros((2, 4, 6), int)})
    two = code_folder(tmp_path / "two", {"a.npy": np.ones((2, 4, 6), int)})
    out = tmp_path / "out"
    made = imported(one, out).dataset_id
    assert imported(one, out).dataset_id == made
    for source, facts in ((two, {}), (one, {"grid": [6, 4]})):
        with pytest.raises(UsageError, match="made of other files, or of other facts|is made with"):
            import_tokens(source, str(out), "somebodys", given=facts, options=QUIET)
    np.save(one / "a.npy", np.full((2, 4, 6), 2))
    with pytest.raises(UsageError, match="made of other files"):
        import_tokens(one, str(out), "somebodys", options=QUIET)


def test_what_was_told_in_vain_is_said_and_an_import_of_nothing_fails(tmp_path: Path) -> None:
    arrays = {"0.npy": np.full((2, 4, 6), 300)}
    source = code_folder(tmp_path / "in", arrays, labels={"0": 3}, label="x", name="a\n# <b>")
    done = CliRunner().invoke(
        cli, ["import", str(source), "--out", str(tmp_path / "out"), "--tokenizer", "t"], standalone_mode=False
    )
    assert done.return_value == 1 and "bad_codes 1" in done.output
    assert (
        "labels of no file that is there: 1 (first: 0)" in done.output
        and "keys that mean nothing: label" in done.output
    )
    assert "\n# a # &lt;b>: token shards\n" in (tmp_path / "out" / "README.md").read_text()
