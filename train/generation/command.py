"""`toto-train generate`: frames that a checkpoint imagines, from held-out prompts, from files, or from nothing."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toto import command
from toto.errors import UsageError
from toto.options import json_option
from toto.plain import counted
from toto.train.options import OutputFolder

if TYPE_CHECKING:
    from toto.shards.recipe import Kind
    from toto.train.generation.generate import Generation, Made
    from toto.train.generation.prompts import Asked, Prompts
    from toto.train.generation.rollout import Regime
    from toto.train.load import Loaded

MOST_FRAMES = 100_000  # of a clip: hours, and 200 MB of random numbers


@click.command("generate")
@click.option("--ckpt", required=True, metavar="PATH|URI", help="A checkpoint, or a run: its newest one.")
@click.option(
    "--frames-prompt",
    type=click.IntRange(0),
    metavar="N",
    help="True frames to start from; default: half, of a context at most.",
)
@click.option(
    "--frames",
    type=click.IntRange(1, MOST_FRAMES),
    metavar="N",
    help="Of a clip, prompt included; default: the context.",
)
@click.option(
    "--samples", type=click.IntRange(1), metavar="N", help="How many clips; default: 8, or one for each file."
)
@click.option("--kind", type=click.Choice(["video", "image"]), default="video", show_default=True, help="Start id.")
@click.option(
    "--regime",
    type=click.Choice(["free", "frame", "token", "all"]),
    default="free",
    show_default=True,
    help="What is read: what was made; for each frame the true ones before; for each code all true ones before; "
    "all three, one after the other.",
)
@click.option(
    "--prompt",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Start from this video or picture (may be given again).",
)
@click.option("--data", metavar="URI|NAME", help="Prompts from another dataset than the model was trained on.")
@click.option("--split", default="val", show_default=True, metavar="NAME", help="Where prompts come from.")
@click.option("--temperature", type=float, default=1.0, show_default=True, help="Below 1: safer; above: wilder.")
@click.option("--top-k", type=int, metavar="K", help="Only the K most likely codes.")
@click.option("--top-p", type=float, metavar="P", help="Only the likeliest codes that together reach P.")
@click.option("--greedy", is_flag=True, help="The most likely code, always.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of prompts and of samples.")
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True, help="Clips at once.")
@click.option("--precision", type=click.Choice(["bf16", "fp32"]), default="fp32", show_default=True)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--movie", is_flag=True, help="An MP4 beside the GIF.")
@click.option("--out", type=OutputFolder(), metavar="DIR", help="Default: RUN/generated/STEP.")
@json_option
def generate(
    ckpt: str,
    frames_prompt: int | None,
    frames: int | None,
    samples: int | None,
    kind: "Kind",
    regime: str,
    files: tuple[Path, ...],
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
    movie: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Go on from true frames, or from nothing; more frames than the model's context are made half a context at a time.

    \b
    Example: toto-train generate --ckpt runs/tiny
             toto-train generate --ckpt runs/large --frames-prompt 4 --frames 64 --top-k 100
             toto-train generate --ckpt runs/large --frames-prompt 0 --kind image --samples 16
             toto-train generate --ckpt runs/large --prompt dog.mp4 --prompt cat.jpg --frames 32
    """
    from toto.train.generation.dataset import refuse_foreign
    from toto.train.generation.generate import Generation
    from toto.train.generation.prompts import Asked
    from toto.train.generation.rollout import REGIMES
    from toto.train.generation.sampling import Sampling
    from toto.train.hardware import choose_device, use_cores
    from toto.train.load import load_model

    regimes: tuple[Regime, ...] = REGIMES if regime == "all" else (regime,)  # type: ignore[assignment]
    if files and (data is not None or frames_prompt == 0):
        raise UsageError("--prompt with --data or with --frames-prompt 0: prompts come from one place; leave one out")
    if data is not None and frames_prompt == 0 and regime == "free":
        raise UsageError("--data with --frames-prompt 0: nothing is read from it; leave one of them out")
    sampling = Sampling(temperature, top_k, top_p, greedy)
    use_cores()
    loaded = load_model(ckpt, choose_device(device))
    folder = out or loaded.path.parent / "generated" / loaded.path.name
    refuse_foreign(folder)
    if precision == "bf16":
        loaded.model.halve()
    context_frames = loaded.context // (loaded.grid[0] * loaded.grid[1])
    frames = frames or context_frames
    prompt = min(frames, context_frames) // 2 if frames_prompt is None else frames_prompt
    samples = samples or len(files) or 8
    wanted = [Generation(kind, frames, each, sampling, seed, batch) for each in regimes]
    wanted[0].check(prompt)
    asked = Asked(kind, prompt, frames, samples, seed, data, split)
    with command.starting_anew():
        known = _known(loaded, files, asked, exact=frames_prompt is not None, needs_truth=regime != "free")
        made = _make(loaded, known, wanted)
    value = {
        "kind": kind,
        "regime": regime,
        "frames": frames,
        "frames_prompt": known.prompt,
        "samples": samples,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "greedy": greedy,
        "seed": seed,
        "precision": precision,
        "data": data,
        "prompt_files": [str(path) for path in files],
        "split": split if known.clips and not files else None,
        "checkpoint": loaded.place,
        "checkpoint_id": loaded.id,
        "step": loaded.step,
        "tokenizer": loaded.tokenizer,
        "dataset_ids": list(known.dataset_ids),
        "prompts": known.sources,
        **_figures(known, wanted, made),
    }
    _write(folder, made, known, value, loaded, movie)
    if as_json:
        command.print_json(value)


