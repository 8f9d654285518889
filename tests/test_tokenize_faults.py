"""Sources whose decoding hangs, crashes or eats memory, through the whole of `toto-tokenize run`: they stand in
quarantine with their reason, the rest is done, and `retry` takes them up again.

The same under Ray is in test_tokenize_engines.py; what the decoder itself does, in test_tokenize_decoder.py.
"""

import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from clips import PIXELS, call, command, environment, reasons_of, rows_of, run_arguments, write_video
from drill_tokenize import content
from faults import import_path, memory_group

from toto import Dataset

REASONS = {
    "later_sleep_in_c": "timeout",
    "later_loop": "timeout",
    "later_eat_memory": "oom",  # its child meets RLIMIT_AS
    "read_past_null": "crash",  # also when its header is read for the plan
}
GOOD = ("a", "m", "z")  # before, between and after
PATIENT = ("--set", "datasets.folder.decode_timeout_s=2", "--set", "datasets.folder.decode_memory_mb=512")


def key(name: str) -> str:
    return f"{name}.mp4"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips named as faults, which strike only where the faults are on the import path, and three without a fault."""
    folder = tmp_path_factory.mktemp("clips")
    for seed, name in enumerate((*GOOD, *REASONS)):
        write_video(folder / key(name), 20, seed=seed)
    return folder


@pytest.fixture(scope="module")
def struck(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of a run that all the faults struck."""
    out = tmp_path_factory.mktemp("struck") / "set"
    path = import_path(tmp_path_factory.mktemp("faults"))
    words = command("tokenize", "run", *run_arguments(world, out), *PIXELS, *PATIENT, "--ray-address", "local")
    done = subprocess.run(words, env=environment() | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return out


def test_each_bad_source_is_in_quarantine_with_its_reason(struck: Path) -> None:
    assert reasons_of(struck) == {key(name): reason for name, reason in REASONS.items()}


def test_the_rest_is_done(struck: Path) -> None:
    assert [row.source for row in Dataset(struck).rows()] == [key(name) for name in GOOD]


def test_what_timed_out_gets_its_rows_when_it_is_tried_again(struck: Path, world: Path, tmp_path: Path) -> None:
    out = shutil.copytree(struck, tmp_path / "set")
    arguments = (*run_arguments(world, out), *PIXELS)
    before = rows_of(out)
    done = call("tokenize", "retry", *arguments, "--reason", "timeout", "--ray-address", "local")
    assert done.returncode == 0, done.stderr
    timed_out = {key(name) for name, reason in REASONS.items() if reason == "timeout"}
    tries = [(line["key"], line["attempt"], line["status"]) for line in Dataset(out).sources().to_pylist()]
    assert {name for name, attempt, status in tries if (attempt, status) == (1, "ok")} == timed_out
    assert {name for name, attempt, status in tries if (attempt, status) == (0, "quarantined")} >= timed_out
    assert len(tries) == len(GOOD) + len(REASONS) + len(timed_out)
    assert Counter(row.source for row in Dataset(out).rows()) == Counter({*map(key, GOOD), *timed_out})
    assert before < content(out).rows  # as a multiset: what was there stays, and no row stands twice
    shown = call("tokenize", "status", *(word for word in arguments if word != "--quiet"), "--json")
    assert json.loads(shown.stdout.splitlines()[-1])["results"] == {"ok": 5, "oom": 1, "crash": 1}


def test_nothing_is_left_to_retry_of_a_reason_that_no_source_has(struck: Path, world: Path) -> None:
    done = call("tokenize", "retry", *run_arguments(world, struck), *PIXELS, "--reason", "empty", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing to do: no quarantined sources with reason 'empty'" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["units_done"] == 0


def test_a_source_that_the_kernel_kills_for_memory_is_in_quarantine_and_the_rest_done(tmp_path: Path) -> None:
    """The whole run lives in a memory cgroup of 512 MiB; where none can be made, RLIMIT_AS above stands in for it."""
    for name in ("a", "later_eat_memory", "z"):
        write_video(tmp_path / "clips" / key(name), 20)
    path = import_path(tmp_path / "faults")
    roomy = ("--set", "datasets.folder.decode_memory_mb=65536", "--ray-address", "local")
    words = command("tokenize", "run", *run_arguments(tmp_path / "clips", tmp_path / "set"), *PIXELS, *roomy)
    with memory_group(512 << 20) as group:
        inside = ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh", *words]
        env = environment() | {"PYTHONPATH": path}
        done = subprocess.run(inside, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert reasons_of(tmp_path / "set") == {"later_eat_memory.mp4": "oom"}
    (line,) = Dataset(tmp_path / "set").quarantine().to_pylist()
    assert "SIGKILL" in line["detail"]
    assert len(rows_of(tmp_path / "set")) == 2
