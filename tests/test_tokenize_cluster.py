"""Nodes that come and go: no row is lost, none stands twice, and nobody is blamed."""

import os
from pathlib import Path

import pytest
from clips import PIXELS
from drill import Content, content, make_world, undisturbed
from ray_cluster import RayCluster
from ray_run import Run, events

pytestmark = [
    pytest.mark.ray,
    pytest.mark.xdist_group("ray"),
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds a run's processes through /proc"),
]


UNITS = 8


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_world(tmp_path_factory.mktemp("clips"))
    for path in sorted(folder.iterdir())[UNITS:]:
        path.unlink()
    return folder


@pytest.fixture(scope="module")
def expected(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Content:
    return undisturbed(world, tmp_path_factory.mktemp("undisturbed") / "set")


def test_a_node_that_is_killed_and_one_that_joins_change_nothing(
    world: Path, expected: Content, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sources and target are named as they are seen from this folder; the nodes have another."""
    monkeypatch.chdir(world.parent)
    out = Path(os.path.relpath(tmp_path / "set"))
    with RayCluster() as cluster:
        cluster.add(2)
        run = Run(Path(world.name), out, *PIXELS, "--ray-address", cluster.address, **cluster.key)
        run.wait_for_commits(1)
        cluster.kill(0)
        committed = run.committed()
        cluster.add(2)  # the run waits for it: there is no other
        assert run.end() == 0, run.stderr()
    assert 1 <= committed < UNITS
    assert content(out) == expected
    assert len({unit["worker"]["node"] for unit in events(out, "unit")}) == 2
    assert {death["what"] for death in events(out, "death")} == {"node"}
