"""`--size large` trains the paper's model and its recipe; here one of its sixteen blocks (all: `make drill`)."""

import json
import math
from pathlib import Path

import pytest
from token_world import moving_videos, write_tokens
from train_toy import call

from toto.train import checkpoint
from toto.train.watch.metrics import read_metrics

USED = 68  # 64 codes
PARAMETERS = 4 * 1024**2 + 3 * 1024 * 4096 + 2 * 1024 + 1024 + USED * 1024  # attention, MLP, gains; the last; the table


def test_a_block_of_the_real_large_model_trains_two_steps_and_is_saved_whole(tmp_path: Path) -> None:
    data, run = write_tokens(tmp_path / "set", moving_videos(24)), tmp_path / "runs" / "large"
    keys = ["recipes.pretrain.frames=2", "recipes.pretrain.batch_tokens=64", "recipes.pretrain.precision=fp32"]
    keys += ["recipes.pretrain.loader_workers=0", "models.large.layers=1"]
    words = ["pretrain", "--size", "large", "--data", str(data), "--stop-at", "2", "--json"]
    words += [word for key in keys for word in ("--set", key)]
    ended = call(words, run, TOTO_RUNS=str(tmp_path / "runs"))
    assert ended.code == 0, ended.stderr
    assert f"large: {PARAMETERS:,} parameters" in ended.stdout
    assert json.loads(ended.stdout.splitlines()[-1])["checkpoint"] == str(run / checkpoint.name_of(2))
    facts = checkpoint.read_facts(run / checkpoint.name_of(2))
    assert (facts["model"]["name"], facts["step"], facts["used_ids"]) == ("large", 2, USED)
    sizes = [path.stat().st_size for path in (run / checkpoint.name_of(2) / "state").iterdir()]
    assert 3 * 4 * PARAMETERS < sum(sizes) < 3.2 * 4 * PARAMETERS  # weights and two moments, fp32
    first, second = (line["loss"] for line in read_metrics(run))
    assert first == pytest.approx(math.log(USED), abs=0.4) and second != first, "nothing is known yet"
