"""A plan says what a run costs before anything is spent: parameters, compute, memory, days, epochs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from token_world import moving_videos, still_images, write_tokens

from toto.errors import UserError
from toto.train.cli import cli


def plan(*arguments: str) -> tuple[dict[str, Any], str]:
    """The JSON value of a plan, and what a person reads."""
    done = CliRunner().invoke(cli, ["plan", *arguments, "--json"], catch_exceptions=False, standalone_mode=False)
    *text, last = done.stdout.splitlines()
    return json.loads(last), "\n".join(text)


def refused(*arguments: str) -> UserError:
    done = CliRunner().invoke(cli, ["plan", *arguments], standalone_mode=False)
    assert isinstance(done.exception, UserError)
    return done.exception


@pytest.fixture(autouse=True)
def nothing_made_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOTO_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("size", "parameters", "printed"),
    [("base", 119_559_936, "119.6"), ("large", 276_861_952, "276.9"), ("1b", 1_147_242_496, "1147.2")],
)
def test_parameters_are_those_of_table_1(size: str, parameters: int, printed: str) -> None:
    value, text = plan("--size", size)
    assert value["parameters"] == sum(value["parameters_by_group"].values()) == parameters
    assert f"{parameters / 1e6:.1f}" == printed and f"{parameters:,}" in text
    assert (value["context"], value["used_ids"], value["tokens"]) == (4096, 8196, 2**20 * 10**6)


def test_the_keys_that_programs_read_are_there() -> None:
    value, text = plan("--size", "large")
    assert 4 * 4 * value["parameters"] < value["memory_bytes"] < 80e9
    assert value["macs_palm"] - value["macs"] == 16 * 1024 * 4096  # layers × width × context
    assert value["training_flops"] == 6 * value["macs"] * value["tokens"]
    assert all(word in text for word in ("parameters", "MACs", "memory", "checkpoint", "H100-days", "epochs"))


@pytest.mark.parametrize(
    ("name", "epochs"), [("imagenet21k", 58.3), ("ego4d", 1.02), ("k600", 2.54), ("howto100m", 0.246)]
)
def test_epochs_of_the_published_datasets(name: str, epochs: float) -> None:
    value, text = plan("--size", "large")
    (source,) = [source for source in value["sources"] if source["name"] == name]
    assert source["epochs_published"] == pytest.approx(epochs, rel=0.01)
    assert source["epochs_published_strided"] == pytest.approx(epochs * (1 if name == "imagenet21k" else 4), rel=0.01)
    assert source["epochs"] is None and "no shards yet" in text
    assert sum(source["share"] for source in value["sources"]) == pytest.approx(1)


def test_a_time_that_rounds_to_nothing_is_said_in_words() -> None:
    value, text = plan("--size", "tiny", "--recipe", "demo", *sets("steps=20"))
    assert value["seconds"] < 1 and "less than a second on 8 × H100" in text
    assert "H100-days" not in text and "e-0" not in text


def test_a_checkpoint_beside_the_training_takes_a_copy_in_memory() -> None:
    value, text = plan("--size", "base", "--recipe", "demo")
    assert value["checkpoint_copy_bytes"] == value["checkpoint_bytes"] and "of host memory" in text
    value, text = plan("--size", "base", "--recipe", "demo", *sets("checkpoint_async=off"))
    assert value["checkpoint_copy_bytes"] == 0 and "of host memory" not in text


def test_days_go_down_with_gpus_and_utilisation() -> None:
    one, half = plan("--size", "large")[0], plan("--size", "large", "--gpus", "16", "--mfu", "0.2")[0]
    assert one["gpu_days"] == pytest.approx(one["training_flops"] / (989e12 * 0.4) / 86_400)
    assert half["gpu_days"] == pytest.approx(2 * one["gpu_days"]) and half["seconds"] == pytest.approx(one["seconds"])
    assert one["cost"] is None


def test_cost_is_the_hours_of_all_cards_at_their_price() -> None:
    value, text = plan("--size", "large", "--gpus", "16", "--price", "2.5")
    assert value["cost"] == pytest.approx(16 * value["seconds"] / 3600 * 2.5)
    assert f"{value['cost']:,.2f} at 2.5 for a card and hour" in text


@pytest.mark.parametrize(
    ("size", "kib", "megabytes", "alone", "together"),
    [("base", 36, 151, 10.6e3, 42.3e3), ("large", 64, 268, 4.87e3, 23.5e3), ("1b", 176, 738, 1.26e3, 8.27e3)],
)
def test_generation_is_bounded_by_the_bytes_of_a_step(
    size: str, kib: int, megabytes: int, alone: float, together: float
) -> None:
    value, text = plan("--size", size, "--clips", "100")
    found = value["generation"]
    assert found["kv_bytes_per_token"] == kib * 1024
    assert found["cache_bytes"] / 1e6 == pytest.approx(megabytes, rel=0.005)  # 16 frames of 256
    assert found["tokens_per_s"]["1"] == pytest.approx(alone, rel=0.01)  # 3.35 TB/s of an H100 over weights and cache
    assert found["tokens_per_s"]["64"] == pytest.approx(together, rel=0.01)
    assert found["gpu_hours"] * 3600 == pytest.approx(100 * 4096 / found["tokens_per_s"]["64"])
    assert found["decode_flops_per_token"] == 2 * value["macs"] > found["prefill_flops"] / 2048
    assert "100 clips" in text and "of cache a token" in text


def test_mamba_keeps_a_state_that_does_not_grow() -> None:
    found = plan("--size", "mamba")[0]["generation"]
    assert (found["kv_bytes_per_token"], found["cache_bytes"]) == (0, 42 * 2048 * (16 + 3) * 4)


def test_epochs_are_exact_where_shards_are(tmp_path: Path) -> None:
    videos = [*moving_videos(10), *moving_videos(3, "val")]
    data = write_tokens(tmp_path / "set", videos)
    more = sets("frames=4", "stride=4", "batch_tokens=640", "steps=6")
    value, text = plan("--size", "tiny", "--recipe", "demo", "--data", str(data), *more)
    (source,) = value["sources"]
    assert (value["used_ids"], value["context"]) == (68, 64)
    assert source["epochs"] == 6 * 10 / 20  # 10 sequences a step; 2 windows of 4 frames in each of 10 videos
    assert "3 epochs of what is sealed" in text


def test_epochs_of_videos_and_images_together(tmp_path: Path) -> None:
    data = write_tokens(tmp_path / "set", moving_videos(10), still_images(40))
    more = sets("frames=4", "stride=4", "batch_tokens=640", "steps=6", "kinds=all")
    (source,) = plan("--size", "tiny", "--recipe", "demo", "--data", str(data), *more)[0]["sources"]
    assert source["epochs"] == 6 * 10 / (20 + 40 / 4)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "which model"),
        (["--size", "larg"], 2, "did you mean 'large'"),
        (["--size", "large", "--gpu", "H1000"], 2, "known: B200"),
        (["--size", "large", "--data", "/nowhere"], 1, "no shards in /nowhere"),
        (["--size", "large", "--set", "recipes.pretrain.batch_tokens=100"], 2, "one sequence has 4,096 tokens"),
    ],
)
def test_what_cannot_be_planned_is_told(arguments: list[str], code: int, said: str) -> None:
    error = refused(*arguments)
    assert error.exit_code == code and said in str(error) and len(str(error).splitlines()) <= 2


def test_nothing_is_written(tmp_path: Path) -> None:
    plan("--size", "1b")
    assert not list(tmp_path.iterdir())


def sets(*keys: str) -> Sequence[str]:
    return [word for key in keys for word in ("--set", f"recipes.demo.{key}")]
