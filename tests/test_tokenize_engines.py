"""One dataset, whatever makes it: one `local` run or several at once. test_tokenize_cluster.py has what Ray makes."""

import runpy
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import warm
from clips import PIXELS, SECONDS, call, environment, one_line, run_arguments, tokenize
from drill_tokenize import Content, content
from unit_clips import CODES, local_content, write_units

from toto.errors import UserError
from toto.shards import writer
from toto.shards.commit import committed_units, read_commits
from toto.shards.store import LocalStore, open_store
from toto.shards.verify import verify
from toto.tokenize.cli import resolve
from toto.tokenize.engine_local import open_worker
from toto.tokenize.estimate import Estimator
from toto.tokenize.plan import extend_plans, read_plans
from toto.tokenize.sources import list_sources
from toto.tokenize.unit import run_unit


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_units(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def expected(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Content:
    """What one `local` run makes of it."""
    return local_content(world, tmp_path_factory.mktemp("local") / "set")


def test_a_tokenizer_that_gives_other_codes_is_refused_in_one_line(world: Path, tmp_path: Path) -> None:
    (tmp_path / "set" / "plan").mkdir(parents=True)
    (tmp_path / "set" / "plan" / "canary.json").write_text('{"codes": []}')
    done = tokenize(world, tmp_path / "set", *CODES)
    assert done.returncode == 1
    assert one_line(done.stderr, "canary"), done.stderr


@pytest.mark.parametrize("address", ["127.0.0.1:9", "no-address"])
def test_a_cluster_that_is_not_there_is_told_in_one_line(address: str, world: Path, tmp_path: Path) -> None:
    done = call("tokenize", "run", *run_arguments(world, tmp_path / "set"), *PIXELS, "--ray-address", address)
    assert done.returncode == 1
    assert one_line(done.stderr, f"cannot join Ray at {address}")
    assert not (tmp_path / "set").exists()  # nothing was planned


def test_a_ray_that_is_too_slow_to_start_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray waits 30 s, then raises a bare Exception."""

    def init(**_: Any) -> None:
        raise Exception("The current node timed out during startup. This could happen because …")

    stand_in = SimpleNamespace(init=init, shutdown=lambda: None, is_initialized=lambda: False)
    monkeypatch.setitem(sys.modules, "ray", stand_in)
    for name in ("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "RAY_AUTH_TOKEN", "RAY_worker_niceness"):
        monkeypatch.setenv(name, "0")
    spec = find_spec("toto.tokenize.ray_session")
    assert spec is not None and spec.origin is not None
    session = runpy.run_path(spec.origin)
    with pytest.raises(UserError, match="or without Ray: --ray-address local"):
        session["connected"](session["Cluster"](None, 1)).__enter__()


def test_four_local_processes_share_one_target(world: Path, expected: Content, tmp_path: Path) -> None:
    out = tmp_path / "set"
    words = ["run", *run_arguments(world, out), *CODES, "--ray-address", "local"]
    said = [(tmp_path / f"stdout-{i}", tmp_path / f"stderr-{i}") for i in range(4)]
    four = [warm.start("tokenize", words, output, environment()) for output in said]
    for process, (_, stderr) in zip(four, said, strict=True):
        process.join(SECONDS)
        assert process.exitcode == 0, stderr.read_text()
    assert content(out) == expected
    store = open_store(out)
    assert committed_units(store) == set(read_plans(store).units)
    assert verify(store, deep=True).leftovers == []
    assert [path.name for path in (out / "tmp").iterdir()] == ["seal.lock"]


def test_the_loser_of_a_race_takes_its_files_away(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = (f"datasets.folder.root={world}", "datasets.folder.stride=1", "datasets.folder.keep_pixels=16")
    target = resolve("folder", "none", str(tmp_path / "set"), sets, ())
    store, listing = open_store(target.job.out), list_sources(target.config)
    plans = extend_plans(store, target.job, listing, Estimator(target.job).kept_frames, None)
    unit, *_ = plans.units.values()
    uris = {source.key: source.uri for source in listing.sources}
    published: list[str] = []
    publish = LocalStore.publish
    monkeypatch.setattr(LocalStore, "publish", lambda *given: (published.append(given[2]), publish(*given))[1])
    with open_worker(target.job) as worker:
        assert run_unit(worker, unit, uris)
        monkeypatch.setattr(writer, "ZSTD_LEVEL", 1)  # the same rows in other bytes, under another name
        assert not run_unit(worker, unit, uris)
    (commit,) = read_commits(store)
    assert commit.shard is not None
    assert len({name for name in published if name.startswith("shards/")}) == 2
    assert store.list("shards") == [commit.shard.path]
    assert store.list("sources") == [commit.sources.path]
