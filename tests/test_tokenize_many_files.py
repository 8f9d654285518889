"""Thousands of tiny files: each is a source with a row, and neither memory nor open files grow with their number.

2,000 here without Ray; `make drill` does 10,000 with it.
"""

import json
import resource
import subprocess
from pathlib import Path

import pytest
from clips import command, environment, run_arguments, write_pictures

from toto import Dataset

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads peak memory from /proc")

FEW, MANY = 200, 2000
OPEN_FILES = 48  # a run needs about 30
PEAK = """
import atexit
from pathlib import Path
@atexit.register
def tell():
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(int(line.split()[1]), flush=True)
"""


def tokenized(pictures: Path, out: Path) -> tuple[dict[str, object], int]:
    """What a run with few open files says in JSON, and its peak memory in KiB."""
    words = command("tokenize", "run", *run_arguments(pictures, out), "--tokenizer", "dct-512", "--json")
    words[2] = PEAK + words[2]
    done = subprocess.run(
        [*words, "--ray-address", "local"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES)),
    )
    assert done.returncode == 0, done.stderr
    *_, said, peak = done.stdout.splitlines()
    return json.loads(said), int(peak)


def test_two_thousand_tiny_files_take_the_memory_and_the_open_files_of_a_few(tmp_path: Path) -> None:
    peaks = {}
    for count in (FEW, MANY):
        said, peaks[count] = tokenized(write_pictures(tmp_path / str(count), count), tmp_path / f"set-{count}")
        assert (said["rows"], said["quarantined"]) == (count, 0)
    assert peaks[MANY] < peaks[FEW] + 48 * 1024, peaks  # plan, listing and results: some KiB for each source
    assert len({row.source for row in Dataset(tmp_path / f"set-{MANY}").rows()}) == MANY
