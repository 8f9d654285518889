"""`make setup`: what it takes torch from, what it keeps, and what it does again."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

CPU_INDEX = "https://download.pytorch.org/whl/cpu"


@pytest.fixture
def setup(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """tools/setup_venv.py, at work in an empty folder, on a Linux machine with network and without a GPU."""
    spec = importlib.util.spec_from_file_location("setup_venv", root / "tools" / "setup_venv.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    places = {"VENV": ".venv", "PYTHON": ".venv/bin/python", "RECORD": ".venv/toto-setup.json"}
    for name, path in places.items():
        monkeypatch.setattr(module, name, tmp_path / path)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(module, "has_nvidia_gpu", lambda: False)
    monkeypatch.setattr(module, "is_reachable", lambda index: True)
    monkeypatch.setattr(module, "installed_torch", lambda: "torch")
    return module


@pytest.fixture
def steps(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What setup does, in order, instead of doing it."""
    done: list[str] = []

    def make_venv() -> None:
        done.append("venv")
        folder(setup, "torch-2.13.0.dist-info").joinpath("RECORD").touch()
        setup.PYTHON.parent.mkdir(exist_ok=True)
        setup.PYTHON.touch()

    monkeypatch.setattr(setup, "make_venv", make_venv)
    monkeypatch.setattr(setup, "pip", lambda step, arguments: done.append(" ".join(arguments)))
    monkeypatch.setattr(setup, "import_once", lambda: None)
    return done


def folder(setup: ModuleType, name: str) -> Path:
    """A folder in the environment's site-packages."""
    made = setup.VENV / "lib" / "python3.11" / "site-packages" / name
    made.mkdir(parents=True, exist_ok=True)
    return made


def test_without_a_gpu_torch_comes_from_the_cpu_index(setup: ModuleType) -> None:
    assert setup.torch_index(None, {}) == CPU_INDEX


def test_with_a_gpu_or_on_a_mac_pip_chooses(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "has_nvidia_gpu", lambda: True)
    assert setup.torch_index(None, {}) == ""
    monkeypatch.setattr(setup, "has_nvidia_gpu", lambda: False)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert setup.torch_index(None, {}) == ""


def test_an_index_that_does_not_answer_is_said_and_passed_over(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setup, "is_reachable", lambda index: False)
    assert setup.torch_index(None, {}) == ""
    assert "does not answer" in capsys.readouterr().out


@pytest.mark.parametrize("asked", ["", "https://example.org/whl"])
def test_a_wish_decides_and_an_empty_one_is_a_wish(setup: ModuleType, asked: str) -> None:
    assert setup.torch_index(asked, {"torch_index": CPU_INDEX}) == asked


def test_torch_comes_first_and_alone_and_two_packages_without_dependencies(setup: ModuleType, steps: list[str]) -> None:
    setup.set_up(None)
    _, torch, toto, last = steps
    assert torch == f"--index-url {CPU_INDEX} torch==2.13.0"
    assert toto.startswith("torch==2.13.0 --editable")  # named again: pip fails rather than replaces it
    assert last.startswith("--no-deps dall-e") and "taming" in last


def test_a_second_setup_does_nothing(setup: ModuleType, steps: list[str]) -> None:
    setup.set_up("")
    steps.clear()
    setup.set_up("")
    setup.set_up(None)  # no wish: the torch that is there stays
    assert steps == []


def test_another_torch_needs_a_new_environment(setup: ModuleType, steps: list[str]) -> None:
    setup.set_up(None)
    steps.clear()
    setup.set_up("")
    assert steps[0] == "venv"


def test_an_environment_of_somebody_else_is_left_alone(setup: ModuleType, steps: list[str]) -> None:
    theirs = folder(setup, "theirs")
    with pytest.raises(setup.SetupError, match="move it away"):
        setup.set_up(None)
    assert theirs.exists() and steps == []


def test_a_new_environment_keeps_nothing_of_the_old_one(setup: ModuleType, steps: list[str]) -> None:
    setup.set_up(None)
    old = folder(setup, "old")
    setup.set_up("")
    assert not old.exists()


def test_changed_requirements_are_installed_into_the_same_environment(
    setup: ModuleType, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    setup.set_up(None)
    steps.clear()
    monkeypatch.setattr(setup, "digest_of_inputs", lambda: "changed")
    setup.set_up(None)
    assert len(steps) == 3 and "venv" not in steps


def test_after_a_failed_step_the_next_setup_goes_on(
    setup: ModuleType, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise setup.SetupError("no network")

    with monkeypatch.context() as broken:
        broken.setattr(setup, "import_once", fail)
        with pytest.raises(setup.SetupError):
            setup.set_up(None)
    assert json.loads(setup.RECORD.read_text())["inputs"] == ""
    steps.clear()
    setup.set_up(None)
    assert len(steps) == 3 and "venv" not in steps


def test_what_pip_was_killed_at_is_installed_again(setup: ModuleType) -> None:
    half, whole = folder(setup, "ray-2.60.0.dist-info"), folder(setup, "av-18.1.0.dist-info")
    (whole / "RECORD").touch()
    setup.forget_half_installed()
    assert whole.exists() and not half.exists()
