"""The stream of a recipe: every window once an epoch, the same for ever, refusals that say what to do."""

import dataclasses
import itertools
import pickle
from collections import Counter
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_world import Image, Video, moving_videos, still_images, write_tokens

from toto import Dataset
from toto.errors import UsageError, UserError
from toto.shards import ids
from toto.shards.batch_source import BATCHES
from toto.shards.recipe import Part, Recipe, make_recipe
from toto.shards.stream import Sequence, Stream
from toto.shards.streaming.mixture import Phase
from toto.shards.streaming.shares import Later

RUNS = ((23,), (8, 9), (7,), (40,), (16, 8), (11,))


def counting(frames: int, first: int) -> np.ndarray:
    """Codes that say which frame of which video they are, so that a window can be recognised."""
    return (first + np.arange(frames))[:, None, None] * np.ones((1, 2, 2), int)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of runs of many lengths, two views of each, and images: several shards and batches."""
    starts = np.cumsum([0, *(sum(runs) for runs in RUNS)])
    videos = [
        Video(f"{i}.mp4", counting(sum(runs), int(start)), runs=runs, views=2)
        for i, (runs, start) in enumerate(zip(RUNS, starts, strict=False))
    ]
    images = [Image(f"{i}.png", np.full((2, 2), 500 + 2 * i), views=2) for i in range(21)]
    root = tmp_path_factory.mktemp("world") / "set"
    return write_tokens(root, videos, images, vocab_size=1024, unit_sources=4, batch_bytes=200)


def recipe(world: Path | str, frames: int = 4, stride: int | None = 4, seed: int = 0, hop: int | None = None) -> Recipe:
    return make_recipe([("world", str(world), 1, None)], frames, stride, seed, 8, hop=hop)


def of_part(stream: Stream, part: str, count: int, first: int = 0) -> list[Sequence]:
    """The part's sequences from its `first` on."""
    found, g = [], 0
    while len(found) < first + count:
        if (sequence := stream.sequence(g)).part == part:
            found.append(sequence)
        g += 1
    return found[first:]


def window_starts(sequences: list[Sequence]) -> Counter[tuple[str, int, int]]:
    return Counter((clip.source, clip.row.run, clip.start) for s in sequences for clip in s.clips)


@pytest.mark.parametrize("frames, stride, hop", [(4, 4, None), (2, 8, None), (4, 4, 2), (3, 12, 1)])
def test_every_window_comes_once_an_epoch(world: Path, frames: int, stride: int, hop: int | None) -> None:
    stream = Stream(recipe(world, frames, stride, hop=hop))
    step = stride // 4
    span, hop_stored = (frames - 1) * step + 1, (hop or frames) * step
    count = sum(len(range(0, n - span + 1, hop_stored)) for runs in RUNS for n in runs)
    assert stream.sequences_per_epoch()["world:video"] == count
    for epoch in range(3):
        found = of_part(stream, "world:video", count, epoch * count)
        assert {sequence.epoch for sequence in found} == {epoch}
        by_run: dict[tuple[str, int], list[int]] = {}
        for source, run, start in window_starts(found).elements():
            by_run.setdefault((source, run), []).append(start)
        for (source, run), starts in by_run.items():
            n = RUNS[int(source.removesuffix(".mp4"))][run]
            phase = min(starts)
            assert sorted(starts) == [phase + k * hop_stored for k in range(len(starts))]
            assert len(starts) == len(range(0, n - span + 1, hop_stored)) and max(starts) + span <= n
        assert len(by_run) == sum(n >= span for runs in RUNS for n in runs)


def test_phases_and_views_change_from_epoch_to_epoch_but_not_within_one(world: Path) -> None:
    stream = Stream(recipe(world))
    count = stream.sequences_per_epoch()["world:video"]
    phases, views = Counter[int](), Counter[int]()
    for epoch in range(12):
        found = of_part(stream, "world:video", count, epoch * count)
        mine = [clip for sequence in found for clip in sequence.clips if clip.source == "3.mp4"]
        assert len({clip.row.view for clip in mine}) == 1
        short = [clip for sequence in found for clip in sequence.clips if clip.source == "2.mp4"]
        phases[short[0].start] += 1
        views[mine[0].row.view] += 1
    assert set(phases) == {0, 1, 2, 3} and set(views) == {0, 1}


def test_a_sequence_is_the_frames_it_says(world: Path) -> None:
    stream = Stream(recipe(world, 2, 8))
    for sequence in of_part(stream, "world:video", 30):
        (clip,) = sequence.clips
        codes = ids.to_codes(sequence.tokens, 2, 2)
        assert sequence.tokens.dtype == np.uint16 and len(sequence.tokens) == stream.context + 2 == 2 * 4 + 2
        assert (codes == clip.row.codes[[clip.start, clip.start + 2]]).all()
        assert (sequence.tokens[0], sequence.tokens[-1]) == (ids.VIDEO_START, ids.END)
        assert np.diff(clip.frame_index).tolist() == [8]
    assert (stream.cells, stream.grid, stream.used_ids) == (4, (2, 2), 1028)


