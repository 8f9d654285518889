"""The probe on token datasets of known answers, with a backbone whose second layer knows the direction of motion."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from token_world import Image, Video, moving_videos, still_images, write_tokens
from torch import Tensor

from toto import Dataset
from toto.config import ModelConfig
from toto.errors import UsageError, UserError
from toto.evaluate.features import Pass, Pooled, TokenFeatures
from toto.evaluate.outcome import Outcome, source_scores, true_ranks
from toto.evaluate.probe import Subject, probe
from toto.evaluate.settings import ONE_FRAME, AttentionRecipe, ProbeSettings
from toto.evaluate.views import Views, held_out, stored_stride, views_of
from toto.shards import ids
from toto.train.models.llama import Llama

GRID, FRAMES, USED = (4, 4), 6, 68
FAST = AttentionRecipe(epochs=3, batch=32)
SETTINGS = ProbeSettings(frames=FRAMES, attention=FAST)


class Knowing:
    """Layer 0: a random vector for each code. Layer 1: does this cell hold what its neighbour in each of the four
    directions held one frame before? Its mean over positions tells the motion; of one frame it is zero."""

    def __init__(self) -> None:
        self.table = torch.randn(USED, 8, generator=torch.Generator().manual_seed(0))
        self.seen: list[Tensor] = []

    def features(self, ids: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        self.seen.append(ids)
        codes = ids[:, 1:].reshape(len(ids), -1, *GRID)
        steps = [(1, 0), (-1, 0), (0, 1), (0, -1)]
        matches = torch.zeros(*codes.shape, 8)
        for i, step in enumerate(steps):
            matches[:, 1:, :, :, i] = (codes[:, 1:] == codes[:, :-1].roll(step, (2, 3))).float()
        known = torch.cat([torch.zeros(len(ids), 1, 8), matches.flatten(1, 3)], 1)
        states = {0: self.table[ids], 1: known}
        return {layer: states[layer] for layer in layers}


def subject(backbone: Knowing | Llama, layers: int = 1) -> Subject:
    return Subject(backbone, layers, USED, heads=2, weights=type(backbone).__name__)


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """120 training and 60 validation videos of four motions."""
    videos = [*moving_videos(120, frames=FRAMES), *moving_videos(60, "val", frames=FRAMES, seed=1)]
    return Dataset(write_tokens(tmp_path_factory.mktemp("moving") / "set", videos, unit_sources=50))


@pytest.fixture(scope="module")
def outcome(moving: Dataset) -> Outcome:
    return probe(subject(Knowing()), moving, SETTINGS)


def top1(outcome: Outcome, layer: int, pooling: str) -> float:
    return float((true_ranks(outcome.head(layer, pooling).scores, outcome.labels) == 0).mean())


def test_the_layer_that_knows_is_chosen_and_the_others_are_not_better_than_they_can_be(outcome: Outcome) -> None:
    assert outcome.chosen[0] == 1
    assert top1(outcome, 1, "average") == top1(outcome, 1, "frames") == 1.0
    assert top1(outcome, 0, "average") < 0.6  # codes alone: the picture is the same in every frame


def test_one_frame_says_nothing_about_motion(outcome: Outcome) -> None:
    assert top1(outcome, 1, ONE_FRAME) <= 0.4 and top1(outcome, 0, ONE_FRAME) < 0.5  # chance is 0.25


def test_every_layer_and_pooling_has_a_result_over_every_test_source(outcome: Outcome) -> None:
    assert [(head.layer, head.pooling) for head in outcome.heads] == [
        (layer, pooling) for layer in (0, 1) for pooling in ("average", "frames", "attention", ONE_FRAME)
    ]
    for head in outcome.heads:
        assert head.scores.shape == (60, 4)
        np.testing.assert_allclose(head.scores.sum(1), 1, atol=1e-5)
    assert outcome.counts["fitted"] + outcome.counts["held_out"] == 120


def test_the_backbone_sees_start_and_codes_and_never_the_end(moving: Dataset) -> None:
    backbone = Knowing()
    probe(subject(backbone), moving, replace(SETTINGS, poolings=("average",)))
    seen = torch.cat(backbone.seen)
    assert seen.shape == (180, 1 + FRAMES * 16)
    assert (seen[:, 0] == ids.VIDEO_START).all() and seen[:, 1:].min() >= ids.CODE_OFFSET


def test_the_same_seed_gives_the_same_numbers_and_another_another_choice(moving: Dataset, outcome: Outcome) -> None:
    again = probe(subject(Knowing()), moving, SETTINGS)
    for a, b in zip(outcome.heads, again.heads, strict=True):
        np.testing.assert_array_equal(a.scores, b.scores)
    views = views_of(Dataset(moving.store.uri, split="train"), moving.labels(), FRAMES, 1, 1)
    assert (held_out(views, 0.2, 0) != held_out(views, 0.2, 1)).any()


def test_cached_features_are_used_and_give_the_same_numbers(moving: Dataset, tmp_path: Path) -> None:
    settings, backbone = replace(SETTINGS, poolings=("average", "frames")), Knowing()
    first = probe(subject(backbone), moving, settings, cache=tmp_path)
    passes = len(backbone.seen)
    second = probe(subject(backbone), moving, settings, cache=tmp_path)
    assert len(backbone.seen) == passes > 0
    assert len(list(tmp_path.iterdir())) == 2  # one file for each split, no scraps
    for a, b in zip(first.heads, second.heads, strict=True):
        np.testing.assert_array_equal(a.scores, b.scores)
    other = replace(subject(backbone), weights="other weights")
    probe(other, moving, settings, cache=tmp_path)
    assert len(backbone.seen) > passes


def test_attention_heads_are_the_same_whether_token_features_fit_into_memory_or_not(
    moving: Dataset, outcome: Outcome
) -> None:
    backbone = Knowing()
    anew = probe(subject(backbone), moving, SETTINGS, memory=0)
    assert sum(map(len, backbone.seen)) > (FAST.epochs + 1) * 96
    for layer in (0, 1):
        kept = outcome.head(layer, "attention").scores
        np.testing.assert_allclose(anew.head(layer, "attention").scores, kept, atol=1e-6)


def test_channel_statistics_of_a_pass_are_those_of_all_positions(moving: Dataset) -> None:
    views = views_of(Dataset(moving.store.uri, split="val"), moving.labels(), FRAMES, 1, 1)
    run = Pass(Knowing(), [0], USED, "cpu")
    tokens = TokenFeatures(views, run, 1 << 30)
    features = []
    for numbers, found in run.over(views, batch=7):
        tokens.add(numbers, found)
        features.append(found[0])
    flat = torch.cat(features).flatten(0, 1)
    mean, variance = tokens.statistics(0)
    torch.testing.assert_close(mean, flat.mean(0), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(variance, flat.var(0, unbiased=False), atol=1e-6, rtol=1e-5)


@pytest.fixture(scope="module")
def llama() -> Llama:
    model = Llama(ModelConfig("t", dim=16, layers=2, heads=2, mlp_hidden=32), USED)
    return model.requires_grad_(False)


def test_the_control_is_what_the_model_makes_of_one_frame_alone(moving: Dataset, llama: Llama) -> None:
    views = views_of(Dataset(moving.store.uri, split="val"), moving.labels(), FRAMES, 1, 1)
    for by_frame in (True, False):
        pooled = Pooled(views, [0, 2], by_frame)
        for numbers, features in Pass(llama, [0, 2], USED, "cpu").over(views):
            pooled.add(numbers, features)
        one = torch.from_numpy(np.stack([views.ids(i)[: 1 + 16] for i in range(len(views))]))
        alone = llama.features(one, [0, 2])
        for layer in (0, 2):
            expected = alone[layer][:, 1:].mean(1)
            found = torch.from_numpy(pooled.matrix(layer, ONE_FRAME).copy())
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_average_is_the_mean_of_all_code_positions(moving: Dataset, llama: Llama) -> None:
    views = views_of(Dataset(moving.store.uri, split="val"), moving.labels(), FRAMES, 1, 1)
    run = Pass(llama, [1], USED, "cpu")
    matrices = []
    for by_frame in (True, False):
        pooled = Pooled(views, [1], by_frame)
        for numbers, features in run.over(views):
            pooled.add(numbers, features)
        matrices.append(pooled.matrix(1, "average"))
    every = torch.from_numpy(np.stack([views.ids(i) for i in range(len(views))]))
    expected = llama.features(every, [1])[1][:, 1:].mean(1).numpy()
    for matrix in matrices:
        np.testing.assert_allclose(matrix, expected, atol=1e-5)


# Which windows there are


def labelled(folder: Path, items: Collection[Video | Image], **settings: int) -> Dataset:
    videos = [item for item in items if isinstance(item, Video)]
    images = [item for item in items if isinstance(item, Image)]
    return Dataset(write_tokens(folder / "set", videos, images, **settings))


def counting(frames: int) -> np.ndarray:
    """Codes [frames, 1, 1] that number the frames."""
    return np.arange(frames).reshape(-1, 1, 1)


def frames_of(views: Views) -> list[list[int]]:
    return [(views.ids(i)[1:] - ids.CODE_OFFSET).tolist() for i in range(len(views))]


def test_windows_are_spread_evenly_over_a_source_and_no_more_than_asked(tmp_path: Path) -> None:
    dataset = labelled(tmp_path, [Video("a", counting(13), label=0)])
    labels = dataset.labels()
    assert frames_of(views_of(dataset, labels, 4, 1, 10)) == [[0, 1, 2, 3], [4, 5, 6, 7], [9, 10, 11, 12]]
    assert frames_of(views_of(dataset, labels, 4, 1, 2)) == [[0, 1, 2, 3], [9, 10, 11, 12]]
    assert frames_of(views_of(dataset, labels, 4, 1, 1)) == [[4, 5, 6, 7]]
    assert frames_of(views_of(dataset, labels, 4, 3, 10)) == [[1, 4, 7, 10]]


def test_no_window_crosses_a_run_and_every_crop_has_its_windows(tmp_path: Path) -> None:
    dataset = labelled(tmp_path, [Video("a", counting(10), label=0, views=2, runs=(6, 4))])
    views = views_of(dataset, dataset.labels(), 4, 1, 10)
    assert frames_of(views) == [[1, 2, 3, 4], [6, 7, 8, 9], [2, 3, 4, 5], [7, 8, 9, 10]]  # view 1 holds codes plus 1
    assert views.sources == ["a"] and views.owner.tolist() == [0, 0, 0, 0]


def test_a_source_without_a_full_window_repeats_its_last_frame_and_is_counted(tmp_path: Path) -> None:
    dataset = labelled(tmp_path, [Video("a", counting(3), label=0), Video("b", counting(5), label=1)])
    views = views_of(dataset, dataset.labels(), 5, 1, 10)
    assert frames_of(views) == [[0, 1, 2, 2, 2], [0, 1, 2, 3, 4]]
    assert views.short == 1


def test_sources_without_a_label_are_left_out(tmp_path: Path) -> None:
    dataset = labelled(tmp_path, [Video("a", counting(5), label=3), Video("b", counting(5))])
    labels = {source: label for source, label in dataset.labels().items() if label is not None}
    views = views_of(dataset, labels, 5, 1, 10)
    assert views.sources == ["a"] and views.labels.tolist() == [3]
    with pytest.raises(UserError, match="no source of this split has a label"):
        views_of(dataset, {}, 5, 1, 10)


def test_images_are_probed_as_one_frame_with_their_own_start(tmp_path: Path) -> None:
    train, val = still_images(40), still_images(20, seed=1)
    held = [Image(f"val/{image.key}", image.codes, "val", image.label) for image in val]
    dataset = labelled(tmp_path, [*train, *held])
    views = views_of(dataset, dataset.labels(), 1, 1, 10)
    assert views.ids(0)[0] == ids.IMAGE_START and len(views.ids(0)) == 17
    with pytest.raises(UsageError, match=r"images among .* \(60 of 60\) have one frame, not 8; give --frames 1"):
        views_of(dataset, dataset.labels(), 8, 1, 10)
    found = probe(subject(Knowing()), dataset, replace(SETTINGS, frames=1, layers=(0,)))
    assert [head.pooling for head in found.heads] == ["average", "attention"]  # means of one frame are all the same
    assert found.settings.protocol == "probe@1f"


def test_a_stride_is_asked_in_source_frames(tmp_path: Path) -> None:
    dataset = labelled(tmp_path, [Video("a", counting(9), label=0)], stride=4)
    assert [stored_stride(dataset, stride) for stride in (None, 4, 12)] == [1, 1, 3]
    with pytest.raises(UsageError, match="every 4th frame: stride 6"):
        stored_stride(dataset, 6)


def test_an_id_that_the_model_does_not_know_is_named_with_its_source(tmp_path: Path, moving: Dataset) -> None:
    with pytest.raises(UserError, match=r"train/0000.mp4: id \d+ is outside the model's 5"):
        probe(replace(subject(Knowing()), used_ids=5), moving, SETTINGS)


# Choosing


@given(st.lists(st.integers(0, 4), min_size=2, max_size=80), st.floats(0.05, 0.9), st.integers(0, 9))
def test_every_class_keeps_a_source_to_fit_and_gives_one_to_choose_on(
    labels: list[int], share: float, seed: int
) -> None:
    views = sources(labels)
    inside = held_out(views, share, seed)
    for label in set(labels):
        members = np.array(labels) == label
        assert (members & ~inside).any()
        assert (members & inside).any() == (members.sum() > 1)


def test_the_order_of_a_dataset_does_not_decide_who_is_held_out() -> None:
    labels = [i % 3 for i in range(60)]
    views = sources(labels)
    turned = replace(views, sources=views.sources[::-1], labels=views.labels[::-1])
    assert (held_out(views, 0.2, 0) == held_out(turned, 0.2, 0)[::-1]).all()


def sources(labels: list[int]) -> Views:
    """Sources without windows."""
    none = np.empty(0, np.int64)
    return Views(None, [f"s{i}" for i in range(len(labels))], np.array(labels), none, none, none, 1, 1, 0)  # type: ignore[arg-type]


def test_a_sources_score_is_the_mean_of_softmax_over_its_windows() -> None:
    windows = np.log(np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]))
    scores = source_scores(windows, np.array([1, 1, 0]), 2)
    np.testing.assert_allclose(scores, [[0.5, 0.5], [0.55, 0.45]], atol=1e-6)


@given(st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=1, max_size=9))
def test_rank_zero_is_the_class_that_scores_highest(rows: list[list[int]]) -> None:
    scores = np.array(rows, np.float32)
    for label in range(3):
        ranks = true_ranks(scores, np.full(len(rows), label))
        assert ((ranks == 0) == (scores.argmax(1) == label)).all()
        assert (ranks < 3).all()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
