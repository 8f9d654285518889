"""Ids per second of the tokenizers with networks, all cores: one single-threaded process per core on both sides.

That is the peers' fastest way on a CPU. All processes of one side start together, warm, and run for a fixed time; the
sides take turns. Both have the same weights, calibrated on generated pictures until they use their codebook (see
tests/calibrated_weights.py), and their ids are compared.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np
import torch
from sides import Line, compare, skipped

from toto.affinity import cores

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent.parent / "tests"
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
SECONDS = 8
CALIBRATED_ON, COMPARED = 24, 8  # pictures
PEERS = {  # module -> what it is, patch, how many times its speed is wanted in fp32 and in bf16
    "peer_dalle": ("dVAE", "dall_e", 8, 1.8, 3.5),
    "peer_taming": ("VQGAN-16k", "taming", 16, None, 2.0),
    "peer_diffusers": ("SD-VAE", "diffusers", 8, None, 2.0),
}


sys.path.append(str(TESTS))  # calibrated_weights


def measure(repeats: int) -> list[Line]:
    """Each in fp32; in bf16 where the CPU has it."""
    return [line for peer in PEERS for line in _measure_one(peer, repeats)]


def _measure_one(peer: str, repeats: int) -> list[Line]:
    name, package, patch, wanted, wanted_bf16 = PEERS[peer]
    what = f"{name} on {cores()} cores, {{}}, against {package} in fp32, a process per core"
    try:
        module = importlib.import_module(peer)
    except ImportError as error:
        return skipped(what.format("fp32"), str(error))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(module, folder)
        ids = (module.SIDE // patch) ** 2
        lines = [_compared(what.format("fp32"), peer, folder, {"precision": "fp32"}, ids, wanted, repeats)]
        if not torch.cpu._is_avx512_bf16_supported():
            return lines + skipped(what.format("bf16"), "this CPU has no instructions for bf16 (avx512_bf16)")
        bf16 = {"precision": "bf16", "compile": "on"}
        return [*lines, _compared(what.format("bf16"), peer, folder, bf16, ids, wanted_bf16, repeats)]


def prepare(module, folder: Path) -> dict[str, str]:
    """Weights and pictures for both sides; toto's spec of the weights."""
    from calibrated_weights import pictures

    torch.manual_seed(0)
    spec = module.save(folder, pictures(CALIBRATED_ON, module.SIDE))
    (folder / "spec.json").write_text(json.dumps(spec))
    np.save(folder / "pictures.npy", pictures(COMPARED, module.SIDE, seed=1))
    return spec


def rate_alone(peer: str, folder: Path, seconds: float) -> float:
    """Pictures a second of our encoder alone, a process per core, for so long."""
    processes = [_start(peer, "ours", folder, {"precision": "fp32"}) for _ in range(cores())]
    try:
        for process in processes:
            _answer(process)
        return _rate(processes, seconds)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _compared(
    what: str, peer: str, folder: Path, settings: dict[str, str], ids: int, bar: float | None, repeats: int
) -> Line:
    both = {side: [_start(peer, side, folder, settings) for _ in range(cores())] for side in ("ours", "peer")}
    try:
        for process in [*both["ours"], *both["peer"]]:
            _answer(process)
        ours, theirs = np.load(folder / "ours.npy"), np.load(folder / "peer.npy")
        click.echo(f"  {(ours == theirs).mean():.3%} of {ours.size:,} ids agree; {len(np.unique(theirs)):,} codes used")
        return compare(
            what, "ids/s", lambda: ids * _rate(both["ours"]), lambda: ids * _rate(both["peer"]), bar, repeats
        )
    finally:
        for process in [*both["ours"], *both["peer"]]:
            process.kill()
            process.wait()


def _start(peer: str, side: str, folder: Path, settings: dict[str, str]) -> subprocess.Popen:
    words = [f"{key}={value}" for key, value in settings.items()] if side == "ours" else []
    path = os.pathsep.join([str(HERE), str(TESTS)])
    return subprocess.Popen(
        [sys.executable, "-P", str(HERE / "encoder_process.py"), peer, side, str(folder), *words],
        env={**os.environ, **ONE_THREAD, "PYTHONPATH": path, "XDG_CACHE_HOME": str(folder / "cache")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _rate(processes: list[subprocess.Popen], seconds: float = SECONDS) -> float:
    """Pictures per second of all together."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(f"{seconds}\n")
        process.stdin.flush()
    return sum(float(_answer(process)) for process in processes)


def _answer(process: subprocess.Popen) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"{process.args[2:]} ended")
    return line
