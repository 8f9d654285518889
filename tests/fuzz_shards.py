"""Changes files of a small dataset in many ways and reads it: what was written comes back, or a UserError, always.

    python tests/fuzz_shards.py --minutes 10                 # one core; findings go to fuzz-findings/
    python tests/fuzz_shards.py --executions 500 --seed 7    # the same 500 again

stale hashes    a damaged file: nothing else than was written may be read, and `verify --deep` must see it
fixed hashes    an attacker's file, all hashes match: UserError, or rows that obey the rules of the format

Readings happen in a process of their own (fuzz_target.py), with limits of memory and time. One that dies is a finding,
and the next begins. tests/fuzz/ keeps what was found once; `test_shards_structure.py` reads it again.
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

MOST_SECONDS = 20.0  # of one reading
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
            ready, _, _ = select.select([process.stdout], [], [], MOST_SECONDS)
            line = process.stdout.readline() if ready else ""
        except BrokenPipeError:
            ready, line = [process.stdout], ""
        if line:
            return str(json.loads(line)["said"])
        if ready:
            return f"the process ended with {self.end()}, which is a signal when below 0"
        self.end()
        return f"took more than {MOST_SECONDS:.0f} s"

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


def fuzz(options: argparse.Namespace, scratch: Path) -> list[dict[str, Any]]:
    """Runs until the time or the number is over; what was found, each kind of finding once."""
    pristine = make_world(scratch / "pristine")
    names = files_of(pristine)
    kinds = sorted({kind_of(name) for name in names})
    target, found, counts = Target(pristine), {}, Counter[str]()
    begun, number = time.monotonic(), 0
    while number < options.executions and time.monotonic() < begun + 60 * options.minutes:
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
            found[key] = {"file": name, "how": how, "fixed": fixed, "number": number - 1, "said": said}
            folder = options.out / f"{len(found):03d}-{kind.partition('.')[0]}"
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.with_suffix(Path(name).suffix).write_bytes(changed)
            print(json.dumps(found[key]), flush=True)
        counts["findings"] += bool(said)
    target.end()
    seconds = time.monotonic() - begun
    print(json.dumps({"executions": number, "seconds": round(seconds), "seed": options.seed, **counts}), flush=True)
    return list(found.values())


def main() -> int:
    """Exit code 1 when something was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--executions", type=int, default=1 << 62)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"))
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="toto-fuzz-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    try:
        return 1 if fuzz(options, scratch) else 0
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
