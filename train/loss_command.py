"""`toto-train loss-by-position`: the held-out loss of a checkpoint by frame and cell (Fig. 10), beside what is trivial.

checkpoint + held-out sequences ─▶ losses of each source ─▶ loss_by_position.json, loss_by_position.png
training sequences ─▶ unigram and copy (baselines.py), on the same held-out sequences
"""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toto import command
from toto.errors import UserError
from toto.options import json_option
from toto.plain import counted
from toto.train.options import OutputFolder

if TYPE_CHECKING:
    import numpy as np

    from toto.shards.recipe import Kind
    from toto.shards.stream import Stream

FITTED_ON = 4096  # training sequences at most, for the baselines
RESAMPLES = 2000


@click.command("loss-by-position")
@click.option("--ckpt", required=True, metavar="PATH|URI", help="A checkpoint, or a run: its newest one.")
@click.option("--data", metavar="URI|NAME", help="Another dataset than the model was trained on; same tokenizer.")
@click.option("--split", default="val", show_default=True, metavar="NAME", help="What is held out.")
@click.option("--kind", type=click.Choice(["video", "image"]), default="video", show_default=True)
@click.option("--sequences", type=click.IntRange(1), metavar="N", help="At most so many; default: one epoch.")
@click.option("--baselines", is_flag=True, help="Beside unigram and copy, fitted on the training split.")
@click.option("--micro", type=click.IntRange(1), default=16, show_default=True, help="Sequences of one forward pass.")
@click.option("--precision", type=click.Choice(["bf16", "fp32"]), default="fp32", show_default=True)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--out", type=OutputFolder(), metavar="DIR", help="Default: RUN/loss/STEP.")
@json_option
def loss_by_position(
    ckpt: str,
    data: str | None,
    split: str,
    kind: "Kind",
    sequences: int | None,
    baselines: bool,
    micro: int,
    precision: str,
    device: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """Held-out loss by frame and by cell, in nats a token.

    \b
    Example: toto-train loss-by-position --ckpt runs/tiny --baselines
    """
    from toto.train.held_out import held_out
    from toto.train.load import load_model
    from toto.train.parallel import joined
    from toto.train.position_loss import position_loss

    with joined(device) as team:
        loaded = load_model(ckpt, team.device)
        stream = held_out(loaded, data, split, kind)
        whole = sum(stream.sequences_per_epoch().values())
        count = min(sequences or whole, whole)
        found = position_loss(loaded.model, stream, range(count), micro, precision, team)
        if not math.isfinite(found.mean):
            raise UserError(f"{loaded.place}: its losses are not finite ({found.mean}); take another checkpoint")
        value: dict[str, Any] = {
            **found.as_json(),
            "by_source": {name: part.as_json() for name, part in found.by_source.items()},
            "split": split,
            "kind": kind,
            "checkpoint": loaded.place,
            "checkpoint_id": loaded.id,
            "dataset_ids": [part.dataset_id for part in stream.recipe.parts],
        }
        if baselines:
            value |= against_baselines(found.by_sequence, stream, held_out(loaded, data, None, kind), count)
        if not team.is_first:
            return
        folder = out or loaded.path.parent / "loss" / loaded.path.name
        write(folder, value)
        command.say(text_of(value))
        command.say(f"{folder / 'loss_by_position.json'}, .png")
        if as_json:
            command.print_json(value)


def against_baselines(by_sequence: "np.ndarray", stream: "Stream", training: "Stream", count: int) -> dict[str, Any]:
    """Unigram and copy on the same sequences; by how much the model is better, with a 95 % bootstrap interval."""
    import numpy as np

    from toto.shards.ids import CODE_OFFSET
    from toto.train.baselines import fit

    def codes(of: "Stream", g: int) -> "np.ndarray":
        return of.sequence(g).tokens[1:-1].astype(np.int64).reshape(-1, of.cells) - CODE_OFFSET

    fitted = fit(
        (codes(training, g) for g in range(min(FITTED_ON, sum(training.sequences_per_epoch().values())))),
        stream.used_ids - CODE_OFFSET,
    )
    read = (codes(stream, g) for g in range(count))
    both = np.array([[fitted.unigram(held).mean(1), fitted.copy(held).mean(1)] for held in read])
    value: dict[str, Any] = {"copy_share": fitted.copy_share}
    for i, name in enumerate(("unigram", "copy")):
        each = both[:, i]  # [sequences, frames]
        better = each.mean(1) - by_sequence
        rng = np.random.default_rng(0)  # the same resamples for both, one at a time: a split may be large
        means = [better[rng.integers(0, count, count)].mean() for _ in range(RESAMPLES)]
        low, high = np.quantile(means, [0.025, 0.975])
        value |= {
            name: float(each.mean()),
            f"{name}_by_frame": each.mean(0).tolist(),
            f"better_than_{name}": {"mean": float(better.mean()), "interval": [float(low), float(high)]},
        }
    return value


def text_of(value: dict[str, Any]) -> str:
    """The result for a person."""
    frames = "  ".join(f"{loss:.2f}" for loss in value["by_frame"])
    held_out = counted(value["sequences"], "held-out sequence")
    lines = [f"nats a token on {held_out} ({value['kind']}, split {value['split']})"]
    if "copy" in value:
        lines += [f"  unigram  {value['unigram']:.3f}"]
        lines += [f"  copy     {value['copy']:.3f}  (λ {value['copy_share']:.3f})"]
    error = f" (standard error {value['model_error']:.3f})" if value["model_error"] is not None else ""
    lines += [f"  model    {value['model']:.3f}{error}"]
    if "copy" in value:
        better = value["better_than_copy"]
        low, high = better["interval"]
        if better["mean"] >= 0:
            lines += [f"  better than copy by {better['mean']:.3f} (95 % interval {low:.3f} to {high:.3f})"]
        else:
            lines += [f"  worse than copy by {-better['mean']:.3f} (95 % interval {-high:.3f} to {-low:.3f})"]
    if len(value["by_source"]) > 1:
        each = ", ".join(f"{name} {part['model']:.3f}" for name, part in value["by_source"].items())
        lines += [f"by source  {each}"]
    return "\n".join([*lines, f"by frame   {frames}"])


def write(folder: Path, value: dict[str, Any]) -> None:
    """The JSON file and the picture."""
    from toto.files import write_whole
    from toto.train.loss_picture import picture

    write_whole(folder / "loss_by_position.json", (json.dumps(value, indent=1) + "\n").encode())
    write_whole(folder / "loss_by_position.png", picture(value))
