"""`toto-train verify-resume`: it kills and resumes real runs, holds for ours, and notices what does not hold."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from train_toy import sets, world

from toto.train import verify_resume
from toto.train.cli import cli
from toto.train.verify_resume import Trial, Verdict


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("world") / "set")


def test_a_killed_run_is_proved_to_go_on_exactly(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_resume.tempfile, "tempdir", str(tmp_path))
    words = ["--size", "tiny", "--recipe", "demo", "--data", str(shards), *sets(), "--steps", "16", "--json"]
    done = CliRunner().invoke(cli, ["verify-resume", *words])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["holds"] and said["batches_equal"] and said["steps"] == 16 and said["processes"] == [1, 2, 1]
    assert said["killed_at"] >= said["resumed_from"] > 0 and said["losses_identical"] >= said["resumed_from"]
    assert "the same batches in 16 steps" in done.stdout and os.listdir(tmp_path) == []


def test_a_failing_run_is_told_in_its_own_words(shards: Path) -> None:
    words = ["--size", "tiny", "--recipe", "demo", "--data", str(shards), *sets(frames=1000), "--steps", "16"]
    done = CliRunner().invoke(cli, ["verify-resume", *words])
    assert done.exit_code != 0 and "no window of 1000 frames" in str(done.exception)


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
