"""One dataset, whatever makes it: `local`, several `local` at once, Ray with few and many workers, tokenizer actors.

The Ray runs join one cluster of four CPUs, started here; test_tokenize_kill.py has runs that start their own.
"""

import os
import signal
import subprocess
import sys
import textwrap
import tokenize as stdlib_tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from clips import (
    PIXELS,
    ROOT,
    call,
    command,
    environment,
    one_line,
    reasons_of,
    run_arguments,
    tokenize,
    write_clips,
    write_video,
)
from drill import Content, content
from faults import import_path
from ray_run import MARK, Run, actors, events, new_mark, processes

from toto import Dataset
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

RAY = (pytest.mark.ray, pytest.mark.xdist_group("ray"))
CODES = ("--tokenizer", "dct-512", "--set", "datasets.folder.resolution=128")  # 256 codes a frame: 512 frames a unit
UNITS = 5
CLUSTER = """
import logging, sys, tempfile, ray
with tempfile.TemporaryDirectory(prefix="toto-") as folder:
    resources = dict(num_cpus=4, num_gpus=2, resources={"decode": 1.0}, object_store_memory=256 << 20)
    ray.init(address="local", _temp_dir=folder, logging_level=logging.ERROR, **resources)

    @ray.remote
    def whose():
        import tokenize, toto.tokenize.unit
        tokens = list(tokenize.generate_tokens(iter(["x = 1"]).__next__))
        return tokenize.__file__, len(tokens), toto.tokenize.unit.__name__

    print(ray.get_runtime_context().gcs_address, *ray.get(whose.remote()), flush=True)
    sys.stdin.read()
    ray.shutdown()
"""


