"""What datasets hold, in figures: one snapshot as lines, or several as the paper's Table 2."""

from typing import Any

import pyarrow.compute as pc

from toto.plain import counted
from toto.shards.dataset import Dataset
from toto.shards.manifest import final_results

COLUMNS = ("dataset", "instances", "tokens", "hours", "every frame", "frames", "MB", "bytes/token", "stride")
FOOTNOTE = """\
instances: sources that gave rows. tokens: ids as stored, a start and an end id in each row. every frame: codes that
all decoded frames of these sources would have, as the paper's Table 2 counts tokens; one crop of each. frames: as
stored, once for each crop. hours: of decoded video. MB: of shards, 10^6 bytes."""


def summary(value: dict[str, Any]) -> dict[str, Any]:
    """The facts of a snapshot that `info` shows; `value` is the content of dataset.json."""
    return {
        **{name: value[name] for name in ("dataset_id", "name", "splits", "units", "quarantine", "settings")},
        "tokenizer": value["tokenizer"]["name"],
        "vocab_size": value["tokenizer"]["vocab_size"],
        **value["totals"],
    }


def info_text(uri: str, value: dict[str, Any]) -> str:
    """One summary for a person."""
    units = value["units"]
    lines = [
        f"{uri}",
        f"  dataset id   {value['dataset_id']}",
        f"  tokenizer    {value['tokenizer']}, {value['vocab_size']:,} codes",
        f"  sources      {value['sources']:,} used, {value['quarantined']:,} in quarantine",
        f"  rows         {value['rows']:,} in {counted(value['shards'], 'shard')} ({value['bytes'] / 1e6:,.2f} MB)",
        f"  frames       {value['frames']:,}",
        f"  tokens       {value['tokens']:,} ids, start and end included",
        f"  hours        {value['hours']:.3f} of source video",
        f"  units        {units['committed']:,} of {units['planned']:,} planned",
    ]
    lines += [
        f"  {split:<12} {counted(part['rows'], 'row')}, {part['tokens']:,} ids"
        for split, part in value["splits"].items()
    ]
    return "\n".join(lines)


def table2(uri: str, dataset: Dataset) -> dict[str, Any]:
    """A dataset's summary with the figures of Table 2 beside it; reads the per-source results, no shard."""
    value = summary(dataset.info)
    results = final_results([dataset.sources()])
    decoded = pc.sum(results.filter(pc.equal(results["status"], "ok"))["frames_decoded"]).as_py() or 0
    codes = value["tokens"] - 2 * value["rows"]
    return {
        **value,
        "uri": uri,
        "instances": value["sources"],
        "codes": codes,
        "decoded_frames": decoded,
        "every_frame_codes": round(decoded * codes / value["frames"]) if value["frames"] else 0,
        "bytes_per_token": value["bytes"] / value["tokens"] if value["tokens"] else None,
        "stride": value["settings"].get("stride"),
    }


def total(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The last row of the table. A source that stands in two datasets counts twice."""
    names = ("instances", "rows", "frames", "tokens", "codes", "decoded_frames", "every_frame_codes", "hours", "bytes")
    sums: dict[str, Any] = {name: sum(line[name] for line in lines) for name in names}
    strides = {line["stride"] for line in lines}
    return {
        **sums,
        "hours": round(sums["hours"], 6),
        "bytes_per_token": sums["bytes"] / sums["tokens"] if sums["tokens"] else None,
        "stride": strides.pop() if len(strides) == 1 else None,
    }


def table_text(lines: list[dict[str, Any]], last: dict[str, Any]) -> str:
    """The table for a person."""
    rows = [COLUMNS, *(_row(line["uri"], line) for line in lines), _row("total", last)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    text = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    return "\n".join([*text, "", FOOTNOTE])


def _row(name: str, line: dict[str, Any]) -> tuple[str, ...]:
    each = line["bytes_per_token"]
    return (
        name,
        f"{line['instances']:,}",
        f"{line['tokens']:,}",
        f"{line['hours']:,.3f}" if line["hours"] else "–",
        f"{line['every_frame_codes']:,}",
        f"{line['frames']:,}",
        f"{line['bytes'] / 1e6:,.2f}",
        "–" if each is None else f"{each:.3f}",
        str(line["stride"] or "–"),
    )
