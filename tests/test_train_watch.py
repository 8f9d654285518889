"""What is seen of a run while it goes on: samples that training does not notice, profiles, seconds, sinks, curves."""

import gzip
import json
import math
import os
import struct
import sys
import time
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from token_world import moving_videos, write_tokens
from train_toy import RECIPE, Command, call, command_line, history, losses, same_state, trained, world

from toto.errors import UsageError, UserError
from toto.shards.recipe import Recipe
from toto.shards.stream import Stream
from toto.train.cli import cli, ending
from toto.train.cost import Cost
from toto.train.held_out import held_out
from toto.train.load import load_model
from toto.train.parallel import Team
from toto.train.position_loss import position_loss
from toto.train.watch.clock import Clock
from toto.train.watch.curves import POINTS, read_curve
from toto.train.watch.log import RunLog
from toto.train.watch.metrics import FILE, read_metrics
from toto.train.watch.profiler import REQUEST, Profiler
from toto.train.watch.sinks import BOARD, check_sinks, open_sinks, scalars
from toto.train.watch.values import Yardstick

SAMPLED = {"tokens.npz", "generated.json", "generated.gif", "generated.png"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("world") / "set")


@pytest.fixture(scope="module")
def watched(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was sampled and profiled."""
    folder = tmp_path_factory.mktemp("watched")
    return trained(data, folder / "run", "--profile", "2", "--json", sample_every=6)


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a larger model on two datasets, with eleven held-out sequences."""
    folder = tmp_path_factory.mktemp("two")
    easy = write_tokens(folder / "easy", [*moving_videos(24, seed=1), *moving_videos(8, "val", seed=2)])
    hard = write_tokens(folder / "hard", [*moving_videos(24, seed=3), *moving_videos(6, "val", seed=4)])
    more = ("--data", str(hard), "--set", "models.tiny.dim=48")
    return trained(easy, folder / "run", *more, steps=2, validation_sequences=11)


def codes(run: Path, step: int) -> np.ndarray:
    """What the model made after a step, int64 [clips, frames, h, w]."""
    return np.load(run / "samples" / f"step-{step:09d}" / "tokens.npz")["codes"].astype(np.int64)


def told(run: Path, key: str) -> list[dict[str, Any]]:
    return [line for line in read_metrics(run) if key in line]


def test_samples_and_profiles_leave_training_as_it_is(data: Path, watched: Path, tmp_path: Path) -> None:
    plain = trained(data, tmp_path / "run")
    assert [line for line in history(watched) if "samples" not in line] == history(plain)
    assert same_state(watched, plain)


def test_samples_are_what_generate_makes_of_the_checkpoint(watched: Path, tmp_path: Path) -> None:
    assert [line["samples"] for line in told(watched, "samples")] == [f"samples/step-{n:09d}" for n in (6, 12, 18)]
    for step in (6, 18):
        ckpt, out = watched / f"step-{step:09d}", tmp_path / str(step)
        made = CliRunner().invoke(cli, ["generate", "--ckpt", str(ckpt), "--samples", "4", "--out", str(out)])
        assert made.exit_code == 0, made.output
        assert (np.load(out / "tokens.npz")["codes"] == codes(watched, step)).all()
        assert {path.name for path in (watched / "samples" / ckpt.name).iterdir()} == SAMPLED
    assert (codes(watched, 6)[:, :2] == codes(watched, 18)[:, :2]).all(), "the same prompts"
    assert (codes(watched, 6)[:, 2:] != codes(watched, 18)[:, 2:]).any(), "another model"


def test_tensorboard_holds_the_samples_as_images(watched: Path) -> None:
    board = EventAccumulator(str(watched / BOARD))
    board.Reload()
    images = {event.step: (event.height, event.width) for event in board.Images("samples")}
    with Image.open(watched / "samples" / "step-000000006" / "generated.png") as drawn:
        assert images[6] == (drawn.height, drawn.width)
    assert list(images) == [6, 12, 18]


def test_processes_that_share_the_weights_draw_what_one_draws(data: Path, watched: Path, tmp_path: Path) -> None:
    run = trained(data, tmp_path / "run", "--stop-at", "7", ranks=2, sharding="fsdp", sample_every=6)
    assert (codes(run, 6) == codes(watched, 6)).mean() > 0.9, "near-ties alone may fall otherwise"
    assert losses(run) == pytest.approx(losses(watched)[:7], abs=1e-4)


def test_a_run_goes_on_where_nothing_can_be_drawn_or_profiled(tmp_path: Path) -> None:
    only, run = write_tokens(tmp_path / "set", moving_videos(24)), tmp_path / "run"
    ended = call(command_line(only, run, "--profile", "5", sample_every=2, steps=2), run)
    assert ended.code == 0 and "no samples: " in ended.stderr and "no split 'val'" in ended.stderr
    assert "no profile: the run ended" in ended.stderr and not (run / "profiles").exists()


def test_a_profile_holds_a_trace_the_operators_and_memory(watched: Path) -> None:
    (folder,) = (watched / "profiles").iterdir()
    assert folder.name == "step-000000006"  # 3 to begin with, one to warm up, then 2
    trace = json.loads(gzip.decompress((folder / "trace.json.gz").read_bytes()))
    names = [event.get("name", "") for event in trace["traceEvents"]]
    assert len({name for name in names if name.startswith("ProfilerStep#")}) == 2 and "aten::mm" in names
    assert "aten::mm" in (folder / "operators.txt").read_text() and "MB" in (folder / "memory.txt").read_text()


def test_a_profile_is_written_when_a_file_asks_for_it(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    going = Command(command_line(data, run, steps=100_000, validate_every=0, checkpoint_every=10**6), run)
    while not told(run, "loss"):
        time.sleep(0.02)
    (run / REQUEST).write_text("1\n")
    while not list(run.glob("profiles/step-*")):
        time.sleep(0.02)
    going.process.terminate()
    assert going.ended().code == 143
    assert not (run / REQUEST).exists() and len(list(run.glob("profiles/step-*"))) == 1


def test_seconds_of_an_interval_are_parts_of_its_whole(watched: Path) -> None:
    lines = told(watched, "seconds")
    assert [line["step"] for line in lines] == list(range(2, 19, 2)), "once for each line of the log"
    for line in lines:
        wall = line["seconds"].pop("wall")
        assert {"data", "agree"} <= set(line["seconds"]) and 0 < sum(line["seconds"].values()) < wall
    said = set().union(*(line["seconds"] for line in lines))
    assert said == {"data", "agree", "log", "validation", "samples", "checkpoint", "profile"}
    whole = json.loads(watched.with_name("run.stdout").read_text().splitlines()[-1])["seconds"]
    assert said | {"wall"} == set(whole)
    assert whole["validation"] > sum(line["seconds"].get("validation", 0) for line in lines), "the last one too"


@given(st.lists(st.sampled_from(["data", "log", "agree"]), max_size=8), st.lists(st.integers(), max_size=5))
def test_a_clock_adds_up_by_name_and_forgets_what_was_taken(names: list[str], values: list[int]) -> None:
    clock = Clock()
    for name in names:
        with clock(name):
            pass
    assert list(clock.each("values", values)) == values
    spent = clock.take()
    assert set(spent) == {*names, "values"} and all(seconds >= 0 for seconds in spent.values())
    assert clock.take() == {}


def test_both_conventions_of_mfu_are_told_by_name(watched: Path) -> None:
    loaded = load_model(watched)
    c, context = loaded.config, loaded.context
    square = 12 * c.layers * c.dim * context  # PaLM, appendix B: 12·L·H·Q·T FLOPs a token, H·Q = dim
    for line in told(watched, "mfu"):
        causal, palm = line["mfu"], line["mfu_palm"]
        matrices = 6 * sum(p.numel() for n, p in loaded.model.named_parameters() if p.ndim == 2 and "table" not in n)
        matrices += 6 * c.dim * loaded.used_ids
        assert palm / causal == pytest.approx((matrices + square) / (matrices + square / 2), rel=1e-2)
    output = [watched.with_name(f"run.{name}").read_text() for name in ("stdout", "stderr")]
    assert all("causal" in text and "PaLM" in text for text in output)
    assert ending(type("Done", (), dict.fromkeys(("loss", "validation_loss", "tokens_per_s", "mfu")))) == (
        ", nothing left to do"
    )
    *_, last, value = watched.with_name("run.stdout").read_text().splitlines()
    assert f" over {json.loads(value)['validation_sequences']} sequences, " in last


def test_a_peak_below_what_training_reaches_is_raised_to_it(watched: Path) -> None:
    loaded = load_model(watched)
    yardstick = Yardstick(Cost(loaded.config, loaded.used_ids, loaded.context), peak=1.0)
    for speed, share in ((100.0, 1.0), (50.0, 0.5), (200.0, 1.0), (50.0, 0.25)):
        yardstick.saw(speed)
        assert yardstick.mfu(speed) == pytest.approx(share)


def test_held_out_losses_and_their_errors_are_told_by_source(of_two: Path) -> None:
    (line,) = told(of_two, "validation_loss")
    record = json.loads((of_two / "run.json").read_text())["validation"]
    stream, loaded = Stream(Recipe.from_json(json.dumps(record))), load_model(of_two)
    found = [stream.sequence(g) for g in range(11)]
    ids = torch.from_numpy(np.stack([sequence.tokens[:-1] for sequence in found]).astype(np.int64))
    each = loaded.model(ids[:, :-1], ids[:, 1:]).double().numpy()  # [11, positions]
    assert line["validation_loss"] == pytest.approx(each.mean(), abs=1e-5)
    assert line["validation_error"] == pytest.approx(each.mean(1).std(ddof=1) / math.sqrt(11), abs=1e-5)
    parts = np.array([sequence.part for sequence in found])
    assert line["validation_losses"] == {n: pytest.approx(each[parts == n].mean(), abs=1e-5) for n in set(parts)}
    loss = position_loss(loaded.model, stream, range(11), 4, "fp32", Team(0, 1, torch.device("cpu")))
    error = each.std(0, ddof=1) / math.sqrt(11)
    assert loss.grid_error.reshape(-1) == pytest.approx(error, abs=1e-5)
    cells = each.reshape(11, -1, 16)[:, 1:].mean(1)  # of each sequence, over the frames after the first
    assert loss.within_frame.reshape(-1) == pytest.approx(cells.mean(0), abs=1e-5)
    assert loss.within_frame_error.reshape(-1) == pytest.approx(cells.std(0, ddof=1) / math.sqrt(11), abs=1e-5)
    one = next(iter(loss.by_source))
    assert loss.by_source[one].grid.reshape(-1) == pytest.approx(each[parts == one].mean(0), abs=1e-5)


def test_a_single_sequence_has_no_standard_error(watched: Path, data: Path) -> None:
    loaded = load_model(watched)
    stream = held_out(loaded, None, "val", "video")
    found = position_loss(loaded.model, stream, range(1), 4, "fp32", Team(0, 1, torch.device("cpu")))
    value = found.as_json()
    assert value["model_error"] is value["grid_error"] is value["by_frame_error"] is None
    assert value["within_frame_error"] is None
    json.dumps(value, allow_nan=False)


@given(
    st.dictionaries(
        st.sampled_from("abc"), st.none() | st.text() | st.floats(allow_nan=False) | st.lists(st.integers(), max_size=2)
    ),
    st.dictionaries(st.sampled_from("xyz"), st.none() | st.floats(allow_nan=False)),
)
def test_scalars_are_every_number_and_nothing_else(values: dict[str, Any], parts: dict[str, Any]) -> None:
    wanted = {name: value for name, value in values.items() if isinstance(value, float)}
    wanted |= {f"losses/{name}": value for name, value in parts.items() if value is not None}
    assert dict(scalars({"step": 3, **values, "losses": parts})) == wanted


def test_a_project_of_weights_and_biases_without_its_package_is_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    done = CliRunner().invoke(cli, command_line(data, tmp_path / "run", wandb="mine"))
    assert isinstance(done.exception, UsageError) and "pip install wandb" in str(done.exception)
    assert not (tmp_path / "run" / FILE).exists()
    check_sinks(None)


def test_weights_and_biases_keeps_a_run_offline_and_goes_on_with_it(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="pip install wandb: thirteen packages, for one sink")
    run = tmp_path / "run"
    offline = {"WANDB_MODE": "offline", "HOME": str(tmp_path)}
    for stop in ("6", "12"):
        arguments = command_line(data, run, "--stop-at", stop, "--json", wandb="mine", sample_every=6)
        ended = call(arguments, run, **offline)
        assert ended.code == 0, ended.stderr
        assert json.loads(ended.stdout.splitlines()[-1])["step"] == int(stop)
    first, second = sorted((run / "wandb").glob("offline-run-*"))
    assert first.name.rsplit("-", 1)[1] == second.name.rsplit("-", 1)[1] == (run / "wandb" / "id").read_text()
    told_w = [*records(first), *records(second)]
    losses_of = {row["_step"]: row["loss"] for row in told_w if "loss" in row}
    assert losses_of == pytest.approx({line["step"]: line["loss"] for line in told(run, "loss")})
    assert [row["_step"] for row in told_w if "validation_loss" in row] == [6, 12]
    drawn = [row for row in told_w if row.get("samples/_type") == "image-file"]
    assert [row["_step"] for row in drawn] == [6, 12]
    assert all(list((run / "wandb").glob(f"offline-run-*/files/{row['samples/path']}")) for row in drawn)


def records(folder: Path) -> list[dict[str, Any]]:
    """The rows of history in a file of W&B: seven bytes, then records as LevelDB's log frames them."""
    from wandb.proto import wandb_internal_pb2

    (file,) = folder.glob("*.wandb")
    content, at, whole, rows = file.read_bytes(), 7, b"", []
    while at + 7 <= len(content):
        if 32_768 - at % 32_768 < 7:  # the rest of a block is filled up
            at += 32_768 - at % 32_768
        size, part = struct.unpack_from("<HB", content, at + 4)
        whole += content[at + 7 : at + 7 + size]
        at += 7 + size
        if part in (1, 4):  # whole, or the last of several
            record, whole = wandb_internal_pb2.Record.FromString(whole), b""
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
                rows.append({"_step": record.history.step.num, **row})
    return rows


def test_curves_are_those_of_the_logs(watched: Path, of_two: Path, tmp_path: Path) -> None:
    out = tmp_path / "figure"
    done = CliRunner().invoke(cli, ["curves", str(watched), str(of_two), "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    value = json.loads(done.output.splitlines()[-1])
    assert value == json.loads((out / "curves.json").read_text())
    one, two = value["runs"]
    assert one["training"]["loss"] == losses(watched) and one["training"]["step"] == list(range(1, 19))
    found = [(line["step"], line["validation_loss"]) for line in told(watched, "validation_loss")]
    assert list(zip(one["held_out"]["step"], one["held_out"]["loss"], strict=True)) == found
    assert one["tokens_per_step"] == RECIPE["batch_tokens"] and two["held_out"]["step"] == [2]
    assert [one["name"], two["name"]] == [str(watched), str(of_two)], "both folders are called `run`"
    assert two["parameters"] > one["parameters"] and one["flops_per_token"] < one["flops_per_token_palm"]
    with Image.open(out / "curves.png") as drawn:
        assert drawn.width > 1000 and len(drawn.getcolors(1 << 20) or []) > 50


@pytest.mark.parametrize("words", [["curves", "{run}"], ["loss-by-position", "--ckpt", "{run}"]])
def test_a_files_name_is_no_folder_for_several_files(words: list[str], watched: Path, tmp_path: Path) -> None:
    words = [word.format(run=watched) for word in words]
    done = CliRunner().invoke(cli, [*words, "--out", str(tmp_path / "x.png")])
    assert isinstance(done.exception, UsageError) and f"such as {tmp_path / 'x'}" in str(done.exception)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["curves", "loss-by-position", "generate"])
def test_results_do_not_go_into_a_dataset(command: str, watched: Path, data: Path) -> None:
    before = sorted(data.iterdir())
    words = [command, *(() if command == "curves" else ("--ckpt",)), str(watched), "--out", str(data)]
    done = CliRunner().invoke(cli, words)
    assert isinstance(done.exception, UsageError) and f"--out {data} holds a token dataset" in str(done.exception)
    assert sorted(data.iterdir()) == before


def test_curves_of_a_run_under_a_uri_are_those_of_its_folder(
    watched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TOTO_RUNS", str(tmp_path / "runs"))
    files, uri = fsspec.filesystem("memory"), "memory://curves/there"
    for path in (*watched.glob("*.json*"), *watched.glob("step-*/checkpoint.json")):
        files.pipe_file(f"/curves/there/{path.relative_to(watched)}", path.read_bytes())
    done = CliRunner().invoke(cli, ["curves", uri, str(watched), "--json"])
    assert done.exit_code == 0, (done.output, done.exception)
    there, here = json.loads(done.output.splitlines()[-1])["runs"]
    assert there == {**here, "run": uri, "name": "there"} and here["run"] == str(watched)
    assert (tmp_path / "runs" / "there" / "curves" / "curves.png").is_file()
    done = CliRunner().invoke(cli, ["curves", "memory://curves/nothing"])
    assert isinstance(done.exception, UserError) and "no whole run at memory://curves/nothing: " in str(done.exception)
    assert not any((tmp_path / "cache" / "toto" / "checkpoints").iterdir())


@given(st.integers(1, 3000), st.integers(1, 50))
def test_a_long_curve_is_means_that_leave_no_step_out(watched: Path, count: int, every: int) -> None:
    steps = np.arange(1, count + 1) * every
    loss = np.sin(steps)
    curve = read_curve(watched, "x")
    at, means = type(curve)(**{**vars(curve), "steps": steps, "loss": loss}).means()
    assert len(at) == len(means) <= POINTS and at[0] == steps[0] and (np.diff(at) > 0).all()
    assert np.isfinite(means).all() and loss.min() <= means.min() and means.max() <= loss.max()


def test_curves_need_a_run_with_a_step(tmp_path: Path, watched: Path) -> None:
    for name in ("run.json", "recipe.json"):
        (tmp_path / name).write_bytes((watched / name).read_bytes())
    with pytest.raises(UserError, match="no step is logged yet"):
        read_curve(tmp_path, "x")
    with pytest.raises(UserError, match="recipe.json is missing"):
        read_curve(tmp_path / "none", "x")
    os.symlink(watched / FILE, tmp_path / FILE)
    assert read_curve(tmp_path, "x").cost == read_curve(watched, "x").cost, "no checkpoint: the shards tell"


def test_a_log_of_a_stranger_is_drawn_as_far_as_it_has_losses(watched: Path, tmp_path: Path) -> None:
    run = tmp_path / "a $x_{$ run"
    run.mkdir()
    for name in ("run.json", "recipe.json"):
        (run / name).write_bytes((watched / name).read_bytes())
    strange = ["null", "NaN", "-Infinity", '"2.0"', "[1]", "1e300", "1" + "0" * 400]
    lines = [
        f'{{"step": {n}, "{key}": {loss}}}' for n, loss in enumerate(strange) for key in ("loss", "validation_loss")
    ]
    (run / FILE).write_text("\n".join([*lines, '{"step": 9, "loss": 2.5}', '{"step": 10, "validation_loss": 2.0}']))
    done = CliRunner().invoke(cli, ["curves", str(run), "--json"])
    assert done.exit_code == 0, done.output
    (curve,) = json.loads(done.output.splitlines()[-1])["runs"]
    assert curve["training"] == {"step": [9.0], "loss": [2.5]} and curve["held_out"] == {"step": [10], "loss": [2.0]}
    record = json.loads((run / "run.json").read_text())
    for model in ({}, {**record["model"], "dim": "wide"}):
        (run / "run.json").write_text(json.dumps({**record, "model": model}))
        with pytest.raises(UserError, match="does not describe a model of toto"):
            read_curve(run, "x")


def test_a_profiler_clears_what_a_kill_left_and_survives_a_strange_request(tmp_path: Path) -> None:
    left = tmp_path / "profiles" / ".step-000000009.partial"
    left.mkdir(parents=True)
    (left / "trace.json.gz").write_bytes(b"half")
    profiler = Profiler(tmp_path, Team(0, 1, torch.device("cpu")), 0, 1)
    assert not left.exists()
    log = RunLog(tmp_path, [], None, Team(0, 1, torch.device("cpu")), range(9), None, None)  # type: ignore[arg-type]
    (tmp_path / REQUEST).mkdir()
    profiler.after(1, log)
    (tmp_path / REQUEST).rmdir()
    (tmp_path / REQUEST).write_text("9" * 5000)
    profiler.after(2, log)
    assert not (tmp_path / REQUEST).exists()
    profiler.close(log)


def test_every_sink_takes_what_the_log_tells(tmp_path: Path) -> None:
    sinks = open_sinks(tmp_path, 0, None, {})
    sinks.write({"step": 1, "loss": 2.0, "losses": {"a": 1.0, "b": None}, "samples": "x", "by_frame": [1.0]})
    picture = tmp_path / "x.png"
    Image.new("L", (6, 4)).save(picture)
    sinks.picture(1, "samples", picture)
    sinks.close()
    board = EventAccumulator(str(tmp_path / BOARD))
    board.Reload()
    assert board.Tags()["scalars"] == ["loss", "losses/a"] and board.Tags()["images"] == ["samples"]
    assert read_metrics(tmp_path)[0]["losses"] == {"a": 1.0, "b": None}
