"""`diff`: what two datasets share is found wherever it stands, and nothing is found where nothing is shared."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from token_world import Image, Video, write_tokens
from token_world import _rows as source_rows

from toto import Dataset
from toto.errors import UsageError, UserError
from toto.shards.batch import Batch
from toto.shards.cli import cli
from toto.shards.schema import SOURCES_SCHEMA, row_schema, rows_to_batch
from toto.shards.statistics import shared_runs
from toto.shards.statistics.diff import Asked, Side, diff
from toto.shards.statistics.hashed_records import HashedRecords
from toto.shards.statistics.shared_runs import RunFinder, Shared
from toto.shards.statistics.shingles import Search, shingles
from toto.shards.statistics.sources_compared import compare_sources

VOCAB = 60
K = 4


def noise(rng: np.random.Generator, frames: int, grid: tuple[int, int] = (3, 3)) -> np.ndarray:
    """Frames that all differ."""
    return rng.integers(0, VOCAB, (frames, *grid))


def batch_of(codes: list[np.ndarray], letter: str, images: bool = False) -> Batch:
    """A record batch with a row for each, of sources a0, a1 …"""
    sources = [(Image if images else Video)(f"{letter}{i}", one) for i, one in enumerate(codes)]
    rows = [row for source in sources for row in source_rows(source, np.dtype(np.uint16), 4)]
    return Batch(rows_to_batch(rows, row_schema(np.dtype(np.uint16), {})))


def shared(a: Batch, b: Batch, folder: Path, search: Search = Search(K), most: int = 1 << 20) -> Shared:  # noqa: B008
    """The runs that two batches share."""
    finder = RunFinder(search.frames, 1 << 10, folder, most)
    for side, batch in enumerate((a, b)):
        finder.add(shingles(batch, VOCAB, 0, side, search)[0])
    return finder.find()


def places(found: Shared) -> set[tuple[int, ...]]:
    """(row a, first, last, row b, first, last, moving frames) of each shared run."""
    names = ("row_a", "first_a", "last_a", "row_b", "first_b", "last_b", "frames")
    return {tuple(int(run[name]) for name in names) for run in found.runs}


@given(st.integers(K, 20), st.integers(0, 12), st.integers(0, 12), st.integers(0, 9), st.integers(0, 99), st.booleans())
@settings(max_examples=25)
def test_a_planted_run_is_found_where_it_stands_and_as_long_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, length: int, at_a: int, at_b: int, rest: int, seed: int, on_disk: bool
) -> None:
    rng, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("planted")
    a, b = [noise(rng, at_a + length + rest), noise(rng, 9)], [noise(rng, 12), noise(rng, at_b + length + 2)]
    b[1][at_b : at_b + length] = a[0][at_a : at_a + length]
    found = shared(batch_of(a, "a"), batch_of(b, "b"), folder, most=16 if on_disk else 1 << 20)
    assert places(found) == {(0, at_a, at_a + length - 1, 1, at_b, at_b + length - 1, length)}
    assert found.frames == (length, length) and [len(side) for side in found.sources] == [1, 1]


@given(st.lists(st.integers(1, 40), max_size=5), st.lists(st.integers(1, 40), max_size=5), st.integers(0, 99))
@settings(max_examples=15)
def test_nothing_is_found_in_independent_noise_stills_and_blanks(
    tmp_path_factory: pytest.TempPathFactory, lengths_a: list[int], lengths_b: list[int], seed: int
) -> None:
    rng, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("noise")
    still, blank = noise(rng, 1).repeat(30, axis=0), np.ones((30, 3, 3), int) * rng.integers(0, VOCAB, (30, 1, 1))
    loop = np.tile(noise(rng, K - 1), (6, 1, 1))  # too few different frames
    batches = [
        batch_of([*(noise(rng, n) for n in lengths), still, blank, loop], letter)
        for letter, lengths in (("a", lengths_a), ("b", lengths_b))
    ]
    found = shared(*batches, folder)
    assert not len(found.runs) and found.frames == (0, 0) and not len(found.sources[0])


def test_frames_that_repeat_or_are_blank_in_between_are_passed_over(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    moving, blank = noise(rng, 6), np.full((1, 3, 3), 7)
    a = np.concatenate([noise(rng, 3), moving[:2], moving[1:2], moving[2:], noise(rng, 2)])
    b = np.concatenate([moving[:4], blank, blank, moving[4:].repeat(2, axis=0)])
    found = shared(batch_of([a], "a"), batch_of([b], "b"), tmp_path)
    assert places(found) == {(0, 3, 9, 0, 0, 8, 6)}


def brute(a: list[np.ndarray], b: list[np.ndarray]) -> set[tuple[int, ...]]:
    """Every longest run of equal frames with at least K frames, by comparing frame with frame."""
    found = set()
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            same = (x[:, None] == y[None]).all(axis=(2, 3))
            for p, q in zip(*np.nonzero(same), strict=True):
                if p and q and same[p - 1, q - 1]:
                    continue
                n = 1
                while p + n < len(x) and q + n < len(y) and same[p + n, q + n]:
                    n += 1
                if n >= K:
                    found.add((i, int(p), int(p + n - 1), j, int(q), int(q + n - 1), n))
    return found


@given(st.integers(0, 10_000))
@settings(max_examples=8)
def test_of_many_pieces_copied_to_many_places_each_is_found(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    rng, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("pieces")
    pool = noise(rng, 400)  # every frame of both sides comes from here, once a row
    a, b = ([np.empty((0, 3, 3), int)] * 3 for _ in "ab")
    for side in (a, b):
        for i in range(3):
            starts = rng.choice(40, 5, replace=False) * 10
            side[i] = np.concatenate([pool[s + rng.integers(0, 4) : s + 10 - rng.integers(0, 4)] for s in starts])
    found = shared(batch_of(a, "a"), batch_of(b, "b"), folder, most=7)
    assert places(found) == brute(a, b)
    covered = [
        {(run[at], frame) for run in brute(a, b) for frame in range(run[at + 1], run[at + 2] + 1)} for at in (0, 3)
    ]
    assert found.frames == tuple(map(len, covered))


def test_images_are_found_among_images_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures, video = noise(rng, 5), noise(rng, 6)
    a = batch_of([*pictures, video[0]], "a", images=True)
    b = batch_of([noise(rng, 1)[0], pictures[3], np.full((3, 3), 1)], "b", images=True)
    assert places(shared(a, b, tmp_path)) == {(3, 0, 0, 1, 0, 0, 1)}
    assert shared(a, b, tmp_path).frames == (1, 1)
    assert not len(shared(a, batch_of([video], "c"), tmp_path, Search(1)).runs)


def test_what_stands_in_too_many_places_is_counted_and_the_rest_of_its_run_is_still_found(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    intro, rest = noise(rng, K), noise(rng, 10)
    a, b = ([np.concatenate([intro, noise(rng, 8)]) for _ in range(5)] for _ in "ab")
    a[4], b[2] = np.concatenate([intro, rest]), np.concatenate([intro, rest])
    with patch.object(shared_runs, "MOST_PAIRS", 20):
        found = shared(batch_of(a, "a"), batch_of(b, "b"), tmp_path)
    assert found.common == 1 and [len(side) for side in found.sources] == [5, 5]
    assert {(run[0], run[3]) for run in places(found)} == {(4, 2)}


def test_a_run_whose_end_stands_in_too_many_places_does_not_reach_into_the_next(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first, intro, second = noise(rng, 5), noise(rng, K), noise(rng, 6)
    a, b = ([np.concatenate([intro, noise(rng, 8)]) for _ in range(5)] for _ in "ab")
    a[0], b[0] = (np.concatenate([first, intro, noise(rng, 2), second]) for _ in "ab")
    with patch.object(shared_runs, "MOST_PAIRS", 20):
        found = shared(batch_of(a, "a"), batch_of(b, "b"), tmp_path)
    assert places(found) == {(0, 0, K - 1, 0, 0, K - 1, K), (0, 11, 16, 0, 11, 16, 6)}


def test_looking_at_one_place_in_m_finds_about_the_share_it_states(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    search = Search(K, 8)
    a, b = [noise(rng, 16) for _ in range(200)], [noise(rng, 20) for _ in range(200)]
    for one, other in zip(a, b, strict=True):
        other[5:15] = one[3:13]
    for _ in range(20):  # six frames in the middle differ
        a.append(noise(rng, 40))
        b.append(np.concatenate([a[-1][:17], noise(rng, 6), a[-1][23:]]))
    found = shared(batch_of(a, "a"), batch_of(b, "b"), tmp_path, search)
    share = len(np.unique(found.runs["row_a"][found.runs["row_a"] < 200])) / 200
    assert search.recall(10) == pytest.approx(1 - (7 / 8) ** 7) and abs(share - search.recall(10)) < 0.12
    for i, first_a, last_a, j, first_b, last_b, _ in places(found):
        assert (a[i][first_a : last_a + 1] == b[j][first_b : last_b + 1]).all()


@given(st.lists(st.lists(st.integers(0, 9), max_size=9), max_size=9), st.integers(1, 200), st.integers(1, 20))
@settings(max_examples=25)
def test_records_come_back_once_each_with_those_of_their_hash(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int]], expected: int, most: int
) -> None:
    dtype = np.dtype([("hash", "<u8"), ("number", "<u4")])
    store = HashedRecords(dtype, expected, most, tmp_path_factory.mktemp("records"))
    hashes = [value * 0x1C71C71C71C71C71 % (1 << 64) for batch in batches for value in batch]
    records = np.array(list(zip(hashes, range(len(hashes)), strict=True)), dtype)
    for part in np.split(records, np.cumsum([len(batch) for batch in batches])):
        store.add(part)
    parts = list(store.parts())
    assert sorted(tuple(record) for part in parts for record in part.tolist()) == sorted(map(tuple, records.tolist()))
    seen = [set(part["hash"].tolist()) for part in parts]
    assert sum(map(len, seen)) == len(set(hashes))
    for part in parts:
        assert (np.diff(part["hash"].astype(object)) >= 0).all()


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`a`; `b`: one source changed, one gone, one new, one copied under another name; `c`: other settings."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("sets")
    codes = [noise(rng, 20) for _ in range(8)]
    a = [Video(f"{i}.mp4", one, "val" if i > 5 else "train") for i, one in enumerate(codes)]
    changed, copied = codes[1].copy(), noise(rng, 30)
    changed[19, 0, 0] += 1
    copied[6:26] = codes[4]
    b = [a[0], replace(a[1], codes=changed), *a[3:], Video("new.mp4", noise(rng, 20)), Video("copy.mp4", copied)]
    leak = [replace(one, split="val") if one.key == "copy.mp4" else one for one in [*b, Video("2.mp4", codes[2])]]
    return {
        "a": write_tokens(folder / "a", a, vocab_size=VOCAB, unit_sources=2),
        "b": write_tokens(folder / "b", b, vocab_size=VOCAB, unit_sources=3),
        "c": write_tokens(folder / "c", a, vocab_size=VOCAB, stride=8, crop="random"),
        "leak": write_tokens(folder / "leak", leak, vocab_size=VOCAB, unit_sources=3),
    }


def compare(sets: dict[str, Path], a: str, b: str, **asked: Any) -> dict[str, Any]:
    return diff(Asked(Side(sets[a]), Side(sets[b]), **{"search": Search(K), **asked}))


def test_sources_rows_and_shared_runs_of_two_versions(sets: dict[str, Path]) -> None:
    value = compare(sets, "a", "b")
    assert not value["differences"] and not value["identical"] and value["shared"]
    assert [value["sources"][name] for name in ("both", "only_a", "only_b")] == [7, 1, 2]
    assert value["sources"]["examples"]["only_a"] == ["2.mp4"]
    assert value["rows"] == {"equal": 6, "different": 1, "only_a": 1, "only_b": 2}
    runs = value["runs"]
    assert (runs["runs"], runs["source_pairs"], runs["runs_of_one_key"]) == (1, 1, 7)
    (worst,) = runs["worst"]
    assert (worst["frames"], worst["a"]["source"], worst["b"]["source"]) == (20, "4.mp4", "copy.mp4")
    assert worst["b"]["frame_index"] == [24, 100] and worst["b"]["seconds"] == [0.96, 4.0]  # every 4th, 25 a second


def test_processes_and_memory_change_nothing(sets: dict[str, Path]) -> None:
    with (
        patch("toto.shards.statistics.shared_runs.MOST_RECORDS", 8),
        patch("toto.shards.statistics.rows_compared.MOST_RECORDS", 2),
    ):
        tight = compare(sets, "a", "b", workers=2)
    assert tight == compare(sets, "a", "b")


def test_shards_that_both_hold_are_not_read_for_their_rows(sets: dict[str, Path], tmp_path: Path) -> None:
    other = write_tokens(tmp_path / "other", [Video("z.mp4", np.zeros((3, 3, 3), int))], vocab_size=VOCAB)
    with patch("toto.shards.statistics.diff.row_records") as read:
        value = diff(Asked(Side(sets["a"]), Side(write_again(sets["a"], tmp_path)), search=None))
    assert not read.called and value["identical"] and value["rows"]["equal"] == len(Dataset(sets["a"]))
    assert diff(Asked(Side(sets["a"]), Side(other)))["rows"] == {"equal": 0, "different": 0, "only_a": 8, "only_b": 1}


def write_again(root: Path, folder: Path) -> Path:
    """The same dataset somewhere else."""
    videos = [Video(row.source, row.codes, row.split) for row in Dataset(root).rows()]
    videos.sort(key=lambda video: video.key)
    return write_tokens(folder / "again", videos, vocab_size=VOCAB, unit_sources=2)


def test_settings_and_tokenizers_are_told_in_lines_and_codes_of_two_tokenizers_are_not_compared(
    sets: dict[str, Path], tmp_path: Path
) -> None:
    lines = {line["key"]: (line["a"], line["b"]) for line in compare(sets, "a", "c")["differences"]}
    assert lines == {"settings.crop": ("center", "random"), "settings.stride": (4, 8)}
    other = write_tokens(tmp_path / "other", [Video("z.mp4", np.zeros((3, 3, 3), int))], vocab_size=9)
    done = CliRunner().invoke(cli, ["diff", str(sets["a"]), str(other)])
    assert "tokenizer.vocab_size: 60 in a, 9 in b" in done.output and "other tokenizers" in done.output


def test_files_with_other_names_are_recognised_where_nothing_else_is_like_them(tmp_path: Path) -> None:
    def results(*sources: tuple[str, int, float]) -> pa.Table:
        fixed = {"split": "train", "attempt": 0, "status": "ok", "flags": 0, "errors": 0}
        counts = {"frames_decoded": 9, "frames_kept": 9, "rows": 1, "tokens": 9, "run_lengths": [9]}
        kinds = {True: "video", False: "image"}
        lines = [
            {**fixed, **counts, "key": k, "kind": kinds[s > 0], "size": size, "duration_s": s} for k, size, s in sources
        ]
        return pa.Table.from_pylist(lines, SOURCES_SCHEMA)

    a = results(("x", 5, 1.0), ("y", 6, 1.0), ("both", 7, 1.0), ("twice", 8, 1.0), ("unknown", -1, 1.0), ("i", 5, 0))
    b = results(
        ("other", 5, 1.0), ("y2", 6, 1.5), ("both", 9, 1.0), ("t1", 8, 1.0), ("t2", 8, 1.0), ("u", -1, 1.0), ("j", 5, 0)
    )
    found = compare_sources(a, b)
    assert found.same_file == [("x", "other")] and found.both.to_pylist() == ["both"]


def test_leaks_between_splits_of_one_dataset_fail_where_asked_to(sets: dict[str, Path]) -> None:
    words = ["diff", str(sets["leak"]), "--splits", "train,val", "--frames", str(K), "--json"]
    done = CliRunner().invoke(cli, [*words, "--fail-on-shared"], standalone_mode=False)
    assert done.return_value == 1, done.output
    value = json.loads(done.stdout.splitlines()[-1])
    assert value["rows"] is None and value["sources"]["both"] == 0
    (worst,) = value["runs"]["worst"]
    assert (worst["a"]["source"], worst["a"]["split"], worst["b"]["source"]) == ("4.mp4", "train", "copy.mp4")
    assert "4.mp4 run 0 (frames 0 to 76, 0.00 to 3.04 s) = copy.mp4" in done.stdout
    clean = CliRunner().invoke(
        cli, ["diff", str(sets["a"]), "--splits", "train,val", "--fail-on-shared"], standalone_mode=False
    )
    assert clean.return_value == 0 and not CliRunner().invoke(cli, words, standalone_mode=False).return_value


def test_wrong_sides_are_refused(sets: dict[str, Path]) -> None:
    for words in ([str(sets["a"])], [str(sets["a"]), "--splits", "train"], [str(sets["a"]), str(sets["a"])]):
        refused = CliRunner().invoke(cli, ["diff", *words], standalone_mode=False)
        assert isinstance(refused.exception, UsageError), refused
    refused = CliRunner().invoke(cli, ["diff", str(sets["a"]), "--splits", "train,test"], standalone_mode=False)
    assert isinstance(refused.exception, UserError) and "test" in str(refused.exception)


def test_a_gate_that_cannot_look_is_refused_and_says_what_it_did_not_look_at(
    sets: dict[str, Path], tmp_path: Path
) -> None:
    def diff(*words: str) -> Result:
        return CliRunner().invoke(cli, ["diff", *words, "--fail-on-shared"], standalone_mode=False)

    assert "--quick does not" in str(diff(str(sets["a"]), str(sets["leak"]), "--quick").exception)
    other = write_tokens(tmp_path / "other", [Video("z.mp4", np.zeros((3, 2, 2), int))], tokenizer_id="0" * 16)
    assert "tokenizers differ" in str(diff(str(sets["a"]), str(other)).exception)
    rng = np.random.default_rng(0)
    short, still = Video("s.mp4", rng.integers(0, 60, (3, 2, 2))), Video("t.mp4", np.zeros((30, 2, 2), int))
    long = Video("l.mp4", rng.integers(0, 60, (30, 2, 2)))
    one = write_tokens(tmp_path / "one", [short, still, long])
    two = write_tokens(tmp_path / "two", [Video("x.mp4", rng.integers(0, 60, (30, 2, 2)))])
    done = diff(str(one), str(two))
    assert done.return_value == 0
    assert "not looked at: 2 of 3 rows of a and 0 of 1 of b" in done.output
