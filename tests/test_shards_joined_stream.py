"""Joined datasets as training sequences: the same frames on both sides, in the order that one of them alone has."""

import json
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import token_world
from hypothesis import given, settings
from hypothesis import strategies as st
from token_world import Image, Video, write_tokens

from toto import Dataset
from toto.errors import UserError
from toto.shards.joined_stream import JoinedRecipe, JoinedSequences, JoinedStream, make_joined_recipe
from toto.shards.reader import ShardReader
from toto.shards.stream import Stream
from toto.shards.streaming.patches import to_frames
from toto.tokenize.tokenizers.none import NoCodes

KEYS = [f"{i:02d}.mp4" for i in range(12)]
RUNS = (9, 5)
SIDE = 8  # of kept pixels


def pictures(key: str, frames: int) -> np.ndarray:
    """uint8 [frames, 8, 8, 3] that tell key and frame."""
    base = np.arange(frames * SIDE * SIDE * 3) * 7 + 13 * sum(key.encode())
    return (base % 251).astype(np.uint8).reshape(frames, SIDE, SIDE, 3)


def videos(keys: list[str], grid: tuple[int, int], times: int, views: int = 2, **more: Any) -> list[Video]:
    """Codes that tell key, frame and cell: `times` sets tokenizers apart."""
    cells = np.arange(grid[0] * grid[1]).reshape(grid)
    return [
        Video(
            key,
            times * (np.arange(14)[:, None, None] + sum(key.encode())) + cells,
            runs=RUNS,
            views=views,
            **({"pixels": pictures(key, 14)} if more.get("pixels") else {}),
        )
        for key in keys
    ]


