"""Figures of `stats` and `ngrams` for a person."""

from typing import Any

from toto.plain import counted
from toto.shards.statistics.contexts import RELATIONS

FEW, MANY = 5, 20  # sources named at each end: by default, and with --by source


def stats_text(value: dict[str, Any], by: str | None = None) -> str:
    """Some thirty lines."""
    book, static, stored = value["codebook"], value["static"], value["bytes"]
    lines = [
        f"{value['uri']}{_split(value)}",
        f"  read            {_read(value)}",
        f"  codebook        {book['used']:,} of {book['vocab_size']:,} codes used ({book['share']:.1%}), "
        f"{book['dead']:,} dead",
        "  most frequent   " + ", ".join(f"{line['code']} ({line['share']:.2%})" for line in book["top"][:FEW]),
        f"  entropy         {value['entropy_bits']:.3f} bits a code; perplexity {value['perplexity']:,.1f}",
        *(_given(name, value["given"][name]) for name in RELATIONS),
        f"  static          {_still(static['share'])}",
    ]
    if (stretches := static["stretches"]) is not None:
        lines.append(
            f"  a code stays    {stretches['mean_frames']:.2f} frames on average, at most "
            f"{stretches['longest_frames']:,}; {stretches['share_of_codes']['8']:.1%} of codes stay 8 or more"
        )
    if (runs := value["frames_per_run"]) is not None:
        ends = runs["quantiles"]
        lines.append(
            f"  frames a run    {runs['mean']:.1f} on average, {ends['0.0']} to {ends['1.0']}, median {ends['0.5']}"
        )
    lines += [f"  windows         {w['windows']:,} of {w['frames']} frames, stride {w['stride']}"
              for w in value["windows"] if w["frames"] in (8, 16, 32) and w["stride"] == 1]  # fmt: skip
    given = stored["bound_given_a_neighbour"]
    lines.append(
        f"  bytes a token   {stored['per_token']:.3f} stored; {stored['bound_alone']:.3f} by each code's share alone"
        + (f", {given:.3f} given the best neighbour" if given is not None else "")
    )
    lines += _sources(value["sources"], MANY if by == "source" else FEW)
    for column, groups in value.get("by", {}).items():
        lines += [f"  by {column}", *(_group(column, line) for line in groups)]
    return "\n".join(lines)


def ngrams_text(value: dict[str, Any]) -> str:
    """One line for each n."""
    how = "a frame is one sequence" if value["wrap"] == "raster" else "within the rows of the grid"
    lines = [f"{value['uri']}{_split(value)}", f"  read            {_read(value)}; {how}"]
    for n, grams in value["grams"].items():
        top = grams["covered_by_top"]
        lines.append(
            f"  {n}-grams         {grams['distinct']:,} different of {grams['occurrences']:,} ({grams['coverage']:.3g} "
            f"of {grams['possible']:,} possible), {grams['once_share']:.1%} occur once, "
            f"{grams['entropy_bits']:.3f} bits, perplexity {grams['perplexity']:,.0f}"
            + (f"; the top 1 % cover {top['0.01']:.1%}" if top else "")
        )
    return "\n".join(lines)


def _split(value: dict[str, Any]) -> str:
    return "" if value["split"] is None else f", split {value['split']}"


def _read(value: dict[str, Any]) -> str:
    read = value["read"]
    what = f"{counted(value['frames'], 'frame')}, {counted(value['codes'], 'code')}"
    batches = counted(read["of_batches"], "record batch")
    if read["exact"]:
        return f"{what}: all there are, in {batches}"
    share = read["rows"] / read["of_rows"]
    return f"{what}: {read['batches']:,} of {batches}, {share:.2%} of the rows"


def _given(name: str, pair: dict[str, Any]) -> str:
    words = {"left": "the code left", "above": "the code above", "previous_frame": "a frame before"}
    if pair["bits"] is None:
        return f"  given           {words[name]}: there is none"
    error = pair["standard_error"]
    rest = f" ± {error:.3f}, by {counted(pair['contexts'], 'code')}" if error else ""
    return f"  given           {words[name]}: {pair['bits']:.3f} bits{rest}"


def _sources(sources: dict[str, Any], most: int) -> list[str]:
    lines = [f"  sources         {sources['count']:,}"]
    for name, words, form in (
        ("static_share", "static share", "{:.1%}"),
        ("entropy_bits", "own entropy", "{:.2f} bits"),
        ("codes_used", "codes used", "{:,.0f}"),
    ):
        if (ends := sources[name]) is not None:
            low, middle, high = (form.format(ends[q]) for q in ("0.1", "0.5", "0.9"))
            lines.append(f"  {words:<15} a tenth below {low}, half below {middle}, a tenth above {high}")
    for name, words in (("most_static", "most static"), ("least_diverse", "least diverse")):
        lines += [
            f"  {words:<15} {line['source']}: {_static(line['static_share'])}"
            f"{counted(line['codes_used'], 'code')}, {line['entropy_bits']:.2f} bits"
            for line in sources[name][:most]
        ]
    return lines


def _group(column: str, line: dict[str, Any]) -> str:
    static = line["static"] / line["compared"] if line["compared"] else None
    name = "none" if line[column] is None else " ".join(map(str, (line[column], *filter(None, [line.get("name")]))))
    return (
        f"    {name!s:<13} {counted(line['sources'], 'source')}, {counted(line['frames'], 'frame')}, "
        f"{_static(static)}{counted(line['codes_used'], 'code')}, {line['entropy_bits']:.3f} bits"
    )


def _still(share: float | None) -> str:
    return "no frame follows another" if share is None else f"{share:.1%} of codes equal the one a frame before"


def _static(share: float | None) -> str:
    return "" if share is None else f"{share:.1%} static, "  # none where no frame follows another
