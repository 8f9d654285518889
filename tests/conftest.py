"""What every test has: pinned threads, repeatable random cases, caches of its own, the folder of real media files."""

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent
MOST_WORKERS = 4  # a Ray of its own takes about 1 GB
LONG = ("test_train_", "test_demo", "test_docs", "test_tokenize_")

# One thread each, as a worker has: no test has imported numpy, pyarrow or torch yet, which read these once.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as commands have it: a thread that waits burns no core

# Ray kills workers while less than a twentieth of the machine's memory is free, whoever else has it.
os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")

# Bytecode is kept: else each of some hundred processes, workers of Ray among them, compiles all of toto anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Started in the background, as some CI does, a process ignores Ctrl-C, and so would every command under test.
signal.signal(signal.SIGINT, signal.default_int_handler)

SLOW = [hypothesis.HealthCheck.too_slow]  # as a busy machine is
hypothesis.settings.register_profile("toto", deadline=None, derandomize=True, database=None, suppress_health_check=SLOW)
hypothesis.settings.load_profile("toto")


def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`: one more than the cores that this process may use, at most four: a fifth of the time tests wait."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores + 1, MOST_WORKERS)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Under `make test` a file's tests share a process, as they share fixtures; the files that take long come first."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    """0 for tests of Ray, then LONG in its order; the many short files of the rest fill the workers' last seconds."""
    if item.get_closest_marker("ray") is not None:
        return 0
    return next((turn for turn, start in enumerate(LONG, start=1) if item.path.name.startswith(start)), len(LONG) + 1)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """No search for garbage while tests are collected: there is next to none, and each looks through all of torch."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()  # where nothing was collected, too: in the process that hands tests to others


def pytest_collection_finish(session: pytest.Session) -> None:
    """Commands under test start warm (warm.py) from here on, and no search for garbage looks at what is there now."""
    gc.enable()
    gc.freeze()
    if not session.config.option.collectonly:
        import warm  # imports toto, and with it numpy

        warm.prepare()


@pytest.fixture(scope="session", autouse=True)
def own_caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is kept in the user's home, but for Matplotlib's list of fonts, which takes seconds to make."""
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    caches = tmp_path_factory.mktemp("caches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLCONFIGDIR", os.environ.get("MPLCONFIGDIR") or str(users / "matplotlib"))
        patch.setenv("XDG_CACHE_HOME", str(caches))
        patch.setenv("TOTO_CACHE", str(caches / "toto-batches"))
        yield


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What toto keeps on this machine: a cache of this test's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def bucket() -> Iterator[Any]:
    """fsspec's memory file system, with an empty folder /bucket in it."""
    import fsspec

    files = fsspec.filesystem("memory")
    files.makedirs("/bucket", exist_ok=True)
    yield files
    files.rm("/bucket", recursive=True)


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def media() -> Path:
    """The folder of real video and image files, with its index.json; tests that need it skip without it."""
    folder = Path(os.environ.get("TOTO_TEST_MEDIA") or ROOT.parent / "shared" / "media")
    if not folder.is_dir():
        pytest.skip(f"no test media in {folder}; name their folder by TOTO_TEST_MEDIA")
    return folder
