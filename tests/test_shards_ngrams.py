"""n-grams: counted exactly in bounded memory, whatever is counted; figures against plain Python."""

import json
from collections import Counter
from itertools import pairwise
from math import log2
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from token_world import Image, Video, write_tokens

from toto import Dataset
from toto.errors import UsageError, UserError
from toto.plain import counted, ordinal
from toto.shards.cli import cli
from toto.shards.statistics import gram_counter
from toto.shards.statistics.gram_counter import GramCounter, counts, counts_in, key_dtype, key_ranges
from toto.shards.statistics.ngrams import TOP, Settings, count_ngrams, frame_ngrams
from toto.shards.statistics.reading import plan
from toto.shards.statistics.spectrum import Spectrum

VOCAB = 24


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    videos = [
        Video(f"v{i}.mp4", rng.integers(0, 20, (9, 3, 5)), "train" if i % 3 else "val", runs=(4, 5)) for i in range(7)
    ]
    images = [Image(f"i{i}.png", rng.integers(0, 20, (3, 5))) for i in range(5)] + [Image("w.png", np.full((2, 7), 23))]
    return write_tokens(
        tmp_path_factory.mktemp("ngrams") / "set", videos, images, vocab_size=VOCAB, unit_sources=3, batch_bytes=200
    )


def by_hand(root: Path, n: int, wrap: str, split: str | None = None) -> Counter[tuple[int, ...]]:
    """Every n-gram of every frame, one by one."""
    found: Counter[tuple[int, ...]] = Counter()
    for row in Dataset(root, split=split).rows():
        for frame in row.codes.tolist():
            lines = frame if wrap == "rows" else [[code for line in frame for code in line]]
            for line in lines:
                found.update(tuple(line[i : i + n]) for i in range(len(line) - n + 1))
    return found


@pytest.mark.parametrize("wrap", ["raster", "rows"])
@pytest.mark.parametrize("split", [None, "val"])
def test_figures_are_those_of_counting_one_by_one(world: Path, wrap: str, split: str | None) -> None:
    value = count_ngrams(world, Settings((1, 2, 3, 6), wrap), split=split)
    for n, grams in value["grams"].items():
        expected = by_hand(world, int(n), wrap, split)
        total = expected.total()
        assert (grams["occurrences"], grams["distinct"]) == (total, len(expected))
        assert grams["once"] == sum(count == 1 for count in expected.values())
        entropy = -sum(c / total * log2(c / total) for c in expected.values()) if total else 0.0
        assert grams["entropy_bits"] == pytest.approx(entropy)
        assert grams["possible"] == VOCAB ** int(n) and grams["coverage"] == len(expected) / grams["possible"]
        ranked = sorted(expected.values(), reverse=True)
        assert grams["curve"]["count"] == [ranked[rank - 1] for rank in grams["curve"]["rank"]]
        best = sorted(expected.items(), key=lambda item: (-item[1], item[0]))[:TOP]
        assert [(tuple(line["codes"]), line["count"]) for line in grams["top"]] == best


def test_what_does_not_fit_in_memory_goes_through_files_and_gives_the_same(world: Path) -> None:
    whole = count_ngrams(world)
    with (
        patch("toto.shards.statistics.ngrams.JOIN_BYTES", 1 << 24),  # leaves room for 63 n-grams
        patch.object(GramCounter, "_spill", autospec=True, side_effect=GramCounter._spill) as spilled,
    ):
        assert count_ngrams(world) == whole
    assert spilled.call_count > 5


def test_a_sample_states_its_share_and_depends_on_nothing_but_the_dataset(world: Path) -> None:
    value = count_ngrams(world, sample=3)
    assert value["read"]["batches"] == 3 < value["read"]["of_batches"] and not value["read"]["exact"]
    assert 0 < value["read"]["rows"] < value["read"]["of_rows"] == len(Dataset(world))
    assert value == count_ngrams(world, sample=3)
    drawn = {tuple((task.shards, task.batches) for task in plan(world, sample=3, seed=seed).tasks) for seed in range(9)}
    assert len(drawn) > 5
    everything = value["read"]["of_batches"]
    assert count_ngrams(world, sample=everything) == count_ngrams(world)


@given(
    st.lists(st.lists(st.integers(0, (1 << 56) - 1), max_size=30), max_size=8),
    st.integers(1, 56),
    st.integers(1, 40),
    st.integers(1, 300),
)
@settings(max_examples=40, deadline=None)
def test_a_counter_counts_every_key_of_any_size_any_number_of_times(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int]], bits: int, most: int, times: int
) -> None:
    folder = tmp_path_factory.mktemp("counter")
    expected: Counter[int] = Counter()
    counter, other = GramCounter(bits, most, folder), GramCounter(bits, most, folder)
    for i, batch in enumerate(batches):
        keys = np.array([key % (1 << bits) for key in batch], key_dtype(bits)).repeat(times)
        (other if i % 3 == 1 else counter).add(keys)
        expected.update(keys.tolist())
    counter.add_counted(other.finish(to_files=True))
    counted = counter.finish()
    found: Counter[int] = Counter()
    before = -1
    for keys, many in counts(counted, most):
        assert not len(keys) or keys[0] > before
        before = int(keys[-1]) if len(keys) else before
        found.update(dict(zip(keys.tolist(), many.tolist(), strict=True)))
    assert found == expected
    ranges = key_ranges(counted, most)
    assert ranges[0][0] == 0 and ranges[-1][1] == 1 << bits
    assert all(end == start for (_, end), (start, _) in pairwise(ranges))
    assert sum(len(counts_in(counted, *edges)[0]) for edges in ranges) == len(expected)


