"""Intervals, results on disk, comparisons, the report and the command line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pytest
from click.testing import CliRunner
from token_world import moving_videos, write_tokens

from toto import Dataset
from toto.config import ModelConfig
from toto.errors import UsageError, UserError
from toto.evaluate import cli, probe_task
from toto.evaluate.compare import compare, side, within
from toto.evaluate.curve import DARK, draw_curve
from toto.evaluate.interval import paired_bootstrap, wilson
from toto.evaluate.outcome import HeadResult, Outcome
from toto.evaluate.report import write_report
from toto.evaluate.results import Result, read_result, write_result
from toto.evaluate.settings import ONE_FRAME, ProbeSettings
from toto.train.load import Loaded
from toto.train.models import make_model
from toto.train.models.llama import Llama

CLASSES = ["left", "right", "up", "down", "near", "far", "cw", "<b>ccw</b>"]
ACCURACY = {"average": (0.2, 0.5, 0.8, 0.6), "frames": (0.25, 0.6, 0.9, 0.7), "attention": (0.2, 0.6, 0.85, 0.8)}
FACTS = {
    "checkpoint": {"name": "demo/step-000000600", "path": "runs/demo/step-000000600", "id": "c" * 64, "step": 600}
    | {"model": "tiny", "layers": 3, "tokenizer": "t" * 16},
    "dataset": {"uri": "data/demo/dct-512-64", "id": "d" * 64, "tokenizer": "dct"},
    "made_by": {"toto": "0.1.0", "torch": "2.13.0", "device": "cpu", "seconds": 21.5},
}


def scores(right: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Scores that are highest at the label where `right`, at the next class elsewhere."""
    table = np.full((len(labels), len(CLASSES)), 0.05, np.float32)
    table[np.arange(len(labels)), np.where(right, labels, (labels + 1) % len(CLASSES))] = 0.65
    return table


def outcome_of(count: int = 200, seed: int = 0, prefix: str = "val") -> Outcome:
    """A made-up probe with these accuracies; layer 2 with frames is chosen."""
    rng = np.random.default_rng(seed)
    labels, luck = np.arange(count) % len(CLASSES), rng.uniform(size=count)
    heads = [
        HeadResult(layer, pooling, None if pooling == "attention" else 0.01, share, 1.0, scores(luck < share, labels))
        for pooling, shares in {**ACCURACY, ONE_FRAME: (0.12, 0.2, 0.15, 0.12)}.items()
        for layer, share in enumerate(shares)
    ]
    counts = dict.fromkeys(("fitted", "held_out", "train_windows", "test_windows", "train_short", "test_short"), 7)
    names = [f"{prefix}/{i:03d}.mp4" for i in range(count)]
    settings = ProbeSettings(stride=4)
    return Outcome(settings, list(range(8)), names, labels, heads, (2, "frames"), 0, {**counts, "test": count})


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return write_result(tmp_path_factory.mktemp("result") / "A", outcome_of(), FACTS, CLASSES)


def test_wilson_is_that_of_the_tables() -> None:
    assert wilson(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert wilson(0, 10) == pytest.approx((0, 0.2775328), abs=1e-6)
    low, high = wilson(10, 10)
    assert low == pytest.approx(0.7224672, abs=1e-6) and high == pytest.approx(1)


def test_a_paired_interval_is_as_wide_as_the_spread_of_the_pairs_says() -> None:
    rng = np.random.default_rng(0)
    hard = rng.uniform(size=500)
    a, b = hard + rng.normal(0.05, 0.1, 500), hard
    mean, (low, high), above = paired_bootstrap(a, b)
    half = 1.96 * (a - b).std() / 500**0.5
    assert mean == pytest.approx((a - b).mean())
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.1 * half)
    assert above > 0.999
    assert paired_bootstrap(a, b) == paired_bootstrap(a, b)


def test_equal_scores_have_no_difference() -> None:
    assert paired_bootstrap(np.ones(9), np.ones(9)) == (0.0, (0.0, 0.0), 0.5)


def test_a_result_says_what_was_chosen_with_its_interval(result: Result) -> None:
    value = json.loads((result.path / "result.json").read_text())
    assert value == read_result(result.path).value
    assert value["protocol"] == "probe@8f-stride4"
    assert value["chosen"] == {"layer": 2, "pooling": "frames", "penalty": 0.01, "held_out_top1": 0.9}
    assert value["top1"] == pytest.approx(0.9, abs=0.07)
    assert value["interval"] == list(wilson(round(200 * value["top1"]), 200))
    assert value["chance"] == 1 / 8 and value["majority"] == 25 / 200
    assert sorted(path.name for path in result.path.iterdir()) == ["predictions.parquet", "result.json"]


