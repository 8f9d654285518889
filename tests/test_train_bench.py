"""bench/train.py runs, and ends with the line that everybody reads."""

import json
import math
from pathlib import Path

import launches
import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench" / "train.py"


def test_steps_of_both_sides_are_told_in_one_line(tmp_path: Path) -> None:
    options = ["--only", "steps", "--size", "tiny", "--context", "16", "--tokens", "32", "--precision", "fp32"]
    options += ["--peer", "transformers", "--repeats", "2", "--json"]
    stdout, stderr = tmp_path / "stdout", tmp_path / "stderr"
    assert launches.script(BENCH, options, (stdout, stderr)).wait() == 0, stderr.read_text()
    *printed, last = stdout.read_text().splitlines()
    speed, time, memory = json.loads(last)
    assert speed.keys() == {"what", "ours", "peer", "unit", "ratio", "bar"}
    assert (speed["unit"], speed["bar"], memory["unit"], memory["bar"]) == ("tokens/s", 0.95, "GB", 1)
    assert speed["ratio"] == pytest.approx(speed["ours"] / speed["peer"])
    assert all(line["ratio"] == pytest.approx(line["peer"] / line["ours"]) for line in (time, memory))
    losses = [float(line.split("losses ")[1].split()[0]) for line in printed if "losses " in line]
    assert len(losses) == 2 and all(abs(loss - math.log(8196)) < 0.5 for loss in losses), "not the same work"
    assert sum(len(line.split()) == 4 for line in printed if line.startswith(("  ours ", "  peer "))) >= 4
