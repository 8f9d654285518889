"""What every test has: pinned threads, repeatable random cases, and the folder of real media files."""

import os
import signal
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent
MOST_WORKERS = 4  # a Ray of its own takes about 1 GB

# One thread each, as a worker has: no test has imported numpy, pyarrow or torch yet, which read these once.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

# Started in the background, as some CI does, a process ignores Ctrl-C, and so would every command under test.
signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("toto", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("toto")


def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`: one more than the cores that this process may use, at most four: a fifth of the time tests wait."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores + 1, MOST_WORKERS)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Under `make test` a file's tests share a process, as they share fixtures; the long ones, of Ray, come first."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)


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
