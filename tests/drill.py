"""The proofs that take longer than a test may: kill -9 at random moments, of runs of Ray and of trainers.

    .venv/bin/python tests/drill.py [--only PART] [--kills 20] [--files 10000] [--seed 0] [--json]

`tokenize` kills a worker, a driver, or all of its Ray, and then tokenizes 10,000 tiny pictures (drill_tokenize.py);
`train` kills trainers of one process and of two (drill_train.py); `launch` has Ray Train and torchrun lose a worker and
a node (drill_launch.py); `large` trains the paper's model two steps (drill_large.py). Each prints a line a kill. Exit
code 1 when anything differs from what nobody disturbed, a run does not reach its end, or a process stays behind.
"""

import argparse
import os
import random
import sys
import tempfile
from pathlib import Path

import drill_large
import drill_launch
import drill_tokenize
import drill_train

from toto.command import print_json


def main() -> int:
    """The command line; 1 when any kill did harm."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as commands have it, before the server imports torch
    parts = {"tokenize": tokenizing, "train": training, "launch": launching, "large": large}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=parts, help="one of them; default: all")
    parser.add_argument("--kills", type=int, default=20, help="of tokenize and of train")
    parser.add_argument("--files", type=int, default=10_000, help="tiny pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    given = parser.parse_args()
    found, harm = {}, False
    for part in [given.only] if given.only else parts:
        with tempfile.TemporaryDirectory(prefix="toto-drill-") as folder:
            found[part], harmed = parts[part](Path(folder), given)
        harm = harm or harmed
    if given.json:
        print_json(found)
    return int(harm)


def tokenizing(folder: Path, given: argparse.Namespace) -> tuple[dict[str, int], bool]:
    """Kills of runs of Ray, and a run over many files: what was counted, and whether anything was harmed."""
    drill = drill_tokenize.Drill(folder, given.seed)
    for victim in drill.victims(given.kills):
        drill.kill(victim)
    drill.check_processes()
    rows = drill_tokenize.many_files(folder, given.files)
    counts = drill.counts
    victims = ", ".join(f"{counts[victim]} of {victim}" for victim in drill_tokenize.VICTIMS)
    print(
        f"{given.kills} kills ({victims}): "
        f"{counts['same']} same datasets, {counts['different']} different, {counts['failed']} failed, "
        f"{counts['missed']} more struck too late to count; {counts['haunting']} runs left processes behind"
    )
    names = (*drill_tokenize.VICTIMS, "same", "different", "failed", "missed", "haunting")
    told = {**{name: counts[name] for name in names}, "files": given.files, "rows": rows}
    return told, counts["same"] < given.kills or counts["haunting"] > 0 or rows < given.files


def training(folder: Path, given: argparse.Namespace) -> tuple[dict[str, int], bool]:
    """Kills of trainers: what was counted, and whether anything was harmed."""
    counts = drill_train.drill_train(folder, given.kills, random.Random(given.seed))
    victims = ", ".join(f"{counts[victim]} of {victim}" for victim in drill_train.VICTIMS)
    print(
        f"{given.kills} kills of trainers ({victims}): {counts['same']} same runs, {counts['different']} different, "
        f"{counts['failed']} failed, {counts['missed']} more struck too late to count; {counts['half']} left half a "
        "checkpoint"
    )
    names = (*drill_train.VICTIMS, "same", "different", "failed", "missed", "half")
    return {name: counts[name] for name in names}, counts["same"] < given.kills or counts["different"] > 0


def launching(folder: Path, given: argparse.Namespace) -> tuple[dict[str, str], bool]:
    """What came of each launcher, and whether anything was harmed."""
    found = drill_launch.drill_launch(folder, random.Random(given.seed))
    return found, set(found.values()) != {"same"}


def large(folder: Path, given: argparse.Namespace) -> tuple[str, bool]:
    """What came of two steps of the real model, and whether anything is wrong."""
    found = drill_large.drill_large(folder)
    print(f"two steps of large, and its checkpoint: {found}", flush=True)
    return found, found != "same"


if __name__ == "__main__":
    sys.exit(main())
