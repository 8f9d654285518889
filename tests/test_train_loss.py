"""Loss by position: what an independent sum finds; a trained model beats what is trivial; one picture."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from token_world import moving_videos, write_tokens
from train_toy import Ended, call, command_line, trained

from toto import Dataset
from toto.train.baselines import fit
from toto.train.held_out import held_out
from toto.train.load import load_model
from toto.train.watch.metrics import read_metrics

CODES, FRAMES, GRID = 16, 8, (2, 2)
RECIPE = {
    "frames": FRAMES,
    "steps": 100,
    "learning_rate": 0.01,
    "warmup_steps": 10,
    "micro_sequences": 64,
    "validate_every": 100,
    "validation_sequences": 32,
    "checkpoint_every": 100,
    "log_every": 50,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four codes that move, each video as long as a window: frames from the third on follow from those before."""
    shape: dict[str, Any] = {"grid": GRID, "vocab_size": CODES, "frames": FRAMES}
    videos = [*moving_videos(400, seed=1, **shape), *moving_videos(32, "val", seed=2, **shape)]
    return write_tokens(tmp_path_factory.mktemp("world") / "set", videos, vocab_size=CODES)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(data, tmp_path_factory.mktemp("run") / "run", **RECIPE)


@pytest.fixture(scope="module")
def found(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The result of the command, and its folder."""
    out = tmp_path_factory.mktemp("out")
    ended = measure(run, out, "--baselines")
    assert ended.code == 0, ended.stderr
    value = json.loads(ended.stdout.splitlines()[-1])
    assert json.loads((out / "loss_by_position.json").read_text()) == value
    return value, out


def measure(run: Path, out: Path, *more: str) -> Ended:
    return call(["loss-by-position", "--ckpt", str(run), "--out", str(out), "--json", *more], out / "said")


def codes_of(data: Path, split: str) -> np.ndarray:
    """int [videos, frames, cells], read without any stream."""
    rows = [row.record.tokens[1:-1].astype(int) - 4 for row in Dataset(data, split=split).rows()]
    return np.stack(rows).reshape(len(rows), FRAMES, GRID[0] * GRID[1])


def test_losses_are_those_of_an_independent_sum(run: Path, data: Path, found: tuple[dict[str, Any], Path]) -> None:
    value, _ = found
    codes = codes_of(data, "val")
    ids = torch.from_numpy(codes.reshape(len(codes), -1) + 4)
    inputs = torch.cat([torch.ones(len(ids), 1, dtype=torch.int64), ids[:, :-1]], 1)  # [start] t1 … without the last
    logits = load_model(run).model(inputs).double().numpy()
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    losses = -np.take_along_axis(log_p, ids.numpy()[..., None], 2).reshape(codes.shape)
    assert value["sequences"] == len(codes) == 32
    assert value["model"] == pytest.approx(losses.mean(), abs=1e-5)
    assert value["by_frame"] == pytest.approx(losses.mean((0, 2)).tolist(), abs=1e-5)
    assert np.array(value["grid"]).reshape(FRAMES, -1) == pytest.approx(losses.mean(0), abs=1e-5)


def test_validation_during_training_is_the_same_loss(run: Path, found: tuple[dict[str, Any], Path]) -> None:
    (line,) = [line for line in read_metrics(run) if "validation_loss" in line]
    assert line["validation_loss"] == pytest.approx(found[0]["model"], abs=1e-6)
    assert line["validation_by_frame"] == pytest.approx(found[0]["by_frame"], abs=1e-5)


def test_baselines_are_those_of_an_independent_sum(data: Path, found: tuple[dict[str, Any], Path]) -> None:
    value, _ = found
    training, held_out = codes_of(data, "train"), codes_of(data, "val")
    counts = 1 + np.array([(training == code).sum() for code in range(CODES)])
    p = counts / counts.sum()
    assert value["unigram"] == pytest.approx(-np.log(p[held_out]).mean(), rel=1e-9)
    grid = np.arange(1, 1000) / 1000
    share = grid[np.argmin([copy_losses(training, p, share)[:, 1:].mean() for share in grid])]
    assert value["copy_share"] == pytest.approx(share, abs=1e-3)
    losses = copy_losses(held_out, p, value["copy_share"])
    assert value["copy"] == pytest.approx(losses.mean(), rel=1e-9)
    assert value["copy_by_frame"] == pytest.approx(losses.mean((0, 2)).tolist(), rel=1e-9)


def copy_losses(codes: np.ndarray, p: np.ndarray, share: float) -> np.ndarray:
    """float64, of the shape of the codes."""
    mixed = share * (codes[:, 1:] == codes[:, :-1]) + (1 - share) * p[codes[:, 1:]]
    return -np.log(np.concatenate([p[codes[:, :1]], mixed], 1))


@pytest.mark.parametrize("stays", [0.0, 0.3, 0.9, 1.0])
def test_the_share_of_copying_is_the_likeliest_one(stays: float) -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, CODES, (20, FRAMES, 4))
    for t in range(1, FRAMES):
        same = rng.random((20, 4)) < stays
        codes[:, t] = np.where(same, codes[:, t - 1], codes[:, t])
    fitted = fit(codes, CODES)
    p = np.exp(fitted.log_unigram)
    grid = np.arange(1, 1000) / 1000
    best = grid[np.argmin([copy_losses(codes, p, share).mean() for share in grid])]
    assert fitted.copy_share == pytest.approx(best, abs=2e-3)
    assert np.stack([fitted.copy(c) for c in codes]) == pytest.approx(copy_losses(codes, p, fitted.copy_share))


def test_no_code_is_impossible_and_no_sequences_are_refused() -> None:
    fitted = fit([np.zeros((2, 4), int)], CODES)
    assert np.isfinite(fitted.copy(np.arange(8).reshape(2, 4))).all()
    with pytest.raises(ValueError, match="no training sequences"):
        fit([], CODES)


def test_a_trained_model_beats_what_is_trivial(found: tuple[dict[str, Any], Path]) -> None:
    value, _ = found
    for name in ("unigram", "copy"):
        better = value[f"better_than_{name}"]
        assert better["mean"] == pytest.approx(value[name] - value["model"], abs=1e-6) and better["mean"] > 0.5
        assert 0.5 < better["interval"][0] < better["mean"] < better["interval"][1]
    assert value["by_frame"][0] > 1 and max(value["by_frame"][3:]) < 0.3, "only the first frames are a surprise"


def test_the_picture_is_a_png(found: tuple[dict[str, Any], Path]) -> None:
    picture = (found[1] / "loss_by_position.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n") and len(picture) > 10_000


def test_bf16_is_close_to_fp32(run: Path, tmp_path: Path, found: tuple[dict[str, Any], Path]) -> None:
    ended = measure(run, tmp_path, "--precision", "bf16", "--micro", "5")
    value = json.loads(ended.stdout.splitlines()[-1])
    assert value["model"] == pytest.approx(found[0]["model"], abs=0.02) and value["model"] != found[0]["model"]


def test_shards_of_another_tokenizer_are_refused(run: Path, tmp_path: Path) -> None:
    videos = moving_videos(4, "val", grid=GRID, vocab_size=CODES)
    other = write_tokens(tmp_path / "other", videos, vocab_size=CODES, tokenizer_id="f" * 64)
    ended = measure(run, tmp_path, "--data", str(other))
    assert ended.failed(1, f"{other} was made with dct (id ffffffffffff)", "take shards of that tokenizer"), ended


def test_a_dataset_that_moved_or_was_made_anew_is_told_and_data_says_where_it_is(
    run: Path, data: Path, tmp_path: Path
) -> None:
    moved = data.rename(data.with_name("moved"))
    try:
        ended = measure(run, tmp_path)
        assert ended.failed(1, "no dataset there (no dataset.json)", str(run), "--data"), ended.stderr
        value = measure(run, tmp_path / "a", "--data", str(moved))
        write_tokens(
            data, moving_videos(4, "val", grid=GRID, vocab_size=CODES), vocab_size=CODES, tokenizer_id="f" * 64
        )
        other = measure(run, tmp_path)
        again = call(command_line(data, run, **RECIPE), run)
    finally:
        shutil.rmtree(data, ignore_errors=True)
        moved.rename(data)
    assert value.code == 0, value.stderr
    told = (f"0 snapshots with id '{Dataset(data).dataset_id}'", "it holds another dataset (id ", "dct ffffffffffff")
    assert other.failed(1, *told, "--data"), other.stderr
    assert again.failed(1, *told, "give it back", "choose another --out"), again.stderr


def test_data_may_be_a_name_of_pipelines_yaml(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = tmp_path / "shards" / "demo" / "dct-512-64"
    named.parent.mkdir(parents=True)
    named.symlink_to(data)
    monkeypatch.setenv("TOTO_DATA", str(tmp_path / "shards"))
    stream = held_out(load_model(run), "demo", "val", "video")
    assert [(part.name, part.uri) for part in stream.recipe.parts] == [("demo", str(named))]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--kind", "image"], "trained on no image sequences"),
        (["--split", "test"], "test"),
        (["--ckpt", "."], "no run"),
    ],
)
def test_what_cannot_be_measured_is_told(more: list[str], said: str, run: Path, tmp_path: Path) -> None:
    ended = measure(run, tmp_path, *more)
    assert ended.code in (1, 2) and ended.failed(ended.code, said), ended.stderr
    assert not (tmp_path / "loss_by_position.json").exists()
