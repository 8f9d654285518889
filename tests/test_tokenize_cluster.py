"""On a Ray that somebody else started: what `local` makes, whatever workers, nodes and tokenizer actors come and go.

They join one cluster of four CPUs. test_tokenize_kill.py has runs that start their own Ray.
"""

import os
import signal
import subprocess
import sys
import textwrap
import tokenize as stdlib_tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from clips import PIXELS, ROOT, call, environment, one_line, reasons_of, run_arguments, write_image, write_video
from drill_tokenize import Content, content
from faults import import_path
from PIL import Image
from ray_cluster import RayCluster
from ray_run import WarmRun, actors, events, processes
from unit_clips import CODES, UNITS, local_content, write_units

from toto import Dataset

pytestmark = [
    pytest.mark.ray,
    pytest.mark.xdist_group("ray"),
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds a run's processes through /proc"),
]
WHOSE = """
import logging, ray, sys
ray.init(sys.argv[1], logging_level=logging.ERROR, log_to_driver=False)

@ray.remote
def whose():
    import tokenize, toto.tokenize.unit
    tokens = list(tokenize.generate_tokens(iter(["x = 1"]).__next__))
    return tokenize.__file__, len(tokens), toto.tokenize.unit.__name__, *toto.tokenize.__path__

print("found", *ray.get(whose.remote()))
ray.shutdown()
"""

WHY = """
import logging, ray, sys
from ray.exceptions import ActorUnavailableError
from toto.tokenize.last_words import End
from toto.tokenize.tokenizer_pool import why
ray.init(sys.argv[1], logging_level=logging.ERROR, log_to_driver=False)

@ray.remote(num_cpus=0)
class Encoder:
    def __init__(self, words, unavailable):
        self.words, self.unavailable = words, unavailable

    def end_before(self):
        if self.unavailable:  # as between its end and its new start
            self.unavailable -= 1
            raise ActorUnavailableError("Socket closed", None)
        return self.words

older, newer = Encoder.remote(End(1.0, "older"), 0), Encoder.remote(End(2.0, "newer"), 2)
silent, gone = Encoder.remote(None, 0), Encoder.remote(End(3.0, "never said"), 0)
death = RuntimeError("Ray's own words")
ray.kill(gone)
for actors in ([older, newer, silent, gone], [silent, gone], []):
    print("found", why(actors, death))
ray.shutdown()
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_units(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def expected(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Content:
    """What one `local` run makes of it."""
    return local_content(world, tmp_path_factory.mktemp("local") / "set")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """Started in the repository's root; files of certain names do harm to whoever opens them there."""
    with RayCluster(PYTHONPATH=import_path(tmp_path_factory.mktemp("faults"))) as cluster:
        yield cluster


def test_ray_makes_what_local_makes(world: Path, expected: Content, cluster: RayCluster, tmp_path: Path) -> None:
    out = tmp_path / "set"
    how = ("--ray-address", cluster.address, "--workers", "5")  # the fifth finds no room; nothing may wait for it
    done = call("tokenize", "run", *run_arguments(world, out), *CODES, *how, **cluster.key)
    assert done.returncode == 0, done.stderr
    assert content(out) == expected


