"""Why a process died is found by the one that takes its place, also when it had no time to say it."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from toto.tokenize import last_words
from toto.tokenize.last_words import OUT_OF_MEMORY, SILENT, LastWords

ENDS = {
    "said": ("words.say('AcceleratorError: no\\nmemory'); os._exit(1)", "AcceleratorError: no memory"),
    "segmentation": ("ctypes.string_at(0)", "Fatal Python error: Segmentation fault, File "),
    "abort": ("os.abort()", "Fatal Python error: Aborted, File "),
    "kill": (f"os.kill(os.getpid(), {int(signal.SIGKILL)})", SILENT),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("end", ENDS)
def test_what_a_process_died_of_is_found_by_the_next_one(end: str, folder: Path) -> None:
    act, expected = ENDS[end]
    code = f"import ctypes, os; from toto.tokenize.last_words import LastWords; words = LastWords('x'); {act}"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(folder)}, stderr=subprocess.DEVNULL)
    before = read("x")
    assert before is not None and before.words.startswith(expected) and "\n" not in before.words
    assert read("another") is None


def test_a_kill_by_the_kernel_is_told_by_its_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_words, "_kills", lambda: 7)
    assert read("x") is None
    monkeypatch.setattr(last_words, "_kills", lambda: 8)
    before = read("x")
    assert before is not None and before.words == OUT_OF_MEMORY


def test_a_folder_that_strangers_may_write_to_is_not_used(folder: Path) -> None:
    place = folder / last_words.FOLDER
    place.mkdir(mode=0o777)
    place.chmod(0o777)
    read("x")
    assert read("x") is None and not list(place.iterdir())


def read(name: str) -> last_words.End | None:
    """As the next process does, in this one."""
    import faulthandler

    before = LastWords(name).before
    faulthandler.enable()
    return before
