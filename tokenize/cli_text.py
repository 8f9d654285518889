"""Plans and states of datasets in words, as toto-tokenize prints them."""

from collections.abc import Mapping

from toto.plain import counted
from toto.shards.seal import QUARANTINE
from toto.tokenize.cli_options import Target
from toto.tokenize.cost import Cost, Prices, cost_text
from toto.tokenize.status import Status


def plan_text(target: Target, planned: Cost, prices: Prices, ignored: dict[str, int], done: int) -> str:
    """The plan for a person; `done`: how many of its sources need not be done again."""
    job, left_out = target.job, left_out_text(ignored)
    if planned.sources is None:
        what = "  sources        not listed: the size is the paper's (Table 2)"
        how = "rates are measured on this machine, on made-up footage of 640×360 (pictures: 500×375)"
    else:
        what = f"  sources        {planned.sources:,} in {counted(planned.units or 0, 'unit')}"
        how = "estimated from container headers and a short calibration on this machine"
    if job.is_untrained:
        how += f"\n{target.tokenizer}'s weights are not here: its rate is that of random ones of the official shapes"
    lines = [
        f"{job.name} with {target.tokenizer} -> {job.out}",
        what + (f" (left out: {left_out})" if left_out else ""),
        *cost_text(planned, prices),
        how,
        *([f"done already at {job.out}: {done:,} of these sources; costs are of the whole"] if done else []),
    ]
    return "\n".join(lines)


def left_out_text(ignored: dict[str, int]) -> str:
    """What a listing left out, such as "12 .txt, 3 (in no official list)"."""
    return ", ".join(f"{count} {what}" for what, count in sorted(ignored.items()))


def changed_text(changed: list[str], done: list[str]) -> str:
    """What a run says of sources that are not the files any more that were planned, some of them `done` by it."""
    stay = len(changed) - len(done)
    parts = [f"{len(done):,} done now, from the files as they are"] if done else []
    parts += [f"the rows of {stay:,} stay as they were made"] if stay else []
    return (
        f"changed since they were planned: {counted(len(changed), 'source')} (first: {changed[0]}); {'; '.join(parts)}"
    )


def quarantine_text(out: str, reasons: Mapping[str, int]) -> str:
    """What is in quarantine, such as "empty 1, timeout 3", and where each source is named."""
    each = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
    return f"in quarantine: {each}; {out}/{QUARANTINE} (of the last seal) names each with its reason"


def status_text(out: str, found: Status) -> str:
    """The status for a person."""
    bad = {reason: count for reason, count in found.results.items() if reason != "ok"}
    lines = [
        f"{out}",
        f"  units        {found.committed_units} of {found.planned_units} done",
        f"  sources      {found.results['ok']} used, {sum(bad.values())} quarantined, of {found.planned_sources}",
        f"  rows         {found.rows:,} ({found.tokens:,} ids)",
    ]
    if bad:
        lines.append(f"  {quarantine_text(out, bad)}")
        lines += [f"    {reason:<12} {key}" for key, reason in found.first_quarantined.items()]
    for run_ in found.running:
        if run_.get("starting"):
            lines.append(f"  running      {run_['run']}: starting {run_['starting']}")
            continue
        counters, seconds = run_["counters"], max(run_["seconds"], 1e-9)
        eta = "" if run_["eta_s"] is None else f", {run_['eta_s']:,.0f} s left"
        lines.append(f"  running      {run_['run']}: {counters['kept'] / seconds:,.0f} kept frames/s{eta}")
    return "\n".join(lines)