def on_ray(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a test as one that needs Ray."""
    for mark in RAY:
        test = mark(test)
    return test


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("clips"), 2 * UNITS, 260)


@pytest.fixture(scope="module")
def expected(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Content:
    """What one `local` run makes of it."""
    out = tmp_path_factory.mktemp("local") / "set"
    done = tokenize(world, out, *CODES)
    assert done.returncode == 0, done.stderr
    assert Dataset(out).info["units"] == {"committed": UNITS, "planned": UNITS}
    return content(out)


@dataclass(frozen=True)
class RunningRay:
    """A Ray that somebody else started."""

    address: str
    mark: str  # of its processes
    whose: tuple[str, ...]  # a worker's `import tokenize`: its file, how it cuts "x = 1"; and one of ours

    @property
    def key(self) -> dict[str, str]:
        """The environment of those whom it lets in."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.mark}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRay]:
    """Four CPUs, started in the repository's root; files of certain names do harm to whoever opens them there."""
    ours = RunningRay("", new_mark(), ())
    env = environment(**{MARK: ours.mark}, **ours.key) | {"PYTHONPATH": import_path(tmp_path_factory.mktemp("faults"))}
    words = [sys.executable, "-c", CLUSTER]
    ray = subprocess.Popen(words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert ray.stdout is not None
    try:
        address, *whose = ray.stdout.readline().split()
        yield replace(ours, address=address, whose=tuple(whose))
    finally:
        ray.communicate(timeout=60)  # it ends with its stdin


@on_ray
@pytest.mark.parametrize("workers", [1, 5])  # the fifth finds no room; nothing may wait for it
def test_ray_makes_what_local_makes(
    workers: int, world: Path, expected: Content, cluster: RunningRay, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    how = ("--ray-address", cluster.address, "--workers", str(workers))
    done = call("tokenize", "run", *run_arguments(world, out), *CODES, *how, **cluster.key)
    assert done.returncode == 0, done.stderr
    assert content(out) == expected


@on_ray
def test_two_workers_with_a_tokenizer_actor_that_is_killed_make_the_same(
    world: Path, expected: Content, cluster: RunningRay, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    how = ("--ray-address", cluster.address, "--workers", "2", "--tokenizer-actors", "1")
    run = Run(world, out, *CODES, *how, **cluster.key)
    run.wait_for_commits(1)
    assert run.committed() < UNITS
    (tokenizer,) = actors(cluster.mark, "TokenizerActor")
    os.kill(tokenizer, signal.SIGKILL)
    assert run.end() == 0, run.stderr()
    assert content(out) == expected


@on_ray
def test_where_the_device_is_a_gpu_each_one_gets_a_tokenizer_actor_and_workers_go_where_they_may(
    world: Path, expected: Content, cluster: RunningRay, tmp_path: Path
) -> None:
    """The two GPUs are Ray's word only, which hands them out as if they were there; `dct` needs none."""
    out = tmp_path / "set"
    code = f"""
        from dataclasses import replace
        from toto.tokenize.cli import resolve
        from toto.tokenize.run import Options, tokenize
        sets = [f"datasets.folder.{{s}}" for s in ("root={world}", "stride=1", "resolution=128")]
        target = resolve("folder", "dct-512", {str(out)!r}, tuple(sets), ())
        options = Options({cluster.address!r}, workers=2, worker_resource="decode", quiet=True)
        tokenize(target.config, replace(target.job, device="cuda"), options)
    """
    words = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(words, env=environment(**cluster.key), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert content(out) == expected
    assert sorted(line["gpus"] for line in events(out, "tokenizer")) == [["0"], ["1"]]


@on_ray
def test_sigterm_ends_a_run_on_somebody_elses_ray_and_leaves_the_ray(
    world: Path, expected: Content, cluster: RunningRay, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    run = Run(world, out, *CODES, "--ray-address", cluster.address, "--workers", "1", **cluster.key)
    run.wait_for_commits(1)
    run.process.terminate()
    assert run.end() == 143, run.stderr()
    assert 0 < Dataset(out).info["units"]["committed"] == run.committed() < UNITS
    assert content(out).rows < expected.rows
    assert any("raylet" in words for words in processes(cluster.mark).values())


@on_ray
def test_bad_sources_do_not_stop_a_run_on_ray(cluster: RunningRay, tmp_path: Path) -> None:
    wanted = {"loop": "timeout", "be_killed": "oom", "read_past_null": "crash"}
    for name in ("good", *wanted):
        write_video(tmp_path / "clips" / f"{name}.mp4", 20)
    how = ("--ray-address", cluster.address, "--workers", "1", "--set", "datasets.folder.decode_timeout_s=2")
    done = call("tokenize", "run", *run_arguments(tmp_path / "clips", tmp_path / "set"), *PIXELS, *how, **cluster.key)
    assert done.returncode == 0, done.stderr
    assert reasons_of(tmp_path / "set") == {f"{name}.mp4": reason for name, reason in wanted.items()}
    assert [row.source for row in Dataset(tmp_path / "set").rows()] == ["good.mp4"]


@on_ray
def test_a_source_that_kills_its_worker_is_found_and_no_other_is_blamed(cluster: RunningRay, tmp_path: Path) -> None:
    clips, out = tmp_path / "clips", tmp_path / "set"
    for seed, name in enumerate(("a", "kill_worker", "z")):
        write_video(clips / f"{name}.mp4", 20, seed=seed)
    how = ("--ray-address", cluster.address, "--workers", "1")
    done = call("tokenize", "run", *run_arguments(clips, out), *PIXELS, *how, **cluster.key)
    assert done.returncode == 0, done.stderr
    assert reasons_of(out) == {"kill_worker.mp4": "crash"}
    (bad,) = Dataset(out).quarantine().to_pylist()
    assert "alone" in bad["detail"]
    assert sorted(row.source for row in Dataset(out).rows()) == ["a.mp4", "z.mp4"]
    assert [line["what"] for line in events(out, "death")] == ["worker"] * 5  # two of the unit, three of the source


@pytest.mark.parametrize("engine", [pytest.param("ray", marks=RAY), "local"])
def test_a_tokenizer_that_gives_other_codes_is_refused_in_one_line(
    engine: str, world: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "set" / "plan").mkdir(parents=True)
    (tmp_path / "set" / "plan" / "canary.json").write_text('{"codes": []}')
    how, key = ("--ray-address", "local"), {}
    if engine == "ray":
        cluster: RunningRay = request.getfixturevalue("cluster")
        how, key = ("--ray-address", cluster.address, "--workers", "1", "--tokenizer-actors", "1"), cluster.key
    done = call("tokenize", "run", *run_arguments(world, tmp_path / "set"), *CODES, *how, **key)
    assert done.returncode == 1
    assert one_line(done.stderr, "canary"), done.stderr


@pytest.mark.parametrize("address", ["127.0.0.1:9", "no-address"])
def test_a_cluster_that_is_not_there_is_told_in_one_line(address: str, world: Path, tmp_path: Path) -> None:
    done = call("tokenize", "run", *run_arguments(world, tmp_path / "set"), *PIXELS, "--ray-address", address)
    assert done.returncode == 1
    assert one_line(done.stderr, f"cannot join Ray at {address}")


@on_ray
def test_tokenize_is_the_standard_librarys_in_a_worker_from_the_repositorys_root(cluster: RunningRay) -> None:
    assert cluster.whose == (stdlib_tokenize.__file__, "5", "toto.tokenize.unit")


def test_four_local_processes_share_one_target(world: Path, expected: Content, tmp_path: Path) -> None:
    out = tmp_path / "set"
    words = command("tokenize", "run", *run_arguments(world, out), *CODES, "--ray-address", "local")
    four = [subprocess.Popen(words, env=environment(), stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for process in four:
        _, said = process.communicate(timeout=240)
        assert process.returncode == 0, said
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
        monkeypatch.setattr(writer, "ZSTD_LEVEL", 9)  # the same rows in other bytes, under another name
        assert not run_unit(worker, unit, uris)
    (commit,) = read_commits(store)
    assert commit.shard is not None
    assert len({name for name in published if name.startswith("shards/")}) == 2
    assert store.list("shards") == [commit.shard.path]
    assert store.list("sources") == [commit.sources.path]