def test_images_are_dealt_from_one_epoch_into_the_next(world: Path) -> None:
    stream = Stream(recipe(world))
    found = of_part(stream, "world:image", 21)  # four epochs of 21 images by 4
    assert stream.sequences_per_epoch()["world:image"] == 5
    assert all(sequence.tokens[0] == ids.IMAGE_START and sequence.tokens[-1] == ids.END for sequence in found)
    clips = [clip for sequence in found for clip in sequence.clips]
    codes = np.concatenate([ids.to_codes(sequence.tokens, 2, 2) for sequence in found])
    assert (codes == np.concatenate([clip.row.codes for clip in clips])).all()
    epochs = [[clip.source for clip in clips[start : start + 21]] for start in range(0, 84, 21)]
    assert all(sorted(epoch) == sorted(epochs[0]) and len(set(epoch)) == 21 for epoch in epochs)
    groups = {frozenset(clip.source for clip in sequence.clips) for sequence in found}
    assert len(groups) == 21 and len({tuple(epoch) for epoch in epochs}) == 4
    assert [sequence.epoch for sequence in found[:6]] == [0, 0, 0, 0, 0, 0] and found[6].epoch == 1


def test_any_sequence_can_be_had_without_those_before_it(world: Path) -> None:
    in_order = Stream(recipe(world))
    expected = [in_order.sequence(g) for g in range(60)]
    for g in (59, 3, 31, 0):
        again = Stream(recipe(world)).sequence(g)
        assert (again.tokens == expected[g].tokens).all() and again.hash == expected[g].hash
    assert len({sequence.hash for sequence in expected}) == 60
    assert Stream(recipe(world, seed=1)).sequence(0).hash != expected[0].hash


def test_the_stream_is_the_same_for_ever(tmp_path: Path) -> None:
    videos = [Video(f"{i}", counting(23, 20 * i)) for i in range(5)]
    stream = Stream(recipe(write_tokens(tmp_path, videos, vocab_size=128)))
    clips = [stream.sequence(g).clips[0] for g in range(6)]
    assert [(clip.source, clip.start) for clip in clips] == [
        ("2", 1),
        ("1", 15),
        ("0", 0),
        ("4", 3),
        ("3", 14),
        ("0", 16),
    ]
    assert stream.sequence(0).hash == 0x12372CB91D3FE7BA


def test_a_snapshot_that_grows_does_not_change_the_stream(tmp_path: Path) -> None:
    root = write_tokens(tmp_path, moving_videos(12), unit_sources=3)
    before = recipe(root)
    hashes = [Stream(before).sequence(g).hash for g in range(40)]
    write_tokens(root, [Video("new", counting(9, 0), label=1)])
    assert len(Dataset(root)) == 13 and recipe(root).id != before.id
    assert [Stream(Recipe.from_json(before.to_json())).sequence(g).hash for g in range(40)] == hashes


def test_moved_shards_and_other_batches_are_the_same_stream(world: Path, tmp_path: Path) -> None:
    made = recipe(world)
    (tmp_path / "moved").symlink_to(world)
    parts = tuple(dataclasses.replace(part, uri=str(tmp_path / "moved")) for part in made.parts)
    moved = dataclasses.replace(made, parts=parts, batch_sequences=99)
    assert moved.id == made.id
    assert [Stream(moved).sequence(g).hash for g in range(9)] == [Stream(made).sequence(g).hash for g in range(9)]


def test_a_stream_travels_as_its_recipe(world: Path) -> None:
    stream = Stream(recipe(world))
    stream.sequence(5)
    packed = pickle.dumps(stream)
    assert len(packed) < 2000 and pickle.loads(packed).sequence(5).hash == stream.sequence(5).hash


def test_a_dataset_of_both_kinds_shares_its_weight_by_sequences(world: Path, tmp_path: Path) -> None:
    other = write_tokens(tmp_path, [Video("x", counting(40, 0))], vocab_size=1024)
    made = make_recipe([("world", str(world), 3, None), ("other", str(other), 1, "train")], 4, 4, 0, 8)
    assert [part.name for part in made.parts] == ["world:video", "world:image", "other"]
    (phase,) = made.phases
    video, image, alone = phase.weights
    counts = Stream(made).sequences_per_epoch()
    assert (video + image, alone) == (7500, 2500)
    assert video == round(7500 * counts["world:video"] / (counts["world:video"] + counts["world:image"]))
    seen = Stream(made).counts(10_000)
    assert list(seen.values()) == [video, image, alone]
    assert Stream(made).epochs(10_000)["other"] == pytest.approx(2500 / 10)
    only = make_recipe([("world", str(world), 3, None)], 4, 4, 0, 8, kinds=("image",))
    assert [part.name for part in only.parts] == ["world"] and only.phases[0].weights == (3,)


