"""Results -> one static HTML page: curves by layer, tables, paired differences, classes, and what made the numbers."""

import html
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import toto
from toto.errors import UserError
from toto.evaluate.compare import Comparison, compare, side, within
from toto.evaluate.curve import DARK, LIGHT, draw_curve
from toto.evaluate.results import Result
from toto.evaluate.settings import ONE_FRAME, POOLINGS
from toto.files import write_whole
from toto.plain import counted
from toto.shards.look import page

NAMES = {ONE_FRAME: "one frame (control)"}
MOST_CLASSES = 40  # listed


def report_html(results: Sequence[Result]) -> str:
    """The whole page."""
    parts = [
        _head(results),
        page.section("Is it more than chance, and more than one frame?", "", *_comparisons(results)),
        *(page.section("Accuracy by layer", page.name(result.title), *_one(result)) for result in results),
        _facts(results),
        f"<footer>toto {toto.__version__} · toto-eval report</footer>",
    ]
    return page.document("Probes of frozen features", parts)


def sections_of(results: Sequence[Result]) -> list[str]:
    """Curves, tables and differences as parts of another page's section, HTML already."""
    parts = [part for result in results for part in _one(result)]
    return [*parts, "<h3>Is it more than chance, and more than one frame?</h3>", *_comparisons(results)]


def _one(result: Result) -> list[str]:
    return [_curve(result), _layers(result), _classes(result)]


def _head(results: Sequence[Result]) -> str:
    first = results[0]
    value, (layer, pooling) = first.value, first.chosen
    lead = (
        "Linear and attention heads, trained on the frozen hidden states of every layer. Layer and pooling were chosen "
        "on held-out training sources; the test sources were scored once."
    )
    figures = [("Top-1", percent(value["top1"]), span(value["interval"]))]
    figures.append(("Chosen", f"layer {layer}", f"{NAMES.get(pooling, pooling)} pooling"))
    heads = {(head["layer"], head["pooling"]): head for head in value["heads"]}
    if layer and (0, pooling) in heads:
        figures.append(("Embeddings", percent(heads[0, pooling]["top1"]), "layer 0, same pooling"))
    if any(name == ONE_FRAME for _, name in heads):
        control = side(first, None, ONE_FRAME)
        figures.append(("One frame", percent(heads[control.layer, ONE_FRAME]["top1"]), f"at layer {control.layer}"))
    figures.append(("Chance", percent(value["chance"]), counted(len(value["classes"]), "class")))
    figures.append(("Test sources", f"{value['counts']['test']:,}", counted(value["counts"]["test_windows"], "window")))
    over = '<p class="over">toto · checkpoints and shards in, numbers out</p>'
    named = page.name(value["checkpoint"]["name"])
    return f'{over}<h1>What {named} has learned</h1><p class="lead">{page.text(lead)}</p>{page.tiles(figures)}'


def _comparisons(results: Sequence[Result]) -> list[str]:
    rows = []
    for result in results:
        prefix = f"{result.title}: " if len(results) > 1 else ""
        rows += [_comparison_row(prefix + what, found) for what, found in within(result)]
    for other in results[1:]:
        try:
            found = compare(side(results[0]), side(other))
        except UserError:
            continue  # other sources: nothing to pair
        rows.append(_comparison_row(f"{results[0].title} against {other.title}", found))
    lead = (
        "Paired bootstrap over the test sources, 95 %: whole sources are drawn again and again, each with both of its "
        "scores. An interval that leaves out zero is a difference."
    )
    head = ("", "a", "b", "difference", "95 % interval", "")
    return [f'<p class="soft">{lead}</p>', _table(head, rows, "tllrrl") if rows else "<p>Nothing to compare.</p>"]


def _comparison_row(what: str, found: Comparison) -> tuple[str, ...]:
    a, b = (
        f"{percent(value)}<br>{soft(f'layer {s.layer}, {NAMES.get(s.pooling, s.pooling)}')}"
        for value, s in zip(found.values, (found.a, found.b), strict=True)
    )
    verdict = f"<b>{found.verdict}</b>" if found.verdict != "no difference shown" else found.verdict
    points = f"{100 * found.difference:+.1f} points"
    low, high = (f"{100 * value:+.1f}" for value in found.interval)
    return page.name(what), a, b, points, f"{low} to {high}", verdict


def _curve(result: Result) -> str:
    layer, pooling = result.chosen
    light, dark = (page.picture(draw_curve(result, theme), _told(result)) for theme in (LIGHT, DARK))
    night = dark.split('"')[1]
    picture = f'<picture><source media="(prefers-color-scheme: dark)" srcset="{night}">{light}</picture>'
    caption = (
        f"Shaded: intervals ({page.text(result.value['interval_kind'])}). Ring: layer {layer}, "
        f"{NAMES.get(pooling, pooling)} pooling, chosen on {page.text(result.value['chosen_on'])}."
    )
    return f'<figure><div class="shot">{picture}</div><figcaption>{caption}</figcaption></figure>'


def _told(result: Result) -> str:
    """The curve in words, for those who do not see it."""
    lines = []
    for pooling in (*POOLINGS, ONE_FRAME):
        points = [f"{head['layer']}: {percent(head['top1'])}" for head in _heads(result, pooling)]
        lines += [f"{NAMES.get(pooling, pooling)} by layer: {', '.join(points)}"] if points else []
    return "Top-1 accuracy. " + ". ".join(lines)


