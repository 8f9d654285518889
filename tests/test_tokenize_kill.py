"""kill -9 of the driver, of the driver with all of its Ray, of Ray's node: the same dataset as without any kill.

Three kills here, of a worker in test_tokenize_cluster.py; `make drill` does twenty at random moments. One run goes on
with another number of workers, the other one without Ray.
"""

import os
import random
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from clips import PIXELS, one_line, tokenize
from drill_tokenize import ON_RAY, WITHOUT_RAY, Content, content, make_world, strike, undisturbed
from faults import waiting_path
from ray_cluster import HASTE
from ray_run import Run, processes

from toto import Dataset
from toto.shards.store import SCRATCH

pytestmark = [
    pytest.mark.ray,
    pytest.mark.xdist_group("ray_deaths"),
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds a run's processes through /proc"),
]

UNITS = 10
UNFINISHED = re.compile(r"[0-9a-f]{12}-\d+-[0-9a-f]{12}")  # of a unit


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("clips"), UNITS)


@pytest.fixture(scope="module")
def expected(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Content:
    return undisturbed(world, tmp_path_factory.mktemp("undisturbed") / "set")


@pytest.fixture(scope="module")
def runs() -> Iterator[list[Run]]:
    """Takes the runs of this file; at its end, no process of any is left."""
    taken: list[Run] = []
    yield taken
    for run in taken:
        run.wait_until_gone()


@pytest.mark.parametrize(
    ("victim", "then"), [("driver", ("--workers", "1")), ("everything", WITHOUT_RAY)], ids=["driver", "everything"]
)
def test_killed_in_the_middle_and_run_again(
    victim: str, then: tuple[str, ...], world: Path, expected: Content, runs: list[Run], tmp_path: Path
) -> None:
    path = waiting_path(tmp_path / "path", 2)
    done = strike(world, tmp_path / "set", victim, random.Random(victim), then, PYTHONPATH=path)
    runs += done.runs
    assert done.counts, f"struck when {done.committed} of {done.planned} units were committed"
    assert done.content == expected
    left = [path for path in (tmp_path / "set" / SCRATCH).iterdir() if UNFINISHED.fullmatch(path.name)]
    assert not left  # what the killed workers had begun is gone


def test_a_run_whose_own_ray_loses_its_node_ends_and_seals_what_is_done(
    world: Path, expected: Content, runs: list[Run], tmp_path: Path
) -> None:
    out, path = tmp_path / "set", waiting_path(tmp_path / "path", 2)
    run = Run(world, out, *PIXELS, *ON_RAY, "--quiet", PYTHONPATH=path, **HASTE)
    runs.append(run)
    run.wait_for_commits(1)
    (raylet,) = (pid for pid, words in processes(run.mark).items() if words.split(" ")[0].endswith("/raylet"))
    os.kill(raylet, signal.SIGKILL)
    assert run.end() == 1
    assert one_line(run.stderr(), "has died"), run.stderr()
    assert 0 < Dataset(out).info["units"]["committed"] == run.committed() < UNITS
    assert tokenize(world, out, *PIXELS).returncode == 0
    assert content(out) == expected


def test_ctrl_c_at_a_terminal_reaches_all_of_ray_and_seals_what_is_done(
    world: Path, expected: Content, runs: list[Run], tmp_path: Path
) -> None:
    extra = {"TMPDIR": str(tmp_path), "PYTHONPATH": waiting_path(tmp_path / "path", 2)}
    run = Run(world, tmp_path / "set", *PIXELS, *ON_RAY, **extra)  # too long a TMPDIR for Ray's sockets
    runs.append(run)
    run.wait_for_commits(1)
    os.killpg(run.process.pid, signal.SIGINT)  # as the terminal does: to the whole foreground group
    assert run.end() == 130, run.stderr()
    assert 0 < Dataset(tmp_path / "set").info["units"]["committed"] == run.committed() < UNITS
    assert content(tmp_path / "set").rows < expected.rows