def test_two_workers_with_a_tokenizer_actor_that_is_killed_make_the_same(
    world: Path, expected: Content, cluster: RayCluster, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    how = ("--ray-address", cluster.address, "--workers", "2", "--tokenizer-actors", "1")
    before = actors(cluster.mark, "TokenizerActor")  # of the run before, which may be ending still
    run = WarmRun(world, out, *CODES, *how, **cluster.key)
    run.wait_for_commits(1)
    assert run.committed() < UNITS
    (tokenizer,) = {*actors(cluster.mark, "TokenizerActor")}.difference(before)
    os.kill(tokenizer, signal.SIGKILL)
    assert run.end() == 0, run.stderr()
    assert content(out) == expected


def test_where_the_device_is_a_gpu_each_one_gets_a_tokenizer_actor_and_workers_go_where_they_may(
    world: Path, expected: Content, cluster: RayCluster, tmp_path: Path
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


def test_sigterm_ends_a_run_on_somebody_elses_ray_and_leaves_the_ray(
    world: Path, expected: Content, cluster: RayCluster, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    run = WarmRun(world, out, *CODES, "--ray-address", cluster.address, "--workers", "1", **cluster.key)
    run.wait_for_commits(1)
    os.kill(run.process.pid, signal.SIGTERM)
    assert run.end() == 143, run.stderr()
    assert 0 < Dataset(out).info["units"]["committed"] == run.committed() < UNITS
    assert content(out).rows < expected.rows
    assert any("raylet" in words for words in processes(cluster.mark).values())


def test_bad_sources_do_not_stop_a_run_on_ray(cluster: RayCluster, tmp_path: Path) -> None:
    wanted = {"loop": "timeout", "be_killed": "oom", "read_past_null": "crash"}
    for name in ("good", *wanted):
        write_video(tmp_path / "clips" / f"{name}.mp4", 20)
    how = ("--ray-address", cluster.address, "--workers", "1", "--set", "datasets.folder.decode_timeout_s=2")
    done = call("tokenize", "run", *run_arguments(tmp_path / "clips", tmp_path / "set"), *PIXELS, *how, **cluster.key)
    assert done.returncode == 0, done.stderr
    assert reasons_of(tmp_path / "set") == {f"{name}.mp4": reason for name, reason in wanted.items()}
    assert [row.source for row in Dataset(tmp_path / "set").rows()] == ["good.mp4"]


def test_a_source_that_kills_its_worker_is_found_and_no_other_is_blamed(cluster: RayCluster, tmp_path: Path) -> None:
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


def test_a_source_that_kills_its_tokenizer_actor_is_found_with_the_signal_and_the_others_go_on(
    cluster: RayCluster, tmp_path: Path
) -> None:
    clips, out = tmp_path / "clips", tmp_path / "set"
    for name in ("a", "z"):
        write_image(clips / f"{name}.png")
    Image.new("RGB", (40, 40), "white").save(clips / "white.png")
    how = ("--ray-address", cluster.address, "--workers", "1", "--tokenizer-actors", "1")
    done = call("tokenize", "run", *run_arguments(clips, out), *CODES, *how, **cluster.key)
    assert done.returncode == 0, done.stderr
    assert reasons_of(out) == {"white.png": "crash"}
    (bad,) = Dataset(out).quarantine().to_pylist()
    assert "tokenizer actor 3 times" in bad["detail"] and "Segmentation fault" in bad["detail"]
    assert sorted(row.source for row in Dataset(out).rows()) == ["a.png", "z.png"]
    deaths = events(out, "death")
    assert [(death["what"], death["source"]) for death in deaths] == [("tokenizer", None)] * 3 + [
        ("tokenizer", "white.png")
    ] * 3
    assert all("Segmentation fault" in death["cause"] for death in deaths)


def test_a_worker_that_is_killed_changes_nothing(
    world: Path, expected: Content, cluster: RayCluster, tmp_path: Path
) -> None:
    out, before = tmp_path / "set", actors(cluster.mark, "UnitActor")
    run = WarmRun(world, out, *CODES, "--ray-address", cluster.address, "--workers", "2", **cluster.key)
    run.wait_for_commits(1)
    os.kill(min({*actors(cluster.mark, "UnitActor")}.difference(before)), signal.SIGKILL)
    committed = run.committed()
    assert run.end() == 0, run.stderr()
    assert committed < UNITS
    assert content(out) == expected
    assert {death["what"] for death in events(out, "death")} == {"worker"}


def test_a_node_that_is_killed_and_one_that_joins_change_nothing(
    world: Path, expected: Content, cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sources and target are named as they are seen from this folder; the nodes have another."""
    monkeypatch.chdir(world.parent)
    out = Path(os.path.relpath(tmp_path / "set"))
    how = ("--ray-address", cluster.address, "--workers", "1", "--worker-resource", "joined")
    cluster.add(1)
    run = WarmRun(Path(world.name), out, *CODES, *how, **cluster.key)
    run.wait_for_commits(1)
    cluster.kill(0)
    committed = run.committed()
    cluster.add(1)  # the run waits for it: there is no other with its resource
    assert run.end() == 0, run.stderr()
    cluster.kill(1)
    assert 1 <= committed < UNITS
    assert content(out) == expected
    assert len({unit["worker"]["node"] for unit in events(out, "unit")}) == 2
    assert {death["what"] for death in events(out, "death")} == {"node"}


def test_a_tokenizer_that_gives_other_codes_is_refused_in_one_line(
    world: Path, cluster: RayCluster, tmp_path: Path
) -> None:
    """The same without Ray is in test_tokenize_engines.py."""
    (tmp_path / "set" / "plan").mkdir(parents=True)
    (tmp_path / "set" / "plan" / "canary.json").write_text('{"codes": []}')
    how = ("--ray-address", cluster.address, "--workers", "1", "--tokenizer-actors", "1")
    done = call("tokenize", "run", *run_arguments(world, tmp_path / "set"), *CODES, *how, **cluster.key)
    assert done.returncode == 1
    assert one_line(done.stderr, "canary"), done.stderr


def found(script: str, cluster: RayCluster) -> list[str]:
    """What a script, run in the repository's root, says that it found; Ray prints there, too."""
    words = [sys.executable, "-c", script, cluster.address]
    done = subprocess.run(words, env=environment(**cluster.key), cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return [line.removeprefix("found ") for line in done.stdout.splitlines() if line.startswith("found ")]


def test_why_a_tokenizer_actor_died_is_asked_again_while_it_is_not_to_be_reached(cluster: RayCluster) -> None:
    assert found(WHY, cluster) == ["newer", "Ray's own words", "Ray's own words"]


def test_in_a_worker_from_the_repositorys_root_tokenize_is_the_standard_librarys_and_ours_is_toto_tokenize(
    cluster: RayCluster,
) -> None:
    (line,) = found(WHOSE, cluster)
    standard, pieces, ours, *folders = line.split()
    assert (standard, pieces, ours) == (stdlib_tokenize.__file__, "5", "toto.tokenize.unit")
    assert Path(folders[0]).resolve() == ROOT / "tokenize"