def test_phases_change_the_mixture_at_their_sequence(world: Path) -> None:
    made = dataclasses.replace(recipe(world), phases=(Phase(0, (1, 0)), Phase(7, (0, 1))))
    parts = [Stream(made).sequence(g).part for g in range(12)]
    assert parts == ["world:video"] * 7 + ["world:image"] * 5


@settings(max_examples=30)
@given(st.data())
def test_a_recipe_is_read_back_or_refused(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.text(min_size=1), min_size=1, max_size=4, unique=True))
    kinds = [data.draw(st.sampled_from(["video", "image"])) for _ in names]
    numbers = data.draw(st.lists(st.integers(1, 10**6), min_size=7, max_size=7))
    made = Recipe(
        parts=tuple(Part(name, "/data", "ff" * 32, "train", kind) for name, kind in zip(names, kinds, strict=True)),
        phases=(Phase(0, (1,) * len(names)), Phase(numbers[0], (2,) * len(names))),
        seed=numbers[1],
        frames=numbers[2],
        stride=data.draw(st.one_of(st.none(), st.integers(1, 9))),
        hop=numbers[3],
        images_per_sequence=numbers[4],
        batch_sequences=numbers[5],
        grid=(numbers[6], 2),
    )
    text = made.to_json()
    assert Recipe.from_json(text) == made
    for old, new, said in (
        ('"format": 1', '"format": 2', "recipe format 2"),
        ('"seed"', '"sead"', "unknown or missing keys: sead, seed"),
        (f'"hop": {made.hop}', '"hop": "x"', "hop: 'x' is not a whole number"),
        ('"phases": [', '"phases": [7, ', "phase: unknown or missing"),
        ("{", "[", "not a recipe.json"),
    ):
        with pytest.raises(UserError, match=said) as error:
            Recipe.from_json(text.replace(old, new, 1), "runs/x/recipe.json")
        assert str(error.value).startswith("runs/x/recipe.json: ") and "\n" not in str(error.value)


def test_strides_that_the_shards_do_not_hold_are_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="every 4th frame: stride 6 cannot be had from it; 4, 8, 12 … can"):
        recipe(world, stride=6)
    timed = write_tokens(tmp_path, [Video("x", counting(40, 0))], stride=None)
    with pytest.raises(UsageError, match="sampled by fps 7.5: leave the stride 4 out"):
        recipe(timed)
    assert Stream(recipe(timed, stride=None)).sequences_per_epoch() == {"world": 10}


def test_what_does_not_go_together_is_refused_by_name(world: Path, tmp_path: Path) -> None:
    def mixed(**other: Path) -> Recipe:
        sources = [("world", str(world), 1, None), *((name, str(root), 1, None) for name, root in other.items())]
        return make_recipe(sources, 4, 4, 0, 8)

    videos = [Video("x", counting(40, 0))]
    other = write_tokens(tmp_path / "ids", videos, vocab_size=1024, tokenizer_id="ffff")
    with pytest.raises(UserError, match="world and other differ in their tokenizer: .* and ffff"):
        mixed(other=other)
    wide = write_tokens(tmp_path / "wide", [Video("x", np.zeros((9, 2, 4), int))], vocab_size=1024)
    with pytest.raises(UserError, match=r"world and wide differ in their grid: \(2, 2\) and \(2, 4\)"):
        mixed(wide=wide)
    with pytest.raises(UserError, match="no window of 41 frames fits .* takes 41 stored frames, and the longest run h"):
        recipe(world, 41)
    with pytest.raises(UserError, match="21 images in .*; a sequence takes 22"):
        recipe(world, 22)
    with pytest.raises(UserError, match="holds no image"):
        make_recipe([("few", str(wide), 1, None)], 4, 4, 0, 8, kinds=("image",))
    with pytest.raises(UsageError, match="hop: 0; at least 1"):
        recipe(world, hop=0)
    with pytest.raises(UsageError, match="differ in length"):
        make_recipe([("world", str(world), 1, None)], 4, 4, 0, 8, images_per_sequence=5)
    with pytest.raises(UsageError, match="names may not repeat"):
        make_recipe([("world", str(world), 1, None)] * 2, 4, 4, 0, 8)
    with pytest.raises(UsageError, match="sum of at most 10,000"):
        make_recipe([("world", str(world), 10_001, None)], 4, 4, 0, 8)
    parts = write_tokens(tmp_path / "parts", [*moving_videos(2, "val"), *moving_videos(2, "test")])
    with pytest.raises(UsageError, match="has the splits test, val; say which one"):
        recipe(parts)
    with pytest.raises(UserError, match="no dataset at"):
        recipe(tmp_path / "nowhere")


