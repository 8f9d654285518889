"""Greedy generation against transformers: the same weights, the same prompts, taken in turns in one run.

    python bench/generate.py [--sizes tiny --sizes base] [--batches 1 --batches 16] [--precisions fp32] [--new 1]
                             [--repeats 5] [--json]

Ours is the Rollout behind `toto-train generate`, made ready once before (packed.py, small.py); the peer is `generate`
of the model that `toto-train export` writes, with its own cache and the same threads (one for models under 16 MB, which
is best for both). Such models ours computes in fp32, in the rows of bf16 with weights that are rounded to it.
Bandwidth: one read of the weights and the cache a step, against what reading memory reaches here.
"""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

# A script's own folder comes first on the path: `import tokenize` would find a bench, and torch needs Python's.
HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE / "tokenizing"), *(p for p in sys.path if Path(p or ".").resolve() != HERE)]

import json  # noqa: E402
import time  # noqa: E402
from typing import Any  # noqa: E402

import click  # noqa: E402
import machine  # noqa: E402
import torch  # noqa: E402
from sides import Line, compare  # noqa: E402

from toto.config import load  # noqa: E402
from toto.shards.ids import CODE_OFFSET, VIDEO_START  # noqa: E402
from toto.train.cost import Cost  # noqa: E402
from toto.train.export.layout import layout_of  # noqa: E402
from toto.train.generation.rollout import Rollout  # noqa: E402
from toto.train.generation.sampling import Sampling  # noqa: E402
from toto.train.hardware import use_cores  # noqa: E402
from toto.train.models import LanguageModel, make_model  # noqa: E402
from toto.train.models.packed import packed  # noqa: E402

CODES = {"tiny": 512, "base": 8192, "large": 8192, "gpt2": 8192, "mamba": 8192}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
BARS = {("tiny", 1): 2.0, ("tiny", 16): 2.0, ("base", 1): 1.3, ("base", 16): 1.0}
FRAME = 64  # codes; the prompt is one frame


@click.command()
@click.option("--sizes", multiple=True, default=("tiny", "base"), show_default=True, type=click.Choice(tuple(CODES)))
@click.option("--batches", multiple=True, default=(1, 16), show_default=True, type=click.IntRange(1))
@click.option(
    "--precisions", multiple=True, default=("bf16", "fp32"), show_default=True, type=click.Choice(tuple(DTYPES))
)
@click.option(
    "--new", "frames", default=1, show_default=True, type=click.IntRange(1), help="Frames of 64 codes to make."
)
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def main(
    sizes: tuple[str, ...],
    batches: tuple[int, ...],
    precisions: tuple[str, ...],
    frames: int,
    repeats: int,
    as_json: bool,
) -> None:
    """Prints every repetition, medians, ratios, and the share of the memory's bandwidth."""
    use_cores()
    click.echo(f"{machine.words()}, {torch.get_num_threads()} threads\n")
    lines: list[Line] = []
    for size in sizes:
        for precision in precisions:
            lines += measure(size, precision, batches, frames, repeats)
    if as_json:
        click.echo(json.dumps(lines))


def measure(size: str, precision: str, batches: tuple[int, ...], frames: int, repeats: int) -> list[Line]:
    """The lines of one model in one precision."""
    dtype, codes = DTYPES[precision], CODES[size]
    model = make_model(load().model(size), codes + CODE_OFFSET).requires_grad_(False).eval()
    theirs = their_model(model, FRAME * (frames + 1)).to(dtype)
    model.to(dtype)
    cost = Cost(model.config, model.used_ids, FRAME * (frames + 1))
    lines = []
    with ExitStack() as held:
        held.enter_context(packed(model))
        reading = bytes_per_second()
        for batch in batches:
            prompt = torch.randint(codes, (batch, 1, FRAME), generator=torch.Generator().manual_seed(0))
            ours, peer = our_way(model, prompt, frames), their_way(theirs, prompt, frames)
            same = float((ours()[1] == peer()[1]).float().mean())
            what = f"greedy generation, {size}, {precision}, batch {batch}"
            found = compare(what, "codes/s", rate_of(ours), rate_of(peer), BARS.get((size, batch)), repeats)
            cache = batch * cost.kv_bytes_per_token(torch.float32.itemsize) * (frames + 2) * FRAME // 2
            step = model.table.weight.element_size() * cost.parameters + cache
            share = found["ours"] / batch * step / reading
            click.echo(
                f"  {share:.0%} of the memory's {reading / 1e9:.1f} GB/s; {same:.1%} of the codes are the peer's\n"
            )
            lines.append({**found, "bandwidth_share": share, "same_codes": same})
    return lines


def their_model(model: LanguageModel, context: int) -> Any:
    """The same weights in transformers, as an export lays them out."""
    import transformers

    transformers.logging.set_verbosity_error()
    layout = layout_of(model, context)
    theirs = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**layout.config))
    missing, strange = theirs.load_state_dict(layout.tensors, strict=False)
    assert not strange and all("lm_head" in name for name in missing), (missing, strange)
    theirs.tie_weights()
    return theirs.eval()


def our_way(model: LanguageModel, prompt: torch.Tensor, frames: int) -> "Callable[[], tuple[float, torch.Tensor]]":
    """Seconds, and the codes that were made."""
    roll = Rollout(model, VIDEO_START, frames + 1, "free", Sampling(greedy=True))
    uniforms = torch.zeros(len(prompt), frames + 1, FRAME, dtype=torch.float64)

    def run() -> tuple[float, torch.Tensor]:
        started = time.perf_counter()
        codes = roll(prompt, 1, uniforms).codes
        return time.perf_counter() - started, codes[:, 1:].flatten(1)

    return run


def their_way(theirs: Any, prompt: torch.Tensor, frames: int) -> "Callable[[], tuple[float, torch.Tensor]]":
    """The same by transformers."""
    ids = torch.nn.functional.pad(prompt.flatten(1) + CODE_OFFSET, (1, 0), value=VIDEO_START)
    asked = {"max_new_tokens": frames * FRAME, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}

    def run() -> tuple[float, torch.Tensor]:
        started = time.perf_counter()
        with torch.inference_mode():
            ids_made = theirs.generate(
                ids, attention_mask=torch.ones_like(ids), suppress_tokens=list(range(CODE_OFFSET)), **asked
            )
        return time.perf_counter() - started, ids_made[:, ids.shape[1] :] - CODE_OFFSET

    return run


def rate_of(run: "Callable[[], tuple[float, torch.Tensor]]") -> Callable[[], float]:
    """Codes a second."""

    def rate() -> float:
        seconds, codes = run()
        return codes.numel() / seconds

    return rate


def bytes_per_second() -> float:
    """What reading 512 MB reaches with the threads that are set, the best of five."""
    data, best = torch.zeros(1 << 26, dtype=torch.int64), 0.0
    for _ in range(5):
        started = time.perf_counter()
        data.sum()
        best = max(best, data.nbytes / (time.perf_counter() - started))
    return best


if __name__ == "__main__":
    main()
