"""One core's process of encoders.py: pictures one by one through toto's tokenizer, or through a peer's.

    python encoder_process.py KIND ours|peer FOLDER [SETTING=VALUE …]

It says `ready`; each line it reads, a number of seconds, it answers with pictures per second. FOLDER/<side>.npy holds
the codes of the pictures at its end.
"""

import importlib
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from toto.tokenizers import load


def main(kind: str, side: str, folder: Path, settings: dict[str, str]) -> None:
    """Until standard input ends."""
    torch.set_num_threads(1)
    pictures = np.load(folder / "pictures.npy")
    encode = _ours(folder, settings) if side == "ours" else _peer(kind, folder)
    codes = np.concatenate([encode(picture[None]).reshape(-1) for picture in pictures])  # and warm
    np.save(folder / f"{side}.npy", codes)
    print("ready", flush=True)
    for line in sys.stdin:
        started, done = time.perf_counter(), 0
        while time.perf_counter() - started < float(line):
            encode(pictures[done % len(pictures)][None])
            done += 1
        print(done / (time.perf_counter() - started), flush=True)


def _ours(folder: Path, settings: dict[str, str]):
    return load({**json.loads((folder / "spec.json").read_text()), **settings}).encode


def _peer(kind: str, folder: Path):
    encode = importlib.import_module(kind).load(folder)

    def run(picture: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return encode(torch.from_numpy(picture).float() / 255).numpy()

    return run


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), dict(word.split("=") for word in sys.argv[4:]))
