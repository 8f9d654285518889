"""Plans and states of datasets in words, as toto-tokenize prints them."""

from toto.tokenize.cli_options import Target
from toto.tokenize.cost import Cost, Prices, cost_text
from toto.tokenize.status import Status


def plan_text(target: Target, planned: Cost, prices: Prices, ignored: dict[str, int]) -> str:
    """The plan for a person."""
    job, left_out = target.job, left_out_text(ignored)
    if planned.sources is None:
        what = "  sources        not listed: the size is the paper's (Table 2)"
        how = "rates are measured on this machine, on made-up footage of 640×360 (pictures: 500×375)"
    else:
        what = f"  sources        {planned.sources:,} in {planned.units:,} units"
        how = "estimated from container headers and a short calibration on this machine"
    if job.is_untrained:
        how += f"\n{target.tokenizer}'s weights are not here: its rate is that of random ones of the official shapes"
    lines = [
        f"{job.name} with {target.tokenizer} -> {job.out}",
        what + (f" (left out: {left_out})" if left_out else ""),
        *cost_text(planned, prices),
        how,
    ]
    return "\n".join(lines)


def left_out_text(ignored: dict[str, int]) -> str:
    """What a listing left out, such as "12 .txt, 3 (in no official list)"."""
    return ", ".join(f"{count} {what}" for what, count in sorted(ignored.items()))


def changed_text(changed: list[str], done: list[str]) -> str:
    """What a run says of sources that are not the files any more that were planned, some of them `done` by it."""
    stay = len(changed) - len(done)
    parts = [f"{len(done)} of them were done now, from the files as they are"] if done else []
    parts += [f"the rows of {stay} stay as they were made"] if stay else []
    return f"{len(changed)} sources were changed after they had been planned (first: {changed[0]}); {'; '.join(parts)}"


def status_text(out: str, found: Status) -> str:
    """The status for a person."""
    bad = sum(count for reason, count in found.results.items() if reason != "ok")
    lines = [
        f"{out}",
        f"  units        {found.committed_units} of {found.planned_units} done",
        f"  sources      {found.results['ok']} used, {bad} quarantined, of {found.planned_sources}",
        *(f"    {reason:<12} {count}" for reason, count in sorted(found.results.items()) if reason != "ok"),
        f"  rows         {found.rows:,} ({found.tokens:,} ids)",
    ]
    for run_ in found.running:
        counters, seconds = run_["counters"], max(run_["seconds"], 1e-9)
        eta = "" if run_["eta_s"] is None else f", {run_['eta_s']:,.0f} s left"
        lines.append(f"  running      {run_['run']}: {counters['kept'] / seconds:,.0f} kept frames/s{eta}")
    return "\n".join(lines)