def _known(loaded: "Loaded", files: tuple[Path, ...], asked: "Asked", exact: bool, needs_truth: bool) -> "Prompts":
    """What the clips start from."""
    from toto.train.generation.files import prompts_of_files
    from toto.train.generation.prompts import no_prompts, prompts

    if files:
        return prompts_of_files(loaded, files, asked, exact)
    if asked.prompt or needs_truth:
        return prompts(loaded, asked, needs_truth)
    return no_prompts(loaded, asked.samples)


def _make(loaded: "Loaded", known: "Prompts", wanted: list["Generation"]) -> dict[str, "Made"]:
    """The clips of every regime."""
    from toto.train.generation.generate import make

    told = _progress(len(wanted) * len(known) * (wanted[0].frames - known.prompt))
    return {asked.regime: make(loaded, known, asked, told) for asked in wanted}


def _figures(known: "Prompts", wanted: list["Generation"], made: dict[str, "Made"]) -> dict[str, Any]:
    """How true each frame is: of the first regime, and by regime."""
    from toto.train.generation.generate import by_frame

    found = {asked.regime: by_frame(made[asked.regime], known, asked) for asked in wanted}
    return {**found[wanted[0].regime], "by_regime": found}


def _write(
    folder: Path, made: dict[str, "Made"], known: "Prompts", value: dict[str, Any], loaded: "Loaded", movie: bool
) -> None:
    from toto.shards.ids import CODE_OFFSET, id_dtype
    from toto.train.generation import generated

    codes = next(iter(made.values())).codes
    generated.remove_pictures(folder)
    files = [generated.write_tokens(folder, codes, known, id_dtype(loaded.used_ids - CODE_OFFSET))]
    dataset, value["dataset_id"] = generated.write_shards(folder, made, known, value, loaded)
    context_frames = loaded.context // (loaded.grid[0] * loaded.grid[1])
    curves, no_curves = generated.write_curves(folder, value["by_regime"], context_frames)
    pictures, no_pictures = generated.write_pictures(folder, codes, known, loaded.tokenizer, known.fps, movie)
    files += [dataset, generated.write_facts(folder, value), *curves, *pictures]
    command.say(_text(value))
    for remark in filter(None, (no_curves, no_pictures)):
        command.say(remark)
    for path in files:
        click.echo(path)
    value["files"] = [str(path) for path in files]


def _text(value: dict[str, Any]) -> str:
    """What was made, and how much of it is true, for a person."""
    made = value["frames"] - value["frames_prompt"]
    what = f"{counted(value['samples'], 'clip')} of {counted(value['frames'], 'frame')}"
    lines = [f"{what} ({value['kind']}), {made} of them made"]
    for regime, found in value["by_regime"].items():
        of = "" if len(value["by_regime"]) == 1 else f"{regime}:".ljust(7)
        for name, key in (("true codes", "accuracy_by_frame"), ("by copying", "copy_accuracy_by_frame")):
            if found[key] is not None:
                words = "  ".join("   –" if share is None else f"{share:.0%}".rjust(4) for share in found[key])
                lines.append(f"  {of}{name}, by frame  {words}")
        if found["loss_by_frame"] is not None:
            words = "  ".join("   –" if loss is None else f"{loss:.2f}" for loss in found["loss_by_frame"])
            lines.append(f"  {of}nats a code, by frame {words}")
    if value["prompts"] and value["accuracy_by_frame"] is None:
        lacking = "not every file" if value["prompt_files"] else "no run of the dataset"
        lines.append(f"  {lacking} has {counted(value['frames'], 'frame')}, so there is no truth to compare with")
    return "\n".join(lines)


def _progress(total: int) -> Any:
    """Counts frames on a terminal; silent elsewhere."""
    if not sys.stderr.isatty():
        return lambda clips: None
    done = 0

    def made(clips: int) -> None:
        nonlocal done
        done += clips
        click.echo(f"\r\x1b[Kgenerate {done:,}/{counted(total, 'frame')}", nl=done == total, err=True)

    return made