def test_predictions_hold_every_source_of_every_head(result: Result) -> None:
    table = result.predictions(2, "frames")
    assert table["source"].to_pylist() == [f"val/{i:03d}.mp4" for i in range(200)]
    right = np.array(table["prediction"]) == np.array(table["label"])
    assert right.mean() == result.value["top1"]
    assert ((np.array(table["rank"]) == 0) == right).all()
    assert set(np.array(table["probability"])[right].round(2)) == {np.float32(0.65)}


def test_compare_finds_the_difference_of_two_layers(result: Result) -> None:
    found = compare(side(result), side(result, layer=0))
    assert (found.b.layer, found.b.pooling) == (0, "frames")  # of layer 0 the best on held-out sources
    assert found.difference == pytest.approx(found.values[0] - found.values[1])
    assert 0.5 < found.interval[0] < found.difference < found.interval[1] and found.verdict == "a is better"
    back = compare(side(result, layer=0), side(result))
    assert back.interval[0] == pytest.approx(-found.interval[1], abs=0.02) and back.verdict == "b is better"


def test_a_result_is_held_against_its_embeddings_and_its_control(result: Result) -> None:
    pairs = {(found.b.layer, found.b.pooling): found.verdict for _, found in within(result)}
    assert pairs == {(0, "frames"): "a is better", (1, ONE_FRAME): "a is better"}


def test_results_on_other_sources_are_not_subtracted(result: Result, tmp_path: Path) -> None:
    other = write_result(tmp_path / "B", outcome_of(prefix="test"), FACTS, CLASSES)
    with pytest.raises(UserError, match="0 sources with the same label in both, of 200 and 200"):
        compare(side(result), side(other))
    with pytest.raises(UsageError, match="no such head.*0 attention"):
        side(result, layer=7)


def test_a_folder_without_a_result_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no result.json; toto-eval probe writes one"):
        read_result(tmp_path)
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(UserError, match="damaged, not JSON"):
        read_result(tmp_path)
    (tmp_path / "result.json").write_text('{"format": 99}')
    with pytest.raises(UserError, match="not of format 1"):
        read_result(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"top1": "<script>alert(1)</script>"},
        {"heads": [{"layer": "<b>1", "pooling": "average"}]},
        {"heads": [{"layer": 1, "pooling": "<script>"}]},
        {"chosen": {"layer": 99, "pooling": "average"}},
        {"counts": {"test": "<b>"}},
        {"classes": "none"},
    ],
)
def test_a_strangers_result_that_is_none_is_refused(result: Result, tmp_path: Path, change: dict[str, Any]) -> None:
    value = json.loads((result.path / "result.json").read_text())
    (tmp_path / "result.json").write_text(json.dumps(value))
    read_result(tmp_path)
    (tmp_path / "result.json").write_text(json.dumps(value | change))
    with pytest.raises(UserError, match="damaged, or not written"):
        read_result(tmp_path)


def test_the_curve_is_a_picture_in_both_themes(result: Result) -> None:
    light, dark = draw_curve(result), draw_curve(result, DARK)
    assert light != dark and all(png.startswith(b"\x89PNG") for png in (light, dark))