def written(root: Path, *sources: Any, **facts: Any) -> str:
    """As `write_tokens`, but what a frame shows does not depend on the grid; `vocab_size` 0 for the tokenizer none."""
    rows, tokenizer = token_world._rows, token_world.DCT

    def of_one_crop(*told: Any) -> Iterator[token_world.RowRecord]:
        return (replace(row, crop=(0, 0, 64, 64)) for row in rows(*told))

    with patch.object(token_world, "_rows", of_one_crop), patch.object(token_world, "DCT", tokenizer):
        if not facts["vocab_size"]:
            token_world.DCT = lambda vocab_size: NoCodes()  # type: ignore[assignment, misc]
        return str(write_tokens(root, *sources, **facts))


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> str:
    images = [Image(f"{i}.png", np.full((2, 2), i), views=2) for i in range(9)]
    root = tmp_path_factory.mktemp("left") / "set"
    return written(root, videos(KEYS, (2, 2), 1), images, vocab_size=4096, unit_sources=5, batch_bytes=300)


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Another tokenizer and grid, other shards in another order; it lacks two videos and an image, and has one more."""
    images = [Image(f"{i}.png", np.full((2, 4), 100 + i), views=2) for i in range(8)]
    keys = [*reversed(KEYS[2:]), "only-here.mp4"]
    root = tmp_path_factory.mktemp("right") / "set"
    return written(root, videos(keys, (2, 4), 2), images, vocab_size=9000, unit_sources=4, batch_bytes=500)


def recipe(left: str, right: str, **more: Any) -> JoinedRecipe:
    sources = [("a", left, right, {"video": 2, "image": 1}, "train")]
    return make_joined_recipe(sources, **{"frames": 3, "stride": 8, "seed": 5, "batch_sequences": 4, **more})


@pytest.fixture(scope="module")
def stream(left: str, right: str) -> JoinedStream:
    return JoinedStream(recipe(left, right))


def windows_of(uri: str) -> dict[tuple[str, int, int, int], np.ndarray]:
    """(source, run, view, first frame) -> ids of each window that may be drawn: 3 frames, every second one."""
    return {
        (row.source, row.run, row.view, start): row.codes[start : start + 5 : 2].reshape(-1) + 4
        for row in Dataset(uri).rows()
        if row.kind == 1
        for start in range(row.n_frames - 4)
    }


def test_both_halves_are_the_same_frames_and_every_pair_comes_once_an_epoch(left: str, right: str) -> None:
    stream = JoinedStream(recipe(left, right))
    assert (stream.left.grid, stream.grid, stream.left.context, stream.context) == ((2, 2), (2, 4), 12, 24)
    assert (stream.left.used_ids, stream.used_ids) == (4100, 9004)
    per_epoch = stream.sequences_per_epoch()
    assert per_epoch == {"a:video": 10 * 2, "a:image": 8 // 3}
    mine, theirs = windows_of(left), windows_of(right)
    seen = []
    for one, other in stream.sequences(range(3 * per_epoch["a:video"] // 2)):
        assert [clip.row.row_id for clip in one.clips] == [clip.row.row_id for clip in other.clips]
        assert [clip.frame_index.tolist() for clip in one.clips] == [clip.frame_index.tolist() for clip in other.clips]
        assert (one.part, one.epoch, one.number) == (other.part, other.epoch, other.number)
        if one.part == "a:video":
            [clip] = one.clips
            key = (clip.source, clip.row.run, clip.row.view, clip.start)
            assert (one.tokens[1:-1] == mine[key]).all() and (other.tokens[1:-1] == theirs[key]).all()
            seen.append((clip.source, clip.row.run))
        assert (one.tokens[0], one.tokens[-1]) == (other.tokens[0], other.tokens[-1])
    assert sorted(seen) == sorted((key, run) for key in KEYS[2:] for run in (0, 1))


def test_where_every_row_has_a_partner_the_left_half_is_the_stream_of_the_left_dataset(left: str, right: str) -> None:
    alone = recipe(left, left)
    stream, plain = JoinedStream(alone), Stream(alone.left)
    batch = stream.sequences(range(100, 160))
    assert (batch.left.tokens == plain.sequences(range(100, 160)).tokens).all()
    assert (batch.right.tokens == batch.left.tokens).all()
    assert batch.hash == 2 * batch.left.hash % 2**64 and stream.counts(90) == plain.counts(90)
    assert recipe(left, right).id != alone.id == JoinedRecipe.from_json(alone.to_json()).id


def test_each_batch_is_read_once_where_there_is_no_cache(
    left: str, right: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOTO_CACHE_BYTES", "0")
    read: list[tuple[str, int]] = []
    batch_of = ShardReader.batch
    monkeypatch.setattr(ShardReader, "batch", lambda shard, i: (read.append((shard.name, i)), batch_of(shard, i))[1])
    JoinedStream(recipe(left, right)).sequences(range(60))
    assert len(read) == len(set(read)) > 10


def test_processes_make_the_same_batches(left: str, stream: JoinedStream, tmp_path: Path) -> None:
    kept = written(tmp_path / "set", videos(KEYS[1:], (2, 2), 1, pixels=True), vocab_size=4096, keep_pixels=SIDE)
    with_patches = make_joined_recipe([("a", left, kept, {"video": 1}, "train")], 3, 8, 5, 4)
    for source in (stream, JoinedStream(with_patches, pixels=4)):
        wanted = [range(0, 40), np.array([7, 300, 7]), range(3, 5)]
        for batch, numbers in zip(source.batches(wanted, 2), wanted, strict=True):
            known = source.sequences(numbers)
            assert (batch.left.tokens == known.left.tokens).all() and (batch.right.tokens == known.right.tokens).all()
            assert batch.pixels.pixels is known.pixels.pixels or (batch.pixels.pixels == known.pixels.pixels).all()
            assert [clip.row.row_id for clip in batch[1][1].clips] == [clip.row.row_id for clip in known[1][1].clips]


@settings(max_examples=15, deadline=None)
@given(numbers=st.lists(st.integers(0, 500), min_size=1, max_size=20))
def test_a_pair_depends_on_its_number_alone(stream: JoinedStream, numbers: list[int]) -> None:
    batch = stream.sequences(np.array(numbers))
    one, other = stream.sequence(numbers[-1])
    assert (batch.left.tokens[-1] == one.tokens).all() and (batch.right.tokens[-1] == other.tokens).all()


def test_a_run_goes_on_from_its_state_and_a_loader_of_torch_reads_it(left: str, right: str) -> None:
    from torch.utils.data import DataLoader

    run = JoinedSequences(JoinedStream(recipe(left, right)), 30)
    every = [run[i] for i in range(30)]
    state = json.loads(json.dumps(run.state_dict(done=11)))
    again = JoinedSequences(pickle.loads(pickle.dumps(run.stream)), 30)
    again.load_state_dict(state)
    assert len(again) == 19 and again.numbers([0, -1]).tolist() == [11, 29]
    batches = list(DataLoader(again, batch_size=5, num_workers=2))  # type: ignore[arg-type]
    for name in ("left", "right"):
        found = np.concatenate([batch[name].numpy() for batch in batches])
        assert (found == np.stack([pair[name] for pair in every[11:]])).all() and found.dtype == np.uint16
    with pytest.raises(IndexError):
        again[19]
    with pytest.raises(UserError, match="this state is of recipe"):
        JoinedSequences(JoinedStream(recipe(left, right, seed=6)), 30).load_state_dict(state)


@pytest.mark.parametrize("codes", [False, True])
def test_pixels_of_the_right_dataset_come_as_patches_beside_the_codes_of_the_left(
    codes: bool, left: str, tmp_path: Path
) -> None:
    """With codes: a patch for each of the right's codes. Without (the tokenizer `none`): one for each of the left's."""
    grid = (4, 4) if codes else (2, 2)
    made = videos(KEYS[1:], (4, 4), 1, pixels=True)
    if not codes:
        made = [Video(v.key, np.zeros((14, 0, 0), int), runs=RUNS, views=2, pixels=v.pixels) for v in made]
    right = written(tmp_path / "right", made, vocab_size=4096 * codes, unit_sources=3, keep_pixels=SIDE)
    side = SIDE // grid[0]
    sources = [("a", left, str(right), {"video": 1}, "train")]
    stream = JoinedStream(make_joined_recipe(sources, 3, 8, 0, 4, kinds=("video",)), pixels=side)
    batch = stream.sequences(range(40, 60))
    assert batch.right.tokens.shape == (20, 3 * 16 + 2 if codes else 2)
    assert batch.pixels is batch.right and batch.pixels.patches.dtype == np.float32
    assert batch.right.pixels is not None and batch.right.pixels.shape == (20, 3 * grid[0] * grid[1], 3 * side**2)
    for i, (one, _) in enumerate(batch):
        [clip] = one.clips
        first = sum(RUNS[: clip.row.run]) + clip.start
        frames = to_frames(batch.right.pixels[i].reshape(3, grid[0] * grid[1], -1), grid)
        assert (frames == pictures(clip.source, 14)[first : first + 5 : 2]).all()
    item = JoinedSequences(stream, 9)[3]
    assert set(item) == {"left", "right", "pixels"}
    with pytest.raises(UserError, match="keeps pixels of short side 8"):
        JoinedStream(stream.recipe, pixels=5).sequence(0)


def test_what_does_not_fit_is_refused_by_name(left: str, right: str, tmp_path: Path) -> None:
    other = written(tmp_path / "other", videos(["x.mp4"], (2, 2), 1), vocab_size=4096)
    made = make_joined_recipe([("b", left, other, 1, "train")], 3, 8, 0, 4)
    with pytest.raises(UserError, match="b:video: .* split train, and .* have no row in common"):
        JoinedStream(made)
    uneven = [Video(v.key, v.codes, runs=(8, 6), views=2) for v in videos(KEYS, (2, 2), 1)]
    frames = written(tmp_path / "uneven", uneven, vocab_size=4096)
    stream = JoinedStream(make_joined_recipe([("b", left, frames, {"video": 1}, "train")], 3, 8, 0, 4))
    with pytest.raises(UserError, match="n_frames is 9 in .* and 8 in .*; tokenize both from the same files"):
        stream.sequences(range(20))
    high = written(tmp_path / "high", videos(KEYS, (2, 2), 1), vocab_size=64)
    with pytest.raises(UserError, match=r"high: \d\d.mp4, run 0, view 0: id \d+ outside 4 … 67; tokenize it anew"):
        JoinedStream(make_joined_recipe([("b", left, high, {"video": 1}, "train")], 3, 8, 0, 4)).sequence(0)
    one, two = Dataset(left), Dataset(right)
    for dataset in (one, two):
        dataset.info["settings"]["views"] = 3  # 2 rows of each run, in truth
    with pytest.raises(UserError, match="tell of other rows than it has"):
        one.join(two)
    with pytest.raises(UserError, match="not a recipe of joined datasets"):
        JoinedRecipe.from_json("{}")
