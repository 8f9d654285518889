"""`make pretrain SIZE=large` trains the paper's model, whole, on whatever shards there are."""

import json
import shutil
from pathlib import Path

import pytest
from token_world import Video, moving_codes, write_tokens
from train_toy import call

from toto.train import checkpoint
from toto.train.metrics import read_metrics

CODES = 8192  # of the paper's dVAE: 276,861,952 parameters need them
SPACE = 2 * 3_330_000_000  # bytes: of the checkpoint, and as much again


def test_the_real_large_model_trains_two_steps_on_a_cpu_and_is_saved_whole(tmp_path: Path) -> None:
    if shutil.disk_usage(tmp_path).free < SPACE:
        pytest.skip(f"needs {SPACE:,} bytes of disk")
    codes, _ = moving_codes(8, frames=4, vocab_size=CODES)
    videos = [Video(f"{i}.mp4", c) for i, c in enumerate(codes)]
    data, run = write_tokens(tmp_path / "set", videos, vocab_size=CODES), tmp_path / "runs" / "large"
    keys = ["frames=4", "batch_tokens=64", "loader_workers=0", "precision=fp32"]
    arguments = ["pretrain", "--size", "large", "--data", str(data), "--stop-at", "2", "--json"]
    try:
        ended = call([*arguments, *sets(*keys)], run, TOTO_RUNS=str(tmp_path / "runs"))
        assert ended.code == 0, ended.stderr
        assert "large: 276,861,952 parameters" in ended.stdout
        assert json.loads(ended.stdout.splitlines()[-1])["checkpoint"] == str(run / checkpoint.name_of(2))
        facts = checkpoint.read_facts(run / checkpoint.name_of(2))
        assert (facts["model"]["name"], facts["step"], facts["used_ids"]) == ("large", 2, CODES + 4)
        sizes = [path.stat().st_size for path in (run / checkpoint.name_of(2) / "state").iterdir()]
        assert 3 * 4 * 276_861_952 < sum(sizes) < SPACE / 2  # weights and two moments, fp32
        first, second = (line["loss"] for line in read_metrics(run))
        assert first == pytest.approx(9.2, abs=0.4) and second != first  # ln 8,196 = 9.01: nothing is known yet
    finally:
        shutil.rmtree(run, ignore_errors=True)


def sets(*keys: str) -> list[str]:
    return [word for key in keys for word in ("--set", f"recipes.pretrain.{key}")]
