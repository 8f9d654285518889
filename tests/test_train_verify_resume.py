"""`toto-train verify-resume`: it kills and resumes real runs, holds for ours, and notices what does not hold."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import launches
import pytest
from click.testing import CliRunner
from launches import descendants, is_gone
from train_toy import sets, world

from toto.errors import UsageError, UserError
from toto.train import verify_resume
from toto.train.cli import cli
from toto.train.verify_resume import Trial, Verdict
from toto.train.watch.metrics import read_metrics


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a short name, as sockets need it."""
    with tempfile.TemporaryDirectory(prefix="v-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("world") / "set")


@pytest.fixture
def warm_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its runs, real in all else, are spared the imports of a fresh Python."""
    popen = {**vars(subprocess), "Popen": launches.Run}
    monkeypatch.setattr(verify_resume, "subprocess", SimpleNamespace(**popen))


@pytest.mark.usefixtures("warm_runs")
def test_a_killed_run_is_proved_to_go_on_exactly(shards: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_resume.tempfile, "tempdir", str(place))
    words = ["--size", "tiny", "--recipe", "demo", "--data", str(shards), *sets(), "--steps", "16", "--json"]
    done = CliRunner().invoke(cli, ["verify-resume", *words])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["holds"] and said["batches_equal"] and said["steps"] == 16 and said["processes"] == [1, 2, 1]
    assert said["killed_at"] >= said["resumed_from"] > 0 and said["resumed_from"] % 4 == 0
    assert "the same batches in 16 steps" in done.stdout and os.listdir(place) == []


@pytest.mark.usefixtures("warm_runs")
def test_processes_of_torchrun_end_with_the_command(shards: Path, place: Path) -> None:
    words = ["--size", "tiny", "--recipe", "demo", "--device", "cpu", "--data", str(shards), *sets(steps=100_000)]
    trial = Trial(words, "demo", 100_000, 2, 0)
    with suppress(KeyboardInterrupt), trial._started(place / "run", 100_000, 2) as child:
        while not read_metrics(place / "run"):
            assert child.poll() is None, (place / "run.stderr").read_text()
            time.sleep(0.02)
        started = [child.pid, *descendants(child.pid)]
        assert len(started) >= 3
        raise KeyboardInterrupt
    while not all(map(is_gone, started)):  # the kernel takes a moment
        time.sleep(0.02)


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    done = CliRunner().invoke(cli, ["verify-resume", "--size", "tiny", "--recipe", "demo"])
    assert "--processes 2: there is a GPU for 1 here" in str(done.exception)


def test_a_run_that_ends_before_it_is_killed_proves_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trial, "_command", lambda *_: ["true"])
    with pytest.raises(UserError, match="over before it could be killed"):
        Trial((), "demo", 8, 1, 0)._killed(place / "run", 5, ())


@pytest.mark.usefixtures("warm_runs")
def test_a_failing_run_is_told_in_its_own_words(shards: Path) -> None:
    words = ["--size", "tiny", "--recipe", "demo", "--data", str(shards), *sets(frames=1000), "--steps", "16"]
    done = CliRunner().invoke(cli, ["verify-resume", *words])
    assert done.exit_code != 0 and "no window of 1000 frames" in str(done.exception)


def test_an_unknown_model_is_refused_before_anything_runs() -> None:
    done = CliRunner().invoke(cli, ["verify-resume", "--size", "nope"])
    assert isinstance(done.exception, UsageError) and "unknown model 'nope'" in str(done.exception)
    assert "undisturbed" not in done.output


@pytest.mark.parametrize(("key", "value"), [("batch", "0" * 16), ("loss", 9.0), ("loss", None)])
def test_a_run_that_went_on_otherwise_does_not_hold(key: str, value: object, tmp_path: Path) -> None:
    lines = [{"step": step, "batch": f"{step:016x}", "loss": 3.0 - step / 10} for step in range(1, 9)]
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
        if name == "broken":
            lines[6][key] = value
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found: Verdict = Trial((), "demo", 8, 2, 0)._compared(tmp_path, 5, 4)
    assert not found.holds and found.batches_equal == (key != "batch")
