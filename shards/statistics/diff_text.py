"""What `diff` found, for a person."""

import json
from typing import Any

from toto.plain import counted

SHOWN = 10  # of each kind
LONG = 60  # characters of a value


def diff_text(value: dict[str, Any]) -> str:
    """Plain lines: how the sides were made, sources, rows, shared runs."""
    lines = [_side(name, value[name]) for name in "ab"]
    if value["identical"]:
        lines.append("the same dataset id: the same rows, wherever they lie")
    lines += [f"{line['key']}: {_short(line['a'])} in a, {_short(line['b'])} in b" for line in value["differences"]]
    if not value["differences"]:
        lines.append("made alike: tokenizer, settings and annotations agree")
    lines += _sources(value["sources"])
    if (rows := value["rows"]) is not None:
        lines.append(
            f"rows: {rows['equal']:,} equal, {rows['different']:,} differ, {rows['only_a']:,} in a only, "
            f"{rows['only_b']:,} in b only"
        )
    if (runs := value["runs"]) is not None:
        lines += _runs(runs, value["a"]["rows"], value["b"]["rows"])
    elif any(line["key"] == "tokenizer.id" for line in value["differences"]):
        lines.append("frames: codes of other tokenizers are not compared")
    return "\n".join(lines)


def _side(name: str, side: dict[str, Any]) -> str:
    split = "" if side["split"] is None else f", split {side['split']}"
    rows = counted(side["rows"], "row")
    return f"{name}: {side['uri']}{split}: {side['tokenizer']}, {rows}, id {side['dataset_id'][:16]}"


def _sources(sources: dict[str, Any]) -> list[str]:
    lines = [
        f"sources: {sources['both']:,} in both, {sources['only_a']:,} in a only, {sources['only_b']:,} in b only; "
        f"{sources['same_file']:,} of these look like the same file under another key"
    ]
    examples = sources["examples"]
    lines += [f"  in both: {key}" for key in examples["both"][:SHOWN]]
    lines += [f"  the same file? {a} in a, {b} in b" for a, b in examples["same_file"][:SHOWN]]
    return lines


def _runs(runs: dict[str, Any], rows_a: int, rows_b: int) -> list[str]:
    lines = [
        f"shared frames: {runs['frames_a']:,} of a (they are in {runs['sources_a']:,} of its sources), "
        f"{runs['frames_b']:,} of b (in {runs['sources_b']:,}): in runs of {runs['least_frames']} or more that move, "
        "or as images"
    ]
    if runs["unsearched_a"] or runs["unsearched_b"]:
        lines.append(
            f"  not looked at: {runs['unsearched_a']:,} of {counted(rows_a, 'row')} of a and "
            f"{runs['unsearched_b']:,} of {rows_b:,} of b, where no {runs['least_frames']} frames "
            "that move follow one another"
        )
    if runs["every"] > 1:
        found = ", ".join(f"{share:.1%} of runs of {frames}" for frames, share in runs["recall"].items())
        lines.append(f"  one place in {runs['every']} was looked at: that finds {found} frames")
    if runs["runs_of_one_key"]:
        lines.append(f"  {counted(runs['runs_of_one_key'], 'run')} of one source that has the same key in both")
    if runs["too_common"]:
        lines.append(f"  in too many rows to be paired, as an intro is: {counted(runs['too_common'], 'place')}")
    if not runs["complete"]:
        lines.append("  there are more pairs than were kept; the list is not complete")
    if runs["source_pairs"]:
        shared, pairs = counted(runs["runs"], "shared run"), counted(runs["source_pairs"], "pair")
        lines.append(f"  {shared} of {pairs} of other keys; the worst:")
    lines += [
        f"  {counted(pair['frames'], 'frame')} in {pair['runs']:,}: {_place(pair['a'])} = {_place(pair['b'])}"
        for pair in runs["worst"][:SHOWN]
    ]
    return lines


def _place(place: dict[str, Any]) -> str:
    first, last = place["frame_index"]
    seconds = "" if place["seconds"] is None else f", {place['seconds'][0]:.2f} to {place['seconds'][1]:.2f} s"
    return f"{place['source']} run {place['run']} (frames {first} to {last}{seconds})"


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= LONG else f"{text[:LONG]}…"