def test_the_report_shows_curves_tables_differences_and_ids(result: Result, tmp_path: Path) -> None:
    second = write_result(tmp_path / "B", outcome_of(seed=1), FACTS, CLASSES)
    write_report([result, second], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "http" not in page.replace("http-equiv", "") and "<script" not in page
    shown = browser.look(tmp_path / "report.html")
    assert len(shown["pictures"]) == 2 and all(loaded and width > 0 for loaded, width, *_ in shown["pictures"])
    for said in (
        "Every head",
        "against the embeddings",
        "against one frame",
        "<b>ccw</b>",
        "d" * 64,
        "probe@8f-stride4",
    ):
        assert said in shown["text"], said
    assert browser.look(tmp_path / "report.html", width=600)["wide"] <= 600


# The command line


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """An untrained model beside a dataset of its tokenizer."""
    folder = tmp_path_factory.mktemp("run")
    videos = [*moving_videos(40, frames=4), *moving_videos(24, "val", frames=4, seed=1)]
    dataset = Dataset(write_tokens(folder / "set", videos))
    config = ModelConfig("tiny", dim=16, layers=2, heads=2, mlp_hidden=32)
    return Loaded(
        model=Llama(config, 68).requires_grad_(False),
        config=config,
        used_ids=68,
        tokenizer=dataset.tokenizer,
        context=64,
        frames=4,
        stride=4,
        grid=(4, 4),
        step=7,
        path=folder / "runs" / "tiny" / "step-000000007",
        id="c" * 64,
        recipe={},
    )


def run(monkeypatch: pytest.MonkeyPatch, loaded: Loaded, *words: str | Path) -> tuple[str, BaseException | None]:
    monkeypatch.setattr(probe_task, "load_model", lambda path, device: loaded)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    done = CliRunner().invoke(cli.cli, [*map(str, words)], standalone_mode=False)
    return done.output, done.exception


def test_a_model_without_attention_is_probed_by_attention_too(
    monkeypatch: pytest.MonkeyPatch, loaded: Loaded, tmp_path: Path
) -> None:
    config = ModelConfig("ssm", arch="mamba", dim=130, layers=1)  # two heads of 65 channels
    mamba = replace(loaded, model=make_model(config, 68, seed=0).requires_grad_(False), config=config)
    words = ("--ckpt", "x", "--data", loaded.path.parents[2] / "set", "--frames", "4", "--epochs", "1", "--views", "1")
    output, error = run(monkeypatch, mamba, "probe", *words, "--poolings", "attention", "--out", tmp_path / "probe")
    assert error is None, output
    assert (tmp_path / "probe" / "result.json").exists()


def test_probe_compare_and_report_from_the_command_line(
    monkeypatch: pytest.MonkeyPatch, loaded: Loaded, tmp_path: Path
) -> None:
    data = loaded.path.parents[2] / "set"
    words = ("--ckpt", "x", "--data", data, "--frames", "4", "--epochs", "2", "--device", "cpu")
    output, error = run(monkeypatch, loaded, "probe", *words, "--json")
    assert error is None, output
    value = json.loads(output.splitlines()[-1])
    (out,) = (loaded.path.parent / "eval").glob("probe-4f-stride4-step-000000007-world-*")
    assert value["out"] == str(out) and value["protocol"] == "probe@4f-stride4" and len(value["heads"]) == 12
    assert {path.name for path in out.iterdir()} == {"result.json", "predictions.parquet", "curve.png"}
    assert "chosen on 8 held-out training sources" in output
    output, error = run(monkeypatch, loaded, "compare", out, out, "--pooling-b", ONE_FRAME, "--json")
    assert error is None and json.loads(output.splitlines()[-1])["b"]["pooling"] == ONE_FRAME
    output, error = run(monkeypatch, loaded, "report", out, "--out", tmp_path / "page.html")
    assert error is None and (tmp_path / "page.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--frames", "8"), "--frames 8: .* was trained on 64 positions, 4 frames at most"),
        (("--frames", "4", "--layers", "9"), "has layers 0 .embedding. to 2"),
        (("--frames", "4", "--layers", "middle"), "--layers middle: all, or numbers"),
        (("--frames", "4", "--poolings", "max"), "no pooling 'max'; known: average, frames, attention"),
        (("--frames", "4", "--stride", "6"), "every 4th frame: stride 6"),
        (("--frames", "4", "--labels", "nouns"), "no annotations 'nouns'"),
        (("--frames", "4", "--val-split", "test"), "no split 'test'; it has: train, val"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(
    monkeypatch: pytest.MonkeyPatch, loaded: Loaded, words: tuple[str, ...], said: str
) -> None:
    data = loaded.path.parents[2] / "set"
    _, error = run(monkeypatch, loaded, "probe", "--ckpt", "x", "--data", data, "--device", "cpu", *words)
    assert isinstance(error, UserError)
    with pytest.raises(UserError, match=said):
        raise error


def test_nothing_is_written_over_a_dataset(monkeypatch: pytest.MonkeyPatch, loaded: Loaded, result: Result) -> None:
    data = loaded.path.parents[2] / "set"
    before = sorted((path, path.stat().st_mtime_ns) for path in data.rglob("*"))
    words = ("--ckpt", "x", "--data", data, "--frames", "4", "--device", "cpu", "--out", data)
    _, refused = run(monkeypatch, loaded, "probe", *words)
    assert isinstance(refused, UsageError) and "holds a token dataset" in str(refused)
    _, refused = run(monkeypatch, loaded, "report", result.path, "--out", data / "dataset.json")
    assert isinstance(refused, UsageError) and "is a file of the dataset" in str(refused)
    assert sorted((path, path.stat().st_mtime_ns) for path in data.rglob("*")) == before


def test_a_dataset_of_another_tokenizer_is_refused(monkeypatch: pytest.MonkeyPatch, loaded: Loaded) -> None:
    other = replace(loaded, tokenizer={**loaded.tokenizer, "id": "0" * 16})
    data = loaded.path.parents[2] / "set"
    _, error = run(monkeypatch, other, "probe", "--ckpt", "x", "--data", data, "--frames", "4", "--device", "cpu")
    assert isinstance(error, UserError) and "(id 000000000000)" in str(error)


def test_list_names_the_tasks() -> None:
    done = CliRunner().invoke(cli.cli, ["list", "--json"], standalone_mode=False)
    assert list(json.loads(done.output.splitlines()[-1])) == ["probe"]
