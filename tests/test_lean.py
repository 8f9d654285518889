"""Reading, training and evaluation never load what only tokenization needs, and shards need no extra at all.

import-linter says so about our own lines (`make lint`); here the modules are really loaded.
"""

import subprocess
import sys

import pytest

TOKENIZATION = ("toto.tokenize", "ray", "av", "diffusers", "dall_e", "taming")
EXTRAS = (*TOKENIZATION, "torch", "scipy", "PIL", "matplotlib", "safetensors", "einops", "duckdb")
SHARDS = "from toto.shards.cli import cli; [command.load() for command in cli.commands.values()]"  # all that it has


def python(statements: str, hidden: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """A fresh Python that ran some statements, unable to import the hidden modules."""
    hide = f"import sys; sys.modules.update(dict.fromkeys({hidden!r}))\n"  # None there means ImportError
    return subprocess.run([sys.executable, "-c", hide + statements], capture_output=True, text=True, timeout=200)


def loaded_by(statement: str, hidden: tuple[str, ...] = ()) -> set[str]:
    """Names of the modules that a statement leaves in a fresh Python, where hidden ones do not import."""
    listing = "print(*(name for name, module in sys.modules.items() if module is not None))"
    done = python(f"{statement}\n{listing}", hidden)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("statement", ["import toto.train.cli", "import toto.evaluate.compare", SHARDS])
def test_a_command_loads_nothing_of_tokenization(statement: str) -> None:
    assert not loaded_by(statement).intersection(TOKENIZATION)


@pytest.mark.parametrize("statement", ["import toto.shards.dataset", "import toto; toto.Dataset"])
def test_reading_shards_loads_no_extra(statement: str) -> None:
    assert not loaded_by(statement).intersection(EXTRAS)


@pytest.mark.parametrize("statement", ["import toto; toto.Dataset", f"import toto.config; {SHARDS}"])
def test_without_extras_shards_work(statement: str) -> None:
    assert "toto" in loaded_by(statement, hidden=EXTRAS)


def test_the_version_costs_nothing() -> None:
    assert not loaded_by("import toto; toto.__version__").intersection(("numpy", "pyarrow", "click", "yaml"))


def test_planning_waits_for_nothing_that_only_networks_and_clusters_need() -> None:
    assert not loaded_by("import toto.tokenize.run, toto.tokenize.cost").intersection(("torch", "ray", "diffusers"))


@pytest.mark.parametrize("missing", ["av", "scipy"])
def test_without_its_extra_tokenize_says_in_one_line_what_to_install(missing: str) -> None:
    done = python("import toto.tokenize.cli", hidden=(missing,))
    assert done.returncode == 1
    assert done.stderr == f"toto-tokenize needs {missing}: pip install 'toto-video[tokenize]'\n"


def test_without_torch_a_command_says_in_one_line_what_to_install() -> None:
    begin = "import sys; sys.argv = ['toto-train', 'plan', '--size', 'tiny']; import toto.train.cli as c; c.main()"
    done = python(begin, hidden=("torch",))
    assert (done.returncode, done.stderr) == (1, "error: this needs torch: pip install 'toto-video[train]'\n")
