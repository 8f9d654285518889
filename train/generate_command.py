"""`toto-train generate`: frames that a checkpoint imagines, from held-out prompts or from nothing."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toto import command
from toto.errors import UsageError

if TYPE_CHECKING:
    from toto.shards.recipe import Kind
    from toto.train.load import Loaded
    from toto.train.rollout import Regime


@click.command("generate")
@click.option("--ckpt", required=True, metavar="PATH", help="A checkpoint, or a run: its newest one.")
@click.option("--frames-prompt", type=click.IntRange(0), metavar="N", help="True frames to start from; default: half.")
@click.option("--frames", type=click.IntRange(1), metavar="N", help="Of a clip, prompt included; default: the context.")
@click.option("--samples", type=click.IntRange(1), default=8, show_default=True, metavar="N", help="How many clips.")
@click.option("--kind", type=click.Choice(["video", "image"]), default="video", show_default=True, help="Start id.")
@click.option(
    "--regime",
    type=click.Choice(["free", "frame", "token"]),
    default="free",
    show_default=True,
    help="What is read: what was made; for each frame the true ones before; for each token all true ones before.",
)
@click.option("--data", metavar="URI", help="Prompts from another dataset than the model was trained on.")
@click.option("--split", default="val", show_default=True, metavar="NAME", help="Where prompts come from.")
@click.option("--temperature", type=float, default=1.0, show_default=True, help="Below 1: safer; above: wilder.")
@click.option("--top-k", type=int, metavar="K", help="Only the K most likely codes.")
@click.option("--top-p", type=float, metavar="P", help="Only the likeliest codes that together reach P.")
@click.option("--greedy", is_flag=True, help="The most likely code, always.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of prompts and of samples.")
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True, help="Clips at once on a GPU.")
@click.option("--precision", type=click.Choice(["bf16", "fp32"]), default="fp32", show_default=True)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Default: RUN/generated/STEP.")
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def generate(
    ckpt: str,
    frames_prompt: int | None,
    frames: int | None,
    samples: int,
    kind: "Kind",
    regime: "Regime",
    data: str | None,
    split: str,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    greedy: bool,
    seed: int,
    batch: int,
    precision: str,
    device: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """Go on from true frames, or from nothing; more frames than the model's context are made half a context at a time.

    \b
    Example: toto-train generate --ckpt runs/tiny
             toto-train generate --ckpt runs/large --frames-prompt 4 --frames 64 --top-k 100
             toto-train generate --ckpt runs/large --frames-prompt 0 --kind image --samples 16
    """
    from toto.train import generate as generation
    from toto.train.hardware import choose_device, use_cores
    from toto.train.load import load_model
    from toto.train.prompts import Asked, no_prompts, prompts
    from toto.train.sampling import Sampling

    if data is not None and frames_prompt == 0 and regime == "free":
        raise UsageError("--data with --frames-prompt 0: nothing is read from it; leave one of them out")
    sampling = Sampling(temperature, top_k, top_p, greedy)
    use_cores()
    loaded = load_model(ckpt, choose_device(device))
    if precision == "bf16":
        loaded.model.bfloat16()
    frames = frames or loaded.context // (loaded.grid[0] * loaded.grid[1])
    prompt = frames // 2 if frames_prompt is None else frames_prompt
    wanted = generation.Generation(kind, frames, regime, sampling, seed, batch)
    wanted.check(prompt)
    if prompt or regime != "free":
        known = prompts(loaded, Asked(kind, prompt, frames, samples, seed, data, split), needs_truth=regime != "free")
    else:
        known = no_prompts(loaded, samples)
    codes = generation.generate(loaded, known, wanted, _progress(samples * (frames - prompt)))
    value = {
        "kind": kind,
        "regime": regime,
        "frames": frames,
        "frames_prompt": prompt,
        "samples": samples,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "greedy": greedy,
        "seed": seed,
        "precision": precision,
        "data": data,
        "split": split if known.clips else None,
        "checkpoint": str(loaded.path),
        "checkpoint_id": loaded.id,
        "step": loaded.step,
        "tokenizer": loaded.tokenizer,
        "dataset_ids": list(known.dataset_ids),
        "prompts": known.sources,
        "accuracy_by_frame": generation.accuracy_by_frame(codes, known),
        "copy_accuracy_by_frame": generation.copy_accuracy_by_frame(known, wanted),
    }
    _write(out or loaded.path.parent / "generated" / loaded.path.name, codes, known, value, loaded)
    if as_json:
        command.print_json(value)


def _write(folder: Path, codes: Any, known: Any, value: dict[str, Any], loaded: "Loaded") -> None:
    from toto.shards.ids import CODE_OFFSET, id_dtype
    from toto.train import generated

    files = [generated.write_tokens(folder, codes, known, id_dtype(loaded.used_ids - CODE_OFFSET))]
    pictures, remark = generated.write_pictures(folder, codes, known, loaded.tokenizer, known.fps)
    files += [generated.write_facts(folder, value), *pictures]
    command.say(_text(value))
    if remark:
        command.say(remark)
    for path in files:
        click.echo(path)
    value["files"] = [str(path) for path in files]


def _text(value: dict[str, Any]) -> str:
    """What was made, and how much of it is true, for a person."""
    made = value["frames"] - value["frames_prompt"]
    lines = [f"{value['samples']:,} clips of {value['frames']} frames ({value['kind']}), {made} of them made"]
    for name, shares in (("true codes", value["accuracy_by_frame"]), ("by copying", value["copy_accuracy_by_frame"])):
        if shares is not None:
            words = "  ".join("   –" if share is None else f"{share:.0%}".rjust(4) for share in shares)
            lines.append(f"  {name}, by frame  {words}")
    if value["prompts"] and value["accuracy_by_frame"] is None:
        lines.append(f"  no run of the dataset has {value['frames']} frames, so there is no truth to compare with")
    return "\n".join(lines)


def _progress(total: int) -> Any:
    """Counts frames on a terminal; silent elsewhere."""
    if not sys.stderr.isatty():
        return lambda clips: None
    done = 0

    def made(clips: int) -> None:
        nonlocal done
        done += clips
        click.echo(f"\r\x1b[Kgenerate {done:,}/{total:,} frames", nl=done == total, err=True)

    return made
