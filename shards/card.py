"""The dataset card (README.md of a dataset): what it is, how it was made, how to read it."""

import json
from collections import Counter
from typing import Any

import pyarrow as pa

from toto.plain import counted, plain
from toto.shards.ids import CODE_OFFSET

NEIGHBOURS = {"left": "code left of it", "above": "code above it", "previous_frame": "code a frame before"}


def card_text(
    value: dict[str, Any],
    results: pa.Table,
    measured: dict[str, Any] | None = None,
    files: dict[str, list[str]] | None = None,
) -> str:
    """Markdown with Hub front matter, from a snapshot's values and its final per-source results.

    A seal writes it without the rest. `measured` is what `stats` found: a section of figures. `files`, the shards of
    each split, lets the Hub's viewer open them.
    """
    parts = [
        _front_matter(value, files),
        f"# {_words(value['name'])}: token shards\n",
        f"Videos and images as discrete tokens, made by toto {value['toto_version']}. "
        f"Dataset id `{value['dataset_id']}`.\n",
        _totals(value),
        _tokenizer(value),
        _settings(value["settings"]),
        _sources(value, results),
        *([] if measured is None else [codes_section(measured)]),
        _reading(value),
    ]
    return "\n".join(parts)


def _front_matter(value: dict[str, Any], files: dict[str, list[str]] | None) -> str:
    tags = ["video", "tokens", "toto", value["tokenizer"]["name"]]
    lines = ["---", f"pretty_name: {json.dumps(value['name'])}", "license: other", "tags:"]
    lines += [f"- {json.dumps(tag)}" for tag in tags]
    if files is not None:
        lines += ["size_categories:", f"- {_size_category(value['totals']['rows'])}", *_hub_files(files)]
    return "\n".join([*lines, "---\n"])


def _size_category(rows: int) -> str:
    """The Hub's name for so many rows."""
    for limit, name in ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M")):
        if rows < limit:
            return name
    return "1M<n<10M" if rows < 10**7 else "10M<n<100M" if rows < 10**8 else "n>100M"


def _hub_files(files: dict[str, list[str]]) -> list[str]:
    lines = ["configs:", "- config_name: default", "  data_files:"]
    for split, paths in files.items():
        lines += [f"  - split: {json.dumps(split)}", "    path:", *(f"    - {json.dumps(path)}" for path in paths)]
    return lines


def _totals(value: dict[str, Any]) -> str:
    lines = ["| split | shards | rows | frames | tokens | MB |", "|---|---:|---:|---:|---:|---:|"]
    for name, part in [*value["splits"].items(), ("total", value["totals"])]:
        counts = " | ".join(f"{part[key]:,}" for key in ("shards", "rows", "frames", "tokens"))
        lines.append(f"| {name} | {counts} | {part['bytes'] / 1e6:,.2f} |")
    units = value["units"]
    state = "complete" if units["committed"] == units["planned"] else "growing"
    lines.append(f"\nPlanned units in this snapshot: {units['committed']:,} of {units['planned']:,} ({state}).\n")
    if len(versions := value["made_by"]["versions"]) > 1:
        lines.append(f"Units were made by different versions of toto: {', '.join(versions)}.\n")
    return "\n".join(lines)


def _tokenizer(value: dict[str, Any]) -> str:
    spec = value["tokenizer"]
    apart = ("name", "id", "vocab_size", "trained_with")
    details = ", ".join(f"{key} {spec[key]}" for key in sorted(spec) if key not in apart)
    text = f"## Tokenizer\n\n`{_words(spec['name'])}`, {spec['vocab_size']:,} codes ({_words(details)}). "
    text += f"Id `{_words(spec['id'])}`.\n"
    if spec["vocab_size"]:
        text += f"\nIds: 0 pad, 1 video start, 2 end, 3 image start, code c is stored as c + {CODE_OFFSET}.\n"
    if spec.get("trained_with"):
        text += (
            f"\nIts weights were trained with {_words(spec['trained_with'])}; results on what that has seen say so.\n"
        )
    made_by = value["made_by"]
    if "precisions" in made_by:
        text += f"\nCodes were made in {' and '.join(made_by['precisions'])}"
        text += f"; at most {made_by['flips']:.2%} of the canary's codes differ from fp32.\n"
    drift = made_by["canary_differs"]
    return text + f"\nCodes of the canary pictures that differed between the workers: {drift:.4%} at most.\n"


def _words(text: Any) -> str:
    """A stranger's words on one line, as words: no heading, no code, no HTML."""
    return plain(" ".join(str(text).split())).replace("`", "'").replace("<", "&lt;")


def _settings(settings: dict[str, Any]) -> str:
    lines = ["## How frames were chosen\n", "| setting | value |", "|---|---|"]
    cells = {key: json.dumps(item).replace("|", "\\|").replace("`", "'") for key, item in sorted(settings.items())}
    lines += [f"| {key} | `{cell}` |" for key, cell in cells.items()]
    return "\n".join(lines) + "\n"


def _sources(value: dict[str, Any], results: pa.Table) -> str:
    totals = value["totals"]
    lines = [
        "## Sources\n",
        f"{totals['sources']:,} used ({totals['hours']:.3f} hours of video), {totals['quarantined']:,} quarantined.\n",
    ]
    if value["quarantine"]:
        lines += ["| quarantined because | sources |", "|---|---:|"]
        lines += [f"| {reason} | {count:,} |" for reason, count in value["quarantine"].items()]
        lines.append("\nEach of them stands in `quarantine.parquet` with its reason.\n")
    codecs = Counter(codec for codec in results["codec"].to_pylist() if codec)
    if codecs:
        lines.append("Codecs: " + ", ".join(f"{name} {count:,}" for name, count in codecs.most_common()) + ".\n")
    return "\n".join(lines)


def codes_section(measured: dict[str, Any]) -> str:
    """What `toto-shards stats` found in the codes; KeyError, TypeError … where these are other figures."""
    book, static = measured["codebook"], measured["static"]["share"]
    read = measured["read"]
    batches = counted(read["of_batches"], "record batch")
    which = f"all {batches}" if read["exact"] else f"a sample of {read['batches']:,} of {batches}"
    split = "" if measured["split"] is None else f" of split `{measured['split']}`"
    given = {name: pair["bits"] for name, pair in measured["given"].items() if pair["bits"] is not None}
    lines = [
        "## Codes\n",
        f"Counted in {which}{split} ({counted(measured['codes'], 'code')}).\n",
        "| figure | value |",
        "|---|---:|",
        f"| codes used | {book['used']:,} of {book['vocab_size']:,} ({book['share']:.1%}) |",
        f"| entropy of a code | {measured['entropy_bits']:.3f} bits |",
        *(f"| entropy given the {NEIGHBOURS[name]} | {bits:.3f} bits |" for name, bits in given.items()),
        *([] if static is None else [f"| codes equal to the one a frame before | {static:.1%} |"]),
        f"| bytes a token, stored | {measured['bytes']['per_token']:.3f} |",
    ]
    return "\n".join(lines) + "\n"


def _reading(value: dict[str, Any]) -> str:
    split = next(iter(value["splits"]), "train")
    return f"""## Reading

```python
import toto  # of the package toto-video

dataset = toto.Dataset("path/of/this/folder", split={split!r})
window = dataset.window(0, frames=16)  # [start] + 16 frames of tokens + [end], and where it came from
row = dataset.row(0)
```

The shards are plain Arrow IPC files. `toto-shards verify --deep` proves that every byte is as it was written.
"""
