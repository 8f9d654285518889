"""Loss spikes: what leaps is skipped and told of, a new level is accepted, and a resumed run judges the same."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from train_toy import call, command_line, history, losses, same_state, state, trained, world

from toto.shards.stream import open_run
from toto.train.spikes import MEMORY, PATIENCE, WARM_UP, WINDOW, SpikeGuard
from toto.train.watch.metrics import read_metrics

CPU = torch.device("cpu")


def judged(numbers: np.ndarray, sigmas: float = 6.0, norms: np.ndarray | None = None) -> list[int]:
    """The steps that a guard skips."""
    guard = SpikeGuard(sigmas, CPU)
    norms = np.ones(len(numbers)) if norms is None else norms
    verdicts = [guard.judge(torch.tensor(loss), torch.tensor(norm)) for loss, norm in zip(numbers, norms, strict=True)]
    return [i for i, verdict in enumerate(verdicts) if verdict]


def plain(numbers: np.ndarray, sigmas: float) -> list[int]:
    """The same in Python, from the definition."""
    seen, mean, variance, recent, skipped = 0, 0.0, 0.0, 0.0, []
    for i, x in enumerate(map(float, numbers)):
        spike = not np.isfinite(x) or (seen >= WARM_UP and (x - mean) / max(variance**0.5, 0.01) > sigmas)
        recent = recent * (1 - 1 / MEMORY) + spike
        if spike and not (recent > PATIENCE and np.isfinite(x)):
            skipped.append(i)
            continue
        pace = max(1 / (seen + 1), 1 / WINDOW)
        variance = (1 - pace) * (variance + pace * (x - mean) ** 2)
        mean += pace * (x - mean)
        seen += 1
    return skipped


def falling(steps: int, seed: int = 0) -> np.ndarray:
    """A training curve: it falls, with noise."""
    return 2 + 4 * np.exp(-np.arange(steps) / 150) + 0.05 * np.random.default_rng(seed).standard_normal(steps)


def test_an_ordinary_curve_has_no_spikes() -> None:
    assert judged(falling(1000)) == []


def test_leaps_and_numbers_that_are_not_finite_are_skipped_and_leave_no_trace() -> None:
    curve = falling(400)
    wild = curve.copy()
    wild[[3, 100, 250, 251]] = np.nan, 30.0, np.inf, 20.0
    assert judged(wild) == [3, 100, 250, 251]
    spiky, calm = SpikeGuard(6.0, CPU), SpikeGuard(6.0, CPU)
    for i, loss in enumerate(wild):
        spiky.judge(torch.tensor(loss), torch.tensor(1.0))
        if i not in (3, 100, 250, 251):
            calm.judge(torch.tensor(loss), torch.tensor(1.0))
    assert torch.equal(spiky.state[2:], calm.state[2:]) and spiky.state[0] == calm.state[0]


def test_a_gradient_that_leaps_is_a_spike_too() -> None:
    norms = np.exp(0.1 * np.random.default_rng(1).standard_normal(200))
    norms[150] = 40
    assert judged(falling(200), norms=norms) == [150]


def test_a_new_level_is_accepted_after_some_patience() -> None:
    curve = np.concatenate([falling(200), falling(200) + 30])
    assert judged(curve) == list(range(200, 200 + PATIENCE))


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_batches_of_a_new_kind_are_taken_after_some_patience(share: float) -> None:
    rng = np.random.default_rng(3)
    curve = np.concatenate([falling(200), falling(800) + 30 * (rng.random(800) < share)])
    skipped = judged(curve)
    assert 0 < len(skipped) < 40 and max(skipped) < 750


@settings(max_examples=10)
@given(
    seed=st.integers(0, 10**6),
    wild=st.lists(st.tuples(st.integers(0, 299), st.sampled_from([np.nan, np.inf, 4.0, 9.0, -5.0])), max_size=30),
)
def test_what_is_skipped_is_what_the_definition_says(seed: int, wild: list[tuple[int, float]]) -> None:
    curve = falling(300, seed)
    for place, value in wild:
        curve[place] = value
    assert judged(curve.astype(np.float32)) == plain(curve.astype(np.float32), 6.0)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("world"))


SHORT = {"steps": 10, "checkpoint_every": 5, "validate_every": 0, "log_every": 5}


def test_a_batch_that_gives_nan_is_skipped_and_written_down(shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ended = call(command_line(shards, run, **SHORT), run, NAN_STEPS="4")
    assert ended.code == 0 and "step 4  skipped: loss nan" in ended.stderr, ended.stderr
    lines = {line["step"]: line for line in read_metrics(run)}
    assert lines[4]["skipped"] and lines[4]["loss"] is None and "skipped" not in lines[5]
    found = json.loads((run / "spikes" / "step-000000004.json").read_text())
    stream = open_run(run)
    batch = stream.recipe.batch_sequences
    sources = [clip["source"] for sequence in found["sequences"] for clip in sequence["clips"]]
    expected = [clip.source for g in range(3 * batch, 4 * batch) for clip in stream.sequence(g).clips]
    assert sources == expected and found["batch"] == lines[4]["batch"]
    assert all(torch.isfinite(tensor).all() for tensor in state(run).values())


def test_weights_do_not_move_in_a_skipped_step(shards: Path, tmp_path: Path) -> None:
    before = state(trained(shards, tmp_path / "three", "--stop-at", "3", **SHORT))
    run = tmp_path / "four"
    assert call(command_line(shards, run, "--stop-at", "4", **SHORT), run, NAN_STEPS="4").code == 0
    after = state(run)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items() if not name.startswith("guard"))


def test_a_run_that_gives_nothing_but_nan_ends(shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ended = call(command_line(shards, run, **SHORT), run, NAN_STEPS="1 2 3 4 5 6 7 8 9 10")
    assert ended.failed(1, "the loss is nan", "toto-shards seen"), ended.stderr


def test_a_run_that_ends_before_its_first_checkpoint_says_so(shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ended = call(command_line(shards, run, **SHORT, spike_sigmas=0), run, NAN_STEPS="2")
    assert ended.failed(1, "step 2: the loss is nan; the run stops, it has no checkpoint yet."), ended.stderr


def test_a_resumed_run_judges_as_the_undisturbed_one(shards: Path, tmp_path: Path) -> None:
    whole, halves = trained(shards, tmp_path / "whole", **SHORT), tmp_path / "halves"
    for stop in (["--stop-at", "5"], []):
        trained(shards, halves, *stop, **SHORT)
    assert history(whole) == history(halves) and len(losses(whole)) == 10
    assert same_state(halves, whole)
