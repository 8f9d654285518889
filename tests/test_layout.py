"""The layout's two promises: four folders are one namespace, and `tokenize` stays the standard library's."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

STAGES = ("tokenize", "shards", "train", "evaluate")
LINKS = {stage: f"../../{stage}" for stage in STAGES} | {"pipelines.yaml": "../../pipelines.yaml"}
STANDARD = str(Path(sysconfig.get_path("stdlib"), "tokenize.py"))


def python(root: Path, *arguments: str) -> list[str]:
    """The lines that a Python started in the repository's root prints."""
    done = subprocess.run([sys.executable, *arguments], cwd=root, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_folder_has_no_init(root: Path, stage: str) -> None:
    assert not (root / stage / "__init__.py").exists()


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_folder_says_what_it_holds_and_that_it_is_typed(root: Path, stage: str) -> None:
    assert (root / stage / "README.md").is_file()
    assert (root / stage / "py.typed").is_file()


@pytest.mark.parametrize("name", LINKS)
def test_links_point_home(root: Path, name: str) -> None:
    link = root / "src" / "toto" / name
    assert link.is_symlink(), f"{link} is not a link: was it cloned with core.symlinks off?"
    assert str(link.readlink()) == LINKS[name]
    assert link.resolve() == root / name


def test_git_keeps_the_links_as_links(root: Path) -> None:
    listing = subprocess.run(["git", "ls-files", "-s", "src/toto"], cwd=root, capture_output=True, text=True)
    if listing.returncode != 0 or not listing.stdout:
        pytest.skip("not a git checkout")
    modes = {line.split("\t")[1]: line.split()[0] for line in listing.stdout.splitlines()}
    assert {name: modes.get(f"src/toto/{name}") for name in LINKS} == dict.fromkeys(LINKS, "120000")


def test_this_pytest_has_the_standard_tokenize() -> None:
    import tokenize

    assert tokenize.__file__ == STANDARD


def test_python_at_the_root_has_the_standard_tokenize(root: Path) -> None:
    assert python(root, "-c", "import tokenize; print(tokenize.__file__)") == [STANDARD]


@pytest.mark.parametrize("module", ["pip", "pytest"])
def test_modules_run_from_the_root(root: Path, module: str) -> None:
    assert python(root, "-m", module, "--version")[0].startswith(module)
