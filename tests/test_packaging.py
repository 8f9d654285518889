"""From sources to what a person installs: sdist -> wheel -> a new environment -> commands in another folder.

The environments are bare but for one .pth line that lends them the packages of this one; ours is not among
them. So nothing is downloaded, and `toto` can only come from what was installed.
"""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

SOURCES = (
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "pipelines.yaml",
    "src",
    "tokenize",
    "shards",
    "train",
    "evaluate",
)
COMMANDS = ("toto-tokenize", "toto-shards", "toto-train", "toto-eval")


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints, run without this environment's variables for Python."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def bare_environment(folder: Path) -> Path:
    """A new environment that sees this one's packages; returns its bin folder."""
    venv.create(folder, with_pip=False)
    site_packages = sysconfig.get_path("purelib", vars={"base": str(folder)})
    Path(site_packages, "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def install(bin_folder: Path, *what: str | Path) -> None:
    """pip install into a bare environment: no network, no dependencies, nothing else removed."""
    quiet = ("--quiet", "--disable-pip-version-check", "--no-index", "--no-deps")
    flags = (*quiet, "--ignore-installed", "--no-build-isolation")
    run(bin_folder / "python", "-m", "pip", "install", *flags, *what, cwd=bin_folder)


@pytest.fixture(scope="module")
def sources(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean copy of what the distribution is made of, links kept as links."""
    copy = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        if (root / name).is_dir():
            copytree(root / name, copy / name, symlinks=True, ignore=ignore_patterns("__pycache__", "*.egg-info"))
        else:
            (copy / name).write_bytes((root / name).read_bytes())
    return copy


@pytest.fixture(scope="module")
def built(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from that sdist alone."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, sources, cwd=out)
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (wheel,) = built.glob("toto_video-*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment in which the wheel is installed."""
    bin_folder = bare_environment(tmp_path_factory.mktemp("installed"))
    install(bin_folder, wheel)
    return bin_folder


@pytest.mark.parametrize("stage", ["tokenize", "shards", "train", "evaluate"])
def test_the_wheel_holds_every_module_of_a_stage(root: Path, wheel: Path, stage: str) -> None:
    written = {
        f"toto/{path.relative_to(root).as_posix()}"
        for path in (root / stage).rglob("*")
        if path.suffix in (".py", ".cpp")
    }
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith(f"toto/{stage}/")}
    assert packed == written | {f"toto/{stage}/py.typed"}


def test_the_wheel_carries_pipelines_yaml_itself(root: Path, wheel: Path) -> None:
    packed = zipfile.ZipFile(wheel)
    assert packed.read("toto/pipelines.yaml") == (root / "pipelines.yaml").read_bytes()
    assert "toto/py.typed" in packed.namelist()


def test_the_sdist_needs_no_links(built: Path) -> None:
    (sdist,) = built.glob("toto_video-*.tar.gz")
    with tarfile.open(sdist) as archive:
        assert not [member.name for member in archive if member.issym() or member.islnk()]


def test_an_installed_wheel_is_what_is_imported(installed: Path, tmp_path: Path) -> None:
    for module in ("toto.config", "toto.shards.dataset", "toto.tokenize.sources"):
        origin = run(installed / "python", "-c", f"import {module} as m; print(m.__file__)", cwd=tmp_path)
        assert origin.startswith(str(installed.parent)), origin


@pytest.mark.parametrize("command", COMMANDS)
def test_an_installed_command_helps_from_another_folder(installed: Path, tmp_path: Path, command: str) -> None:
    assert run(installed / command, "--help", cwd=tmp_path).startswith(f"Usage: {command}")


def test_an_installed_wheel_finds_its_pipelines(installed: Path, tmp_path: Path) -> None:
    code = "from toto import config; print(*config.load().datasets)"
    assert "demo" in run(installed / "python", "-c", code, cwd=tmp_path).split()


def test_an_editable_install_follows_the_sources(sources: Path, tmp_path: Path) -> None:
    bin_folder = bare_environment(tmp_path / "environment")
    install(bin_folder, "--editable", sources)
    run(bin_folder / "toto-eval", "--help", cwd=tmp_path)
    code = "import toto.tokenize.sources as m; print(m.__file__)"
    origin = Path(run(bin_folder / "python", "-c", code, cwd=tmp_path).strip())
    assert origin.resolve() == sources / "tokenize" / "sources" / "__init__.py"
