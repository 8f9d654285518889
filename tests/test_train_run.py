"""`make pretrain SIZE=large` trains the paper's model, whole, on whatever shards there are: here the demo's."""

import json
import shutil
from pathlib import Path

import clips
import pytest
from test_docs import TINY
from train_toy import call

from toto.tokenize.demo import build
from toto.train import checkpoint
from toto.train.watch.metrics import read_metrics

PARAMETERS = 276_861_952 - (8192 - 512) * 1024  # Table 1's, with the demo's 512 codes for the dVAE's 8,192
SPACE = 2 * 3_330_000_000  # bytes: of the checkpoint, and as much again


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """${TOTO_DATA}, with the demo's shards in it."""
    data = tmp_path_factory.mktemp("shards") / "data"
    build(data / "demo-world", TINY)
    done = clips.call("tokenize", "run", "demo", "--ray-address", "local", TOTO_DATA=str(data))
    assert done.returncode == 0, done.stderr
    return data


def test_the_real_large_model_trains_two_steps_on_demo_shards_and_is_saved_whole(shards: Path, tmp_path: Path) -> None:
    if shutil.disk_usage(tmp_path).free < SPACE:
        pytest.skip(f"needs {SPACE:,} bytes of disk")
    run = tmp_path / "runs" / "large"
    keys = ["frames=2", "batch_tokens=128", "loader_workers=0", "precision=fp32"]
    arguments = ["pretrain", "--size", "large", "--data", "demo", "--stop-at", "2", "--json"]
    try:
        ended = call([*arguments, *sets(*keys)], run, TOTO_DATA=str(shards), TOTO_RUNS=str(tmp_path / "runs"))
        assert ended.code == 0, ended.stderr
        assert f"large: {PARAMETERS:,} parameters" in ended.stdout
        assert json.loads(ended.stdout.splitlines()[-1])["checkpoint"] == str(run / checkpoint.name_of(2))
        facts = checkpoint.read_facts(run / checkpoint.name_of(2))
        assert (facts["model"]["name"], facts["step"], facts["used_ids"]) == ("large", 2, 512 + 4)
        sizes = [path.stat().st_size for path in (run / checkpoint.name_of(2) / "state").iterdir()]
        assert 3 * 4 * PARAMETERS < sum(sizes) < SPACE / 2  # weights and two moments, fp32
        first, second = (line["loss"] for line in read_metrics(run))
        assert first == pytest.approx(6.4, abs=0.4) and second != first  # ln 516 = 6.25: nothing is known yet
    finally:
        shutil.rmtree(run, ignore_errors=True)


def sets(*keys: str) -> list[str]:
    return [word for key in keys for word in ("--set", f"recipes.pretrain.{key}")]
