"""Two datasets side by side: the same rows of the same frames, whatever their shards; what is missing is named."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import token_world
from hypothesis import given, settings
from hypothesis import strategies as st
from token_world import Image, Video, moving_videos, write_tokens

from toto import Dataset
from toto.errors import UsageError, UserError

KEYS = [f"{i}.mp4" for i in range(30)]


def sources(keys: list[str], vocab_size: int, runs: tuple[int, ...] = (9, 5)) -> list[Video]:
    """Videos whose codes depend on key and vocabulary; two views."""
    return [
        Video(key, (np.arange(14 * 4).reshape(14, 2, 2) + hash_of(key)) % (vocab_size - 1), runs=runs, views=2)
        for key in keys
    ]


def hash_of(key: str) -> int:
    return sum(key.encode())


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    images = [Image(f"{i}.png", np.full((2, 2), i), views=2) for i in range(5)]
    root = tmp_path_factory.mktemp("left") / "set"
    return Dataset(write_tokens(root, sources(KEYS, 64), images, unit_sources=7, batch_bytes=500))


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Another vocabulary, other shards in another order; 3 sources fewer and 2 that the left one lacks."""
    root = tmp_path_factory.mktemp("right") / "set"
    keys = [*reversed(KEYS[3:]), "only-here-a.mp4", "only-here-b.mp4"]
    return Dataset(write_tokens(root, sources(keys, 1024), unit_sources=4, batch_bytes=900))


def test_rows_of_one_id_stand_side_by_side(left: Dataset, right: Dataset) -> None:
    joined = left.join(right)
    pairs = list(joined.rows())
    assert len(pairs) == len(joined) == 27 * 2 * 2
    theirs = {row.row_id: row for row in right.rows()}
    expected = [row.row_id for row in left.rows() if row.row_id in theirs]
    assert [mine.row_id for mine, _ in pairs] == expected  # in the left one's order
    for mine, other in pairs:
        assert (mine.source, mine.run, mine.view) == (other.source, other.run, other.view)
        assert (other.tokens == theirs[mine.row_id].tokens).all() and mine.frame_index.tolist() == [*other.frame_index]
    for i in (0, 57, -1):
        assert [row.row_id for row in joined.row(i)] == [row.row_id for row in pairs[i]]
    with pytest.raises(IndexError):
        joined.row(len(joined))


def test_what_has_no_partner_is_counted_and_named(left: Dataset, right: Dataset) -> None:
    joined = left.join(right)
    assert joined.missing_right.rows == 3 * 4 + 5 * 2
    assert {*joined.missing_right.sources()} == {*KEYS[:3], *(f"{i}.png" for i in range(5))}
    assert joined.missing_left.rows == 2 * 4
    assert sorted(joined.missing_left.sources()) == ["only-here-a.mp4", "only-here-b.mp4"]


def test_windows_are_the_same_frames_of_both(left: Dataset, right: Dataset) -> None:
    for frames, stride in ((4, 1), (3, 2)):
        windows = list(left.join(right).windows(frames, stride))
        span = (frames - 1) * stride + 1
        assert len(windows) == 27 * 2 * sum(len(range(0, n - span + 1, frames * stride)) for n in (9, 5))
        for mine, other in windows:
            assert mine.source == other.source and (mine.frame_index == other.frame_index).all()
            assert (mine.pts_us == other.pts_us).all() and len(mine.tokens) == len(other.tokens) == frames * 4 + 2


@settings(max_examples=6)
@given(st.sets(st.sampled_from(KEYS[:6]), min_size=1), st.sets(st.sampled_from(KEYS[:6]), min_size=1))
def test_rows_are_paired_or_missing_and_never_both(
    tmp_path_factory: pytest.TempPathFactory, one: set[str], other: set[str]
) -> None:
    folder = tmp_path_factory.mktemp("pair")
    mine, theirs = (
        Dataset(write_tokens(folder / name, sources(sorted(keys), 64), unit_sources=units))
        for name, keys, units in (("a", one, 2), ("b", other, 3))
    )
    joined = mine.join(theirs)
    assert len(joined) == 4 * len(one & other) == sum(1 for _ in joined.rows())
    assert {*joined.missing_right.sources()} == one - other and {*joined.missing_left.sources()} == other - one
    assert len(joined) + joined.missing_right.rows == len(mine)
    assert len(joined) + joined.missing_left.rows == len(theirs)