def _layers(result: Result) -> str:
    poolings = [p for p in (*POOLINGS, ONE_FRAME) if _heads(result, p)]
    layers = sorted({head["layer"] for head in result.value["heads"]})
    by_head = {(head["layer"], head["pooling"]): head for head in result.value["heads"]}
    rows = []
    for layer in layers:
        cells = ["embedding (0)" if layer == 0 else str(layer)]
        for pooling in poolings:
            head = by_head.get((layer, pooling))
            top1 = percent(head["top1"]) if head else ""
            marked = f"<b>{top1} ●</b>" if (layer, pooling) == result.chosen else top1
            cells.append(f"{marked}<br>{soft(span(head['interval']))}" if head else "")
        rows.append(tuple(cells))
    head_row = ("layer", *(NAMES.get(pooling, pooling) for pooling in poolings))
    lead = "Top-1 on the test sources, with 95 % intervals. ● chosen on held-out training sources."
    return f"<h3>Every head</h3><p class='soft'>{lead}</p>{_table(head_row, rows, 'l' + 'r' * len(poolings))}"


def _classes(result: Result) -> str:
    names = {entry["label"]: entry["name"] for entry in result.value["classes"]}
    table = result.predictions(*result.chosen).select(["label", "prediction"]).to_pylist()
    by_class: dict[int, Counter[int]] = {}
    for row in table:
        by_class.setdefault(row["label"], Counter())[row["prediction"]] += 1
    rows = []
    for label, found in sorted(by_class.items(), key=lambda item: item[1][item[0]] / item[1].total()):
        wrong = [(name, count) for name, count in found.most_common() if name != label][:1]
        taken = f"{page.name(names[wrong[0][0]])} {soft(f'{wrong[0][1]:,}×')}" if wrong else soft("never wrong")
        share = found[label] / found.total()
        rows.append((page.name(names[label]), f"{found.total():,}", _bar(share), percent(share), taken))
    left = len(rows) - MOST_CLASSES
    more = f"<p class='soft'>… and {counted(left, 'class')} more.</p>" if left > 0 else ""
    head = ("class", "sources", "", "right", "most often taken for")
    return f"<h3>Classes, hardest first</h3>{_table(head, rows[:MOST_CLASSES], 'lrlrl')}{more}"


def _facts(results: Sequence[Result]) -> str:
    blocks = []
    for result in results:
        value = result.value
        checkpoint, dataset, counts = value["checkpoint"], value["dataset"], value["counts"]
        made = value["made_by"]
        rows = [
            ("protocol", value["protocol"]),
            ("checkpoint", f"{checkpoint['path']}, step {checkpoint['step']:,}"),
            ("checkpoint id", checkpoint["id"]),
            ("model", checkpoint["model"]),
            ("dataset", dataset["uri"]),
            ("dataset id", dataset["id"]),
            ("training sources", f"{counts['fitted']:,} fitted, {counts['held_out']:,} held out for choosing"),
            ("test sources", f"{counts['test']:,}, of them {counts['test_short']:,} short: last frame repeated"),
            ("windows", f"{counts['train_windows']:,} training, {counts['test_windows']:,} test"),
            ("majority class", f"{percent(value['majority'])} of the test sources"),
            *((key.replace("_", " "), _setting(item)) for key, item in value["configuration"].items()),
            ("made by", f"toto {made['toto']}, torch {made['torch']}, {made['device']}, {made['seconds']:.0f} s"),
        ]
        blocks.append(f"<h3>{page.name(result.title)}</h3>{page.facts([(k, str(v)) for k, v in rows])}")
    return page.section("What made these numbers", "", *blocks)


def _setting(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _heads(result: Result, pooling: str) -> list[dict[str, Any]]:
    return [head for head in result.value["heads"] if head["pooling"] == pooling]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], align: str) -> str:
    """A table of cells that are HTML already; `align` has a letter for each column: l or r, t for text that wraps."""
    kinds = [{"l": "w", "r": "n", "t": ""}[letter] for letter in align]
    top = "".join(f'<th class="{kind}">{page.text(cell)}</th>' for cell, kind in zip(head, kinds, strict=True))
    body = "".join(
        "<tr>" + "".join(f'<td class="{k}">{cell}</td>' for cell, k in zip(row, kinds, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _bar(share: float) -> str:
    inner = f'<div style="width:{100 * share:.1f}%;height:100%;background:var(--accent);border-radius:4px"></div>'
    outer = "width:140px;height:8px;margin-top:.5em;background:var(--line);border-radius:4px"
    return f'<div style="{outer}" aria-hidden="true">{inner}</div>'


def soft(text: str) -> str:
    """A remark, in grey; escaped."""
    return f'<span class="soft">{html.escape(text)}</span>'


def percent(share: float) -> str:
    """`71.3 %`."""
    return f"{100 * share:.1f} %"


def span(interval: Sequence[float]) -> str:
    """`66.7 to 75.5 %`."""
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"


def write_report(results: Sequence[Result], out: Path) -> None:
    """Writes the page, whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, report_html(results).encode())
