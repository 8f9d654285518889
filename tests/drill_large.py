"""`make pretrain SIZE=large` trains the paper's model, whole, on whatever shards there are: here the demo's."""

import json
import math
import shutil
import subprocess
from pathlib import Path

import clips
from test_docs import TINY

from toto.tokenize.demo import build
from toto.train import checkpoint
from toto.train.watch.metrics import read_metrics

PARAMETERS = 276_861_952 - (8192 - 512) * 1024  # Table 1's, with the demo's 512 codes for the dVAE's 8,192
SPACE = 2 * 3_330_000_000  # bytes: of the checkpoint, and as much again
PATIENCE_S = 1200.0  # two steps take twenty seconds of four cores


def drill_large(folder: Path) -> str:
    """Two steps of the real model on shards of the demo: "same" as it should be, or what is wrong."""
    if shutil.disk_usage(folder).free < SPACE:
        return f"needs {SPACE:,} bytes of disk"
    data, run = folder / "data", folder / "runs" / "large"
    build(data / "demo-world", TINY)
    done = clips.call("tokenize", "run", "demo", "--ray-address", "local", TOTO_DATA=str(data))
    if done.returncode:
        return done.stderr
    keys = ["frames=2", "batch_tokens=128", "loader_workers=0", "precision=fp32"]
    words = [word for key in keys for word in ("--set", f"recipes.pretrain.{key}")]
    arguments = ["pretrain", "--size", "large", "--data", "demo", "--stop-at", "2", "--json", *words]
    ended = subprocess.run(
        clips.command("train", *arguments),
        env=clips.environment(TOTO_DATA=str(data), TOTO_RUNS=str(folder / "runs")),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    if ended.returncode:
        return ended.stderr
    saved = run / checkpoint.name_of(2)
    facts, sizes = checkpoint.read_facts(saved), [path.stat().st_size for path in (saved / "state").iterdir()]
    first, second = (line["loss"] for line in read_metrics(run))
    right = {
        "the parameters that it tells": f"large: {PARAMETERS:,} parameters" in ended.stdout,
        "the last line": json.loads(ended.stdout.splitlines()[-1])["checkpoint"] == str(saved),
        "checkpoint.json": (facts["model"]["name"], facts["step"], facts["used_ids"]) == ("large", 2, 512 + 4),
        "weights and two moments in fp32": 3 * 4 * PARAMETERS < sum(sizes) < SPACE / 2,
        "the losses": abs(first - math.log(516)) < 0.4 and second != first,  # nothing is known yet
    }
    return ", ".join(f"WRONG: {name}" for name, holds in right.items() if not holds) or "same"
