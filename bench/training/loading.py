"""Loading alone: micro-batches of train/data.py from shards, in one process, by the seconds of CPU that it takes."""

import time
from pathlib import Path

from sides import Line, line

from toto.shards.recipe import make_recipe
from toto.shards.stream import Stream
from toto.train.data import loader

H100_TOKENS = 419_000  # a second: `base` at 40 % of 989 TFLOP/s, causal attention, 4,096 positions
WANTED = 50
FRAMES, BATCH = 16, 256  # of a window; sequences of a step
STEPS = 40


def measure(root: Path, repeats: int) -> list[Line]:
    """Million tokens a second of one core, for micro-batches as a GPU takes them, and for the smallest."""
    stream = Stream(make_recipe([("bench", str(root), 1, "train")], FRAMES, None, 0, BATCH))
    lines = []
    for micro in (16, 1):
        rates = [_rate(stream, micro, turn) for turn in range(repeats + 1)][1:]
        what = f"loading micro-batches of {micro}x4,096 tokens, one core, against what base takes on an H100 at 40 %"
        lines.append(line(what, "M tokens/s", rates, [H100_TOKENS / 1e6], WANTED))
    return lines


def _rate(stream: Stream, micro: int, turn: int) -> float:
    """Of a core: CPU time is that of all threads of the process, and waits for nobody."""
    started = time.process_time()
    batches = loader(stream, range(turn * STEPS, (turn + 1) * STEPS), 0, 1, micro, 0, predict_end=False)
    seen = sum(len(batch.tokens) for batch in batches) * stream.context
    return seen / (time.process_time() - started) / 1e6