def test_a_count_that_does_not_fit_beside_its_key_is_kept_in_pieces(tmp_path: Path) -> None:
    counter = GramCounter(56, 1_000, tmp_path)  # leaves 8 bits for counts
    keys = np.array([3] * 255 + [7] * 256 + [(1 << 56) - 1] * 10_000 + [8], np.uint64)
    counter.add(keys)
    assert [dict(zip(*map(np.ndarray.tolist, part), strict=True)) for part in counts(counter.finish(), 1_000)] == [
        {3: 255, 7: 256, 8: 1, (1 << 56) - 1: 10_000}
    ]


def test_ranges_are_cut_so_that_each_fits(tmp_path: Path) -> None:
    keys = np.random.default_rng(0).permutation(np.arange(20_000, dtype=np.uint32) ** 2 % (1 << 30))
    with patch.object(gram_counter, "CHUNK_KEYS", 512):
        counter = GramCounter(30, 2_000, tmp_path)
        for part in np.array_split(keys, 50):
            counter.add(part)
        counted = counter.finish()
    sizes = [len(counts_in(counted, *edges)[0]) for edges in key_ranges(counted, 2_000)]
    assert sum(sizes) == len(np.unique(keys)) and max(sizes) < 3_000


@given(st.lists(st.integers(0, 9_000), max_size=60), st.integers(0, 70))
def test_a_spectrum_knows_what_its_counts_know(counted: list[int], top: int) -> None:
    spectrum = Spectrum.sum([Spectrum.of(np.array(part, np.int64)) for part in (counted[:20], counted[20:])])
    ranked = sorted((count for count in counted if count), reverse=True)
    assert (spectrum.occurrences, spectrum.distinct) == (sum(ranked), len(ranked))
    assert spectrum.once == ranked.count(1)
    if ranked:
        total = sum(ranked)
        assert spectrum.entropy_bits == pytest.approx(-sum(c / total * log2(c / total) for c in ranked), abs=1e-12)
        assert spectrum.inverse_simpson == pytest.approx(1 / sum((c / total) ** 2 for c in ranked))
        assert float(spectrum.covered(top)) == pytest.approx(sum(ranked[:top]) / total)
        assert [int(spectrum.at_rank(np.array(rank))) for rank in range(1, len(ranked) + 1)] == ranked


def test_no_ngram_crosses_frames_or_with_rows_a_row_of_the_grid() -> None:
    codes = np.arange(12, dtype=np.uint16).reshape(2, 2, 3)
    pairs = [divmod(int(key), 16) for key in frame_ngrams(codes, 2, 4, "raster")]
    assert pairs == [(a, a + 1) for a in (0, 1, 2, 3, 4, 6, 7, 8, 9, 10)]
    pairs = [divmod(int(key), 16) for key in frame_ngrams(codes, 2, 4, "rows")]
    assert pairs == [(a, a + 1) for a in (0, 1, 3, 4, 6, 7, 9, 10)]
    assert not len(frame_ngrams(codes, 4, 4, "rows"))


def test_codes_outside_the_vocabulary_are_an_error_that_names_the_source(tmp_path: Path) -> None:
    for wrong in (VOCAB, -2):
        codes = np.zeros((4, 2, 2), int)
        codes[2, 1, 1] = wrong
        root = write_tokens(tmp_path / str(wrong), [Video("bad.mp4", codes)], vocab_size=VOCAB)
        with pytest.raises(UserError, match=r"source bad\.mp4, run 0: codes .* the vocabulary has 24"):
            count_ngrams(root)


def test_ngrams_too_long_to_pack_and_wrong_sizes_are_refused(world: Path) -> None:
    with pytest.raises(UsageError, match="11 is the most for a vocabulary of 24"):
        count_ngrams(world, Settings((12,)))
    for sizes in ((), (0,), (2, 2)):
        with pytest.raises(UsageError):
            Settings(sizes)


def test_a_dataset_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no rows"):
        count_ngrams(write_tokens(tmp_path / "set"))


def test_the_command_draws_several_datasets_and_ends_with_their_figures(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "grams.png"
    words = ["ngrams", str(world), str(world), "--n", "1", "--out", str(out), "--json"]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert str(out) in lines and out.read_bytes().startswith(b"\x89PNG")
    both = json.loads(lines[-1])["datasets"]
    assert both[0] == both[1] == json.loads(json.dumps(count_ngrams(world, Settings((1,)))))


def test_what_is_one_is_told_as_one(tmp_path: Path) -> None:
    one = write_tokens(tmp_path / "one", [Video("a.mp4", np.zeros((1, 2, 2), int))])
    told = "".join(CliRunner().invoke(cli, [name, str(one)]).stdout for name in ("info", "ngrams", "stats"))
    units = "1 frame, 4 codes: all there are, in 1 record batch;"
    for words in ("1 in 1 shard (", "  1 row, 6 ids", units, "no frame follows another", "a.mp4: 1 code, 0.00 bits"):
        assert words in told
    several = write_tokens(tmp_path / "two", [Video(f"{i}.mp4", np.zeros((1, 2, 2), int)) for i in range(2)])
    assert "  2 rows, 12 ids" in CliRunner().invoke(cli, ["info", str(several)]).stdout
    assert [counted(n, "record batch") for n in (0, 1200)] == ["0 record batches", "1,200 record batches"]
    assert (counted(1, "class"), counted(2, "class")) == ("1 class", "2 classes")
    ordinals = {1: "1st", 2: "2nd", 3: "3rd", 4: "4th", 11: "11th", 12: "12th", 13: "13th", 22: "22nd", 111: "111th"}
    assert {n: ordinal(n) for n in ordinals} == ordinals