def test_grids_that_change_from_source_to_source_are_refused(tmp_path: Path) -> None:
    videos = [Video("wide", np.zeros((9, 2, 4), int)), Video("square", np.zeros((9, 4, 4), int))]
    with pytest.raises(UserError, match="differ from source to source"):
        recipe(write_tokens(tmp_path / "full", videos, crop="full"))
    same = write_tokens(tmp_path / "same", videos[:1], crop="full")
    assert recipe(same).grid == (2, 4)
    lying = Stream(recipe(write_tokens(tmp_path / "lying", videos)))
    with pytest.raises(UserError, match=r"(wide|square), run 0, view 0: a grid of .* codes instead of"):
        [lying.sequence(g) for g in range(4)]


def test_ids_outside_the_vocabulary_name_dataset_source_and_row(tmp_path: Path) -> None:
    for i, (code, said) in enumerate(((64, 68), (-3, 1))):
        codes = np.zeros((8, 2, 2), int)
        codes[3, 1, 0] = code
        root = write_tokens(tmp_path / str(i), [Video("bad.mp4", codes)], vocab_size=64)
        stream = Stream(recipe(root))
        with pytest.raises(UserError, match=f"{root}: bad.mp4, run 0, view 0: id {said} outside 4 … 67"):
            [stream.sequence(g) for g in range(2)]


def test_a_shard_that_vanishes_is_named(tmp_path: Path) -> None:
    root = write_tokens(tmp_path, moving_videos(6), unit_sources=2)
    stream = Stream(recipe(root))
    for shard in (root / "shards").iterdir():
        shard.unlink()
    with pytest.raises(UserError, match=r"shards/[0-9a-f-]+\.arrow: the file is missing"):
        [stream.sequence(g) for g in range(6)]


def test_a_store_that_does_not_answer_is_asked_again_and_then_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toto.shards.store.retry.PAUSES_S", (0.0, 0.0))
    monkeypatch.setenv("TOTO_CACHE", str(tmp_path / "cache"))
    root, store = write_tokens(tmp_path / "set", moving_videos(2)), fsspec.filesystem("memory")
    store.put(str(root), "/stream-test/set", recursive=True)
    stream = Stream(recipe("memory://stream-test/set"))
    expected = Stream(recipe(root)).sequence(0).tokens
    failures = iter([OSError("reset by peer"), TimeoutError("no answer")])

    def flaky(self: object, *arguments: object, **rest: object) -> list[bytes]:
        for failure in failures:
            raise failure
        return get(self, *arguments, **rest)

    get = type(store).cat_ranges
    (tmp_path / "cache").rename(tmp_path / "gone")  # the recipe looked at a row
    BATCHES._forget()
    monkeypatch.setattr(type(store), "cat_ranges", flaky)
    assert (stream.sequence(0).tokens == expected).all()
    failures = itertools.repeat(OSError("reset by peer"))
    (tmp_path / "cache").rename(tmp_path / "gone too")
    BATCHES._forget()
    with pytest.raises(
        UserError, match=r"memory://stream-test/set/shards/\S+: the store does not answer \(OSError: reset"
    ):
        pickle.loads(pickle.dumps(stream)).sequence(0)


def test_a_pinned_snapshot_that_is_gone_is_named(tmp_path: Path) -> None:
    root = write_tokens(tmp_path, still_images(8))
    made = recipe(root)
    for file in (root / "manifest").iterdir():
        file.unlink()
    with pytest.raises(UserError, match=f"0 snapshots with id '{made.parts[0].dataset_id}'"):
        Stream(made)


def test_numbers_beyond_every_run_are_refused(world: Path) -> None:
    of = Stream(recipe(world))
    assert of.sequence((1 << 48) - 1).number == (1 << 48) - 1
    with pytest.raises(IndexError, match="sequence 281474976710656; the last is"):
        of.sequence(1 << 48)
    with pytest.raises(UsageError, match="a phase from sequence 8000000000000000000: no run has more"):
        make_recipe([("world", str(world), 1, None)], 4, 4, 0, 8, later=[Later(10**18, "step", {"world": 1})])
    with pytest.raises(UsageError, match="seed: -5; 0 or more"):
        recipe(world, seed=-5)
    with pytest.raises(UsageError, match="pixels: -4; patches have a side of at least 1"):
        Stream(recipe(world), pixels=-4)
