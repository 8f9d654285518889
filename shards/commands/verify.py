"""`toto-shards verify`: prove that a dataset is whole, and say what is not."""

import sys
import time

import click

from toto import command
from toto.affinity import cores
from toto.plain import counted
from toto.shards.snapshot import DATASET
from toto.shards.store import open_store
from toto.shards.verify import Report
from toto.shards.verify import verify as verify_dataset

SHOWN_PROBLEMS = 50
SHOWN_EVERY_S = 0.2
NO_REPAIR = (
    "there is no repair: put these files back from a copy; without one, move the dataset away and make it anew, by the "
    "command that made it"
)


@click.command()
@click.argument("uri")
@click.option("--deep", is_flag=True, help="Read every byte: file hashes, batch hashes, every row.")
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Processes; default: as many as CPUs.")
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def verify(uri: str, deep: bool, workers: int | None, as_json: bool) -> int:
    """Prove that a dataset is as it was sealed; exit code 1 when it is not.

    \b
    Example: toto-shards verify --deep data/demo/dct-512-64
    """
    shown = _Progress(deep) if sys.stderr.isatty() else lambda done, units, bytes: None
    store = open_store(uri)
    report = verify_dataset(store, deep, shown, workers or cores())
    command.say(report_text(uri, report, deep))
    if not report.ok and store.exists(DATASET):  # else there is nothing to put back
        command.say(NO_REPAIR)
    if as_json:
        command.print_json({**vars(report), "ok": report.ok})
    return 0 if report.ok else 1


def report_text(uri: str, report: Report, deep: bool) -> str:
    """`verify` for a person."""
    checked = f"{counted(report.files, 'file')}, {report.bytes / 1e6:,.2f} MB"
    checked += f", {counted(report.rows, 'row')}" if deep else ""
    lines = [*report.problems[:SHOWN_PROBLEMS]]
    if len(report.problems) > SHOWN_PROBLEMS:
        lines.append(f"… and {len(report.problems) - SHOWN_PROBLEMS} more")
    if report.leftovers:
        left = counted(len(report.leftovers), "leftover")
        lines.append(f"{left} of unfinished runs, harmless (toto-tokenize status --clean)")
    verdict = "whole" if report.ok else counted(len(report.problems), "problem")
    how = "every byte was read" if deep else "names, sizes and small files; --deep reads every byte"
    lines.append(f"{uri}: {verdict} ({checked}; {how})")
    return "\n".join(lines)


class _Progress:
    """One line on a terminal: units, speed, and when it will be done."""

    def __init__(self, deep: bool) -> None:
        self._deep = deep
        self._begun = time.monotonic()
        self._shown = 0.0

    def __call__(self, done: int, units: int, bytes: int) -> None:
        now = time.monotonic()
        if done < units and now < self._shown + SHOWN_EVERY_S:
            return
        self._shown, seconds = now, max(now - self._begun, 1e-3)
        left = time.strftime("%H:%M:%S", time.gmtime(seconds * (units - done) / max(done, 1)))
        speed = f"{bytes / seconds / 1e6:,.0f} MB/s" if self._deep else f"{done / seconds:,.0f} units/s"
        line = f"verify {done:,}/{units:,} units · {speed} · {left} left"
        click.echo(f"\r\x1b[K{line if done < units else ''}", nl=False, err=True)
