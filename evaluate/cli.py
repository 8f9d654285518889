"""toto-eval: checkpoints + shards -> numbers, each with its protocol and an interval. Needs no video library."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

import toto
from toto import command
from toto.errors import UsageError
from toto.evaluate.settings import METRICS, ONE_FRAME, POOLINGS, ProbeSettings
from toto.options import config_options, json_option
from toto.plain import counted
from toto.shards.commands.output_file import OutputFile

if TYPE_CHECKING:
    from toto.evaluate.compare import Comparison
    from toto.evaluate.results import Result

TASKS = {
    "probe": "classify videos or images by heads on frozen features of every layer (paper §4.1, §4.2)",
}


@click.group(cls=command.CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(toto.__version__, prog_name="toto-eval", message="%(prog)s %(version)s")
def cli() -> None:
    """Evaluate a checkpoint on token shards.

    \b
    Example:
      toto-eval probe --ckpt runs/demo/model --out runs/demo/probe
      toto-eval compare runs/demo/probe runs/demo/probe --layer-b 0
      toto-eval report runs/demo/probe --out report.html
    """


@cli.command()
@click.option("--ckpt", required=True, metavar="PATH|URI", help="A checkpoint, or a run.")
@click.option("--data", metavar="URI|NAME", help="Token dataset; default: tasks.probe.data of pipelines.yaml.")
@click.option("--layers", default="all", show_default=True, metavar="L,L…", help="0 is the embedding.")
@click.option("--poolings", default=",".join(POOLINGS), show_default=True, metavar="P,P…")
@click.option("--frames", type=click.IntRange(1), metavar="T", help="Frames of a window; 1: images, or a control.")
@click.option(
    "--stride", type=click.IntRange(1), metavar="S", help="Source frames from one to the next; default: the model's."
)
@click.option("--views", type=click.IntRange(1), metavar="K", help="Windows of a source at most; default 10.")
@click.option("--labels", metavar="TABLE", help="Annotation table with the labels; default: labels.")
@click.option("--train-split", default="train", show_default=True, metavar="NAME")
@click.option("--val-split", default="val", show_default=True, metavar="NAME")
@click.option("--epochs", type=click.IntRange(1), metavar="N", help="Of the attention heads; default 30.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Default: a folder in eval/ of the run.")
@config_options("tasks.probe.frames=16")
def probe(
    ckpt: str,
    data: str | None,
    layers: str,
    poolings: str,
    frames: int | None,
    stride: int | None,
    views: int | None,
    labels: str | None,
    train_split: str,
    val_split: str,
    epochs: int | None,
    seed: int,
    device: str,
    out: Path | None,
    sets: tuple[str, ...],
    configs: tuple[str, ...],
    as_json: bool,
) -> None:
    """What frozen features of every layer tell of a video's class, by average, frame-wise and attention pooling.

    Layer, pooling and penalty are chosen on held-out training sources; the validation split is read once. The
    one-frame control comes with it: the same heads on features of the first frame alone.

    \b
    Example: toto-eval probe --ckpt runs/tiny --layers 0,2,4
             toto-eval probe --ckpt runs/tiny --frames 1 --labels image_labels
    """
    from toto.config import load
    from toto.evaluate.probe_task import Request, data_uri, run_probe

    pipelines = load(configs, sets)
    task = pipelines.task("probe")
    base = ProbeSettings()
    settings = replace(
        base,
        frames=frames or task.frames,
        stride=stride or task.stride,
        layers=layer_numbers(layers),
        poolings=pooling_names(poolings),
        views=views or base.views,
        train_split=train_split,
        test_split=val_split,
        labels=labels or task.labels,
        attention=replace(base.attention, epochs=epochs or base.attention.epochs),
        seed=seed,
    )
    request = Request(ckpt, data_uri(data, "probe", pipelines), settings, device, out)
    result = run_probe(request, command.say)
    command.say(probe_text(result))
    if as_json:
        command.print_json({**result.value, "out": str(result.path)})


@cli.command("compare")
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--metric", type=click.Choice(list(METRICS)), default="top1", show_default=True)
@click.option("--layer-a", type=int, metavar="L", help="Default: the one that the held-out sources chose.")
@click.option("--layer-b", type=int, metavar="L")
@click.option("--pooling-a", type=click.Choice([*POOLINGS, ONE_FRAME]), help="Likewise; of the layer, if named.")
@click.option("--pooling-b", type=click.Choice([*POOLINGS, ONE_FRAME]))
@json_option
def compare_command(
    a: Path,
    b: Path,
    metric: str,
    layer_a: int | None,
    layer_b: int | None,
    pooling_a: str | None,
    pooling_b: str | None,
    as_json: bool,
) -> None:
    """The difference a - b of two results on the same sources, with a paired-bootstrap interval.

    A and B are result folders, or the same one twice with other layers or poolings.

    \b
    Example: toto-eval compare runs/demo/probe runs/demo/probe --layer-b 0
             toto-eval compare runs/demo/probe runs/demo/probe --pooling-b one-frame
    """
    from toto.evaluate.compare import compare, side
    from toto.evaluate.results import read_result

    sides = side(read_result(a), layer_a, pooling_a), side(read_result(b), layer_b, pooling_b)
    found = compare(*sides, metric=metric)
    command.say(compare_text(found))
    if as_json:
        command.print_json(found.value)


@cli.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DIR...")
@click.option("--out", type=OutputFile(), metavar="FILE", help="Default: report.html in the first DIR.")
@json_option
def report(results: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """One static HTML page of results: curves by layer, tables, paired differences, classes.

    \b
    Example: toto-eval report runs/demo/probe --out report.html
    """
    from toto.evaluate.report import write_report
    from toto.evaluate.results import read_result

    found = [read_result(path) for path in results]
    page = out or found[0].path / "report.html"
    write_report(found, page)
    click.echo(page)
    if as_json:
        command.print_json({"out": str(page), "results": [str(result.path) for result in found]})


@cli.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """The tasks that this version has.

    \b
    Example: toto-eval list
    """
    for name, what in TASKS.items():
        command.say(f"{name:<10} {what}")
    if as_json:
        command.print_json(TASKS)


def layer_numbers(text: str) -> tuple[int, ...] | None:
    """`all` or `0,3,5`; UsageError for anything else."""
    if text == "all":
        return None
    parts = text.split(",")
    if not all(part.strip().isdigit() for part in parts):
        raise UsageError(f"--layers {text}: all, or numbers with commas between them, 0 for the embedding")
    return tuple(sorted({int(part) for part in parts}))


def pooling_names(text: str) -> tuple[str, ...]:
    """`average,attention`; UsageError names the known ones."""
    names = [part.strip() for part in text.split(",")]
    for name in names:
        if name not in POOLINGS:
            raise UsageError(f"--poolings {text}: no pooling {name!r}; known: {', '.join(POOLINGS)}")
    return tuple(name for name in POOLINGS if name in names)


def probe_text(result: "Result") -> str:
    """`probe` for a person."""
    value = result.value
    poolings = [name for name in (*POOLINGS, ONE_FRAME) if any(head["pooling"] == name for head in value["heads"])]
    lines = [f"{'layer':<8}" + "".join(f"{name:>22}" for name in poolings)]
    for layer in sorted({head["layer"] for head in value["heads"]}):
        cells = []
        for pooling in poolings:
            head, mark = result.head(layer, pooling), "*" if (layer, pooling) == result.chosen else " "
            low, high = (100 * bound for bound in head["interval"])
            cells.append(f"{100 * head['top1']:.1f} % ({low:4.1f}–{high:4.1f}){mark}")
        lines.append(f"{layer:<8}" + "".join(f"{cell:>22}" for cell in cells))
    lines.append(f"chance {100 * value['chance']:.1f} %; in brackets: {value['interval_kind']}")
    low, high = (100 * bound for bound in value["interval"])
    (layer, pooling), counts = result.chosen, value["counts"]
    lines += [
        f"* layer {layer}, {pooling}, chosen on {value['chosen_on']}: top-1 {100 * value['top1']:.1f} % "
        f"({low:.1f} to {high:.1f}) on {counted(counts['test'], 'source')}, chance {100 * value['chance']:.1f} %",
        f"{result.path}: {value['protocol']}, {value['made_by']['seconds']:.1f} s",
    ]
    if counts["test_short"]:
        lines.insert(-1, f"short, with the last frame repeated: {counted(counts['test_short'], 'test source')}")
    return "\n".join(lines)


def compare_text(found: "Comparison") -> str:
    """`compare` for a person."""
    scale = 100
    unit = "points" if found.metric != "probability" else "points of probability"
    low, high = (scale * bound for bound in found.interval)
    return "\n".join(
        [
            f"a  {scale * found.values[0]:5.1f} %  {found.a.name}",
            f"b  {scale * found.values[1]:5.1f} %  {found.b.name}",
            f"a - b  {scale * found.difference:+.1f} {unit} ({low:+.1f} to {high:+.1f}, 95 %, paired bootstrap over "
            f"{counted(found.sources, 'source')}): {found.verdict}",
        ]
    )


def main() -> None:
    """The console script `toto-eval`."""
    command.run(cli)
