"""Changes files of a small dataset in many ways and reads it: what was written comes back, or a UserError, always.

    python tests/fuzz_shards.py --minutes 10                 # one core; findings go to fuzz-findings/
    python tests/fuzz_shards.py --executions 500 --seed 7    # the same 500 again

stale hashes    a damaged file: nothing else than was written may be read, and `verify --deep` must see it
fixed hashes    an attacker's file, all hashes match: UserError, or rows that obey the rules of the format

Readings happen in a process of their own (fuzz_target.py), with limits of memory and of time, which is the process's
own: a busy machine makes no findings. One that dies is a finding, inside pyarrow too, and the next begins. Findings
are listed in findings.jsonl, beside the changed files; `--first N --executions 1` with the same seed does one again.
tests/fuzz/ keeps what was found once; `test_shards_structure.py` reads it again.
"""

import argparse
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from fuzz_mutate import mutate
from fuzz_world import files_of, kind_of, make_world, with_file

MOST_CPU_S = 20.0  # of one reading; seconds of the processor
MOST_STILL_S = 60.0  # in which a reading does nothing at all
LOOKED_AT_EVERY_S = 0.5
LISTED = ("dataset.json", "manifest", "commits", "shards", "sources", "annotations", "views", "quarantine.parquet")


class Target:
    """The process that reads; a new one begins when it died."""

    def __init__(self, pristine: Path) -> None:
        self._pristine = pristine
        self._process: subprocess.Popen[str] | None = None

    def read(self, root: Path, fixed: bool, listed: bool) -> str:
        """What went wrong in reading the dataset; empty when nothing did."""
        process = self._process = self._process or self._begin()
        assert process.stdin and process.stdout
        try:
            process.stdin.write(json.dumps({"root": str(root), "fixed": fixed, "listed": listed}) + "\n")
            process.stdin.flush()
            late = self._late(process)
            line = "" if late else process.stdout.readline()
        except BrokenPipeError:
            late, line = "", ""
        if line:
            return str(json.loads(line)["said"])
        code = self.end()
        return late or f"the process ended with {code}, which is a signal when below 0"

    def _late(self, process: "subprocess.Popen[str]") -> str:
        """Waits for the answer; not empty when none comes."""
        begun = used = _cpu_seconds(process.pid)
        moved = time.monotonic()
        while not select.select([process.stdout], [], [], LOOKED_AT_EVERY_S)[0]:
            now = _cpu_seconds(process.pid)
            if now > begun + MOST_CPU_S:
                return f"took more than {MOST_CPU_S:.0f} s of CPU"
            if now > used:
                used, moved = now, time.monotonic()
            if time.monotonic() > moved + MOST_STILL_S:
                return f"stood still for {MOST_STILL_S:.0f} s"
        return ""

    def end(self) -> int:
        """Ends the process; its exit code."""
        process, self._process = self._process, None
        if process is None:
            return 0
        if process.poll() is None and process.stdout and not select.select([process.stdout], [], [], 0)[0]:
            process.kill()
        return process.wait()

    def _begin(self) -> "subprocess.Popen[str]":
        script = Path(__file__).with_name("fuzz_target.py")
        environment = {**os.environ, "TOTO_CACHE_BYTES": "0", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
        return subprocess.Popen(
            [sys.executable, str(script), str(self._pristine)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )


def _cpu_seconds(pid: int) -> float:
    """What a process has used of the processor, in its own name and the kernel's."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def fuzz(options: argparse.Namespace, scratch: Path) -> list[dict[str, Any]]:
    """Runs until the time or the number is over; what was found, each kind of finding once."""
    pristine = make_world(scratch / "pristine")
    names = files_of(pristine)
    kinds = sorted({kind_of(name) for name in names})
    target, found, counts = Target(pristine), {}, Counter[str]()
    begun, number = time.monotonic(), options.first
    while number < options.first + options.executions and time.monotonic() < begun + 60 * options.minutes:
        rng = Random(f"{options.seed}-{number}")
        number += 1
        kind = rng.choice([*kinds, "shards", "shards", "shards"])
        name = rng.choice([name for name in names if kind_of(name) == kind])
        data, fixed = (pristine / name).read_bytes(), rng.random() < 0.7
        if rng.random() < 0.03:
            how, changed = "swapped", (pristine / rng.choice(names)).read_bytes()
        else:
            how, changed = mutate(rng, data)
        listed = changed != data and kind in LISTED and not name.startswith("manifest/") | name.endswith(".json")
        said = target.read(with_file(pristine, scratch / "changed", name, changed, fixed), fixed, listed)
        counts[f"{kind} {'fixed' if fixed else 'stale'}"] += 1
        key = f"{kind}: {said.partition(': ')[0]}"
        if said and key not in found:
            found[key] = {"number": number - 1, "file": name, "how": how, "fixed": fixed, "said": said}
            _keep(options.out, f"{options.seed}-{number - 1}-{kind.partition('.')[0]}", found[key], changed)
        counts["findings"] += bool(said)
    target.end()
    done = {"executions": number - options.first, "seconds": round(time.monotonic() - begun), "seed": options.seed}
    print(json.dumps({**done, **counts}), flush=True)
    return list(found.values())


def _keep(folder: Path, name: str, found: dict[str, Any], changed: bytes) -> None:
    """The changed file, and a line that says what it did."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = f"{name}{Path(found['file']).suffix}"
    (folder / kept).write_bytes(changed)
    line = json.dumps({"kept": kept, **found})
    with open(folder / "findings.jsonl", "a") as findings:
        print(line, file=findings)
    print(line, flush=True)


def main() -> int:
    """Exit code 1 when something was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--executions", type=int, default=1 << 62)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first execution")
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"))
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="toto-fuzz-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    try:
        return 1 if fuzz(options, scratch) else 0
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
