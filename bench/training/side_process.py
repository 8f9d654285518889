"""One side of steps.py in a process of its own: it builds its model, then takes a step for every line that it reads.

    python side_process.py MODULE '{"size", "context", "sequences", "precision", "compile", "threads"}'

It says `ready`; a line is answered with {"seconds", "cpu_seconds", "loss", "peak_bytes"}. A step is what every trainer
does: forward, backward, clipping at 1, AdamW (fused). Only forward and loss are a side's own.
"""

import importlib
import json
import resource
import sys
import time

import torch

from toto.config import load
from toto.train.hardware import autocast

CODES, SPECIAL = 8_192, 4  # of the paper's tokenizer; start, end and pad


def main(module: str, shape: dict) -> None:
    """Until standard input ends."""
    torch.set_num_threads(shape["threads"])
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ids = torch.randint(SPECIAL, SPECIAL + CODES, (shape["sequences"], shape["context"] + 1), device=device)
    side = importlib.import_module(module)
    model = side.make(load().model(shape["size"]), SPECIAL + CODES, shape["context"], shape["compile"]).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def step() -> float:
        with autocast(device, shape["precision"]):
            loss = side.loss(model, ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())  # waits for the device

    print("ready", flush=True)
    for _ in sys.stdin:
        started, worked = time.perf_counter(), time.process_time()
        loss = step()
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - worked
        told = {"seconds": seconds, "cpu_seconds": cpu_seconds, "loss": loss, "peak_bytes": peak_bytes(device)}
        print(json.dumps(told), flush=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()  # the other sides are on the same card


def peak_bytes(device: torch.device) -> int:
    """The most that was held so far: of the card, or of this process with its libraries."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # kB on Linux


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