def test_a_run_that_one_of_them_lacks_is_missing_and_other_frames_are_refused(tmp_path: Path, left: Dataset) -> None:
    shorter = Dataset(write_tokens(tmp_path / "shorter", sources(KEYS[:1], 64, (9,))))
    assert left.join(shorter).missing_right.rows == len(left) - 2
    uneven = Dataset(write_tokens(tmp_path / "uneven", sources(KEYS[:2], 64, (8, 6))))
    with pytest.raises(UserError, match=r"0.mp4, run 0, view 0: n_frames is 9 in .* and 8 in .*; tokenize both from"):
        list(left.join(uneven).rows())
    other = Dataset(write_tokens(tmp_path / "other", sources(KEYS[:2], 64), stride=8))
    with pytest.raises(UserError, match="differ in stride: 4 and 8; their rows are not the same frames"):
        left.join(other)
    with pytest.raises(UsageError, match="join on 'source'"):
        left.join(shorter, on="source")


def test_rows_that_list_other_frames_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = token_world._rows

    def listing(frames: list[int]) -> Dataset:
        def listed(*facts: Any) -> Iterator[token_world.RowRecord]:
            index = np.array(frames, np.int32)
            yield from (replace(row, frame0=0, frame_step=0, frame_index=index) for row in rows(*facts))

        monkeypatch.setattr(token_world, "_rows", listed)
        return Dataset(write_tokens(tmp_path / f"{frames[2]}", moving_videos(2, frames=4), stride=None))

    left, same = listing([0, 4, 8, 12]), Dataset(tmp_path / "8")
    assert len(list(left.join(same).rows())) == 2
    with pytest.raises(UserError, match="train/0000.mp4, run 0, view 0: frame_index is 8 in .* and 9 in .*"):
        list(left.join(listing([0, 4, 9, 12])).rows())


def test_a_video_beside_an_image_of_its_name_is_refused(tmp_path: Path) -> None:
    codes = np.ones((1, 2, 2), int)
    video = Dataset(write_tokens(tmp_path / "video", [Video("a", codes)]))
    image = Dataset(write_tokens(tmp_path / "image", images=[Image("a", codes[0])]))
    with pytest.raises(UserError, match="a, run 0, view 0: kind is 1 in .* and 3 in"):
        list(video.join(image).rows())


def test_a_key_in_two_splits_is_paired_twice(tmp_path: Path) -> None:
    splits = ("train", "val")
    twice = [Video("k", np.full((4, 2, 2), i), split) for i, split in enumerate(splits)]
    more = [Video(f"only-{split}", np.zeros((4, 2, 2), int), split) for split in splits]
    roots = [write_tokens(tmp_path / "a", [*twice, *more[:1]]), write_tokens(tmp_path / "b", [*twice, *more[1:]])]
    left, right = map(Dataset, roots)
    pairs = [(mine.split, other.split, mine.codes.max(), other.codes.max()) for mine, other in left.join(right).rows()]
    assert sorted(pairs) == [("train", "train", 0, 0), ("val", "val", 1, 1)]
    alone = Dataset(roots[0], split="val").join(right)
    assert (len(alone), alone.missing_right.rows, alone.missing_left.rows) == (1, 0, 2)


def test_the_left_dataset_is_read_past_the_cache(
    left: Dataset, right: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOTO_CACHE", str(tmp_path / "cache"))
    mine, other = Dataset(left.store.uri), Dataset(right.store.uri)
    monkeypatch.setattr(mine, "shard_batch", None)
    assert len(list(mine.join(other).rows())) == 27 * 2 * 2
