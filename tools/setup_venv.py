"""Builds .venv, once: `make setup` runs this with the Python that the environment will have.

1. .venv is made anew when there is none, or when another Python or another torch is asked for; else it is
   gone on with, less the packages that a killed pip left half-written.
2. torch comes first and alone, from PyTorch's CPU index on a Linux machine without an NVIDIA GPU.
3. toto itself comes editable, with what its commands and tests need; torch stays as it is.
4. dall-e, litdata and taming come without dependencies: they declare torchvision, which would replace torch.
5. .venv/toto-setup.json says what all this was built from; while that holds, a next call ends at once.
"""

from __future__ import annotations  # so that an older Python, too, gets as far as being told that it is too old

import argparse
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
RECORD = VENV / "toto-setup.json"

TORCH = "torch==2.13.0"  # the version that toto is tested with; 2.11 and later work
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
EXTRAS = "tokenize,train,evaluate,s3,dev"
WITHOUT_DEPENDENCIES = ["dall-e==0.1", "litdata==0.2.76", "taming-transformers-rom1504==0.0.6"]
IMPORTED = ("torch", "ray", "av", "scipy.spatial", "diffusers", "dall_e", "toto")

Record = dict[str, str]


class SetupError(Exception):
    """The environment cannot be built; the message says why and what to do, in one or two lines."""


def main() -> int:
    """Builds or completes .venv; exit code 0, 1 when it failed, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-index", help="where torch comes from; empty: where pip looks by itself")
    asked = parser.parse_args().torch_index
    try:
        with open(ROOT / "pyproject.toml") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second `make` waits here, then finds the work done
            set_up(asked)
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: stopped by Ctrl-C; run `make setup` again", file=sys.stderr)
        return 130
    return 0


def set_up(asked_index: str | None) -> None:
    """Brings .venv to what is wanted, doing only what is missing."""
    check_python()
    built = read_record()
    wanted = {
        "root": str(ROOT),  # the scripts in .venv/bin hold absolute paths: a moved folder needs new ones
        "python": os.path.realpath(base_python()),
        "torch_index": torch_index(asked_index, built),
        "inputs": digest_of_inputs(),
    }
    if built == wanted and PYTHON.exists():
        return
    if must_start_anew(built, wanted):
        clear_venv()
        make_venv()
    forget_half_installed()
    write_record(wanted | {"inputs": ""})  # empty: begun, not finished
    install(wanted["torch_index"])
    write_record(wanted)
    print(f"ready: {VENV.name}, Python {sys.version.split()[0]}, {installed_torch()}")


def read_record() -> Record:
    """What .venv was built from; empty when there is none or it cannot be read."""
    try:
        return dict(json.loads(RECORD.read_text()))
    except (OSError, TypeError, ValueError):
        return {}


def write_record(record: Record) -> None:
    """Replaces the record in one step."""
    new = RECORD.with_suffix(".new")
    new.write_text(json.dumps(record, indent=1))
    new.replace(RECORD)


def base_python() -> str:
    """The interpreter outside of any environment: .venv/bin/python itself may be what runs this."""
    return getattr(sys, "_base_executable", None) or sys.executable


def digest_of_inputs() -> str:
    """sha256 of what decides what is installed: pyproject.toml without its linters' settings, and this file."""
    import tomllib  # not in Python 3.10

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    decisive = [project["build-system"], project["project"], project["tool"]["setuptools"]]
    return hashlib.sha256(json.dumps(decisive).encode() + Path(__file__).read_bytes()).hexdigest()


def torch_index(asked: str | None, built: Record) -> str:
    """Where torch comes from, empty for pip's own choice; without a wish, where .venv has it from."""
    if asked is not None:
        return asked
    if "torch_index" in built and has_torch():
        return built["torch_index"]
    if sys.platform != "linux" or has_nvidia_gpu():
        return ""
    if is_reachable(CPU_INDEX):
        return CPU_INDEX
    print(
        f"{CPU_INDEX} does not answer: torch comes from where pip looks by itself\n"
        "(on PyPI that is the larger CUDA build, which runs on a CPU as well)"
    )
    return ""


def has_torch() -> bool:
    """Whether .venv holds a whole torch."""
    return any(VENV.glob("lib/python3*/site-packages/torch-*.dist-info/RECORD"))


def has_nvidia_gpu() -> bool:
    """Whether this machine (or container) has been given an NVIDIA GPU, not only the driver's files."""
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return any(Path("/dev").glob("nvidia[0-9]*"))
    try:
        listed = subprocess.run([smi, "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and "GPU" in listed.stdout


def is_reachable(index: str) -> bool:
    """Whether an index answers within ten seconds; pip itself would try for minutes."""
    try:
        with urllib.request.urlopen(f"{index}/torch/", timeout=10):
            return True
    except OSError:
        return False


def must_start_anew(built: Record, wanted: Record) -> bool:
    """Whether what is there cannot be gone on with."""
    kept = ("root", "python", "torch_index")
    return not PYTHON.exists() or any(built.get(key) != wanted[key] for key in kept)


def check_python() -> None:
    """Raises SetupError when the Python that runs this cannot be what .venv is made of."""
    if not (3, 11) <= sys.version_info < (3, 14):
        raise SetupError(f"toto needs Python 3.11 to 3.13, {base_python()} is {sys.version.split()[0]}")
    if importlib.util.find_spec("ensurepip") is None:
        package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        raise SetupError(f"{base_python()} cannot make environments; on Debian: apt install {package}")


def clear_venv() -> None:
    """Empties .venv but for its record; raises SetupError when it is somebody else's work."""
    if VENV.exists() and any(VENV.iterdir()) and not RECORD.exists():
        raise SetupError(f"{VENV} was not made by `make setup`; move it away, then run this again")
    VENV.mkdir(exist_ok=True)
    write_record({})
    for entry in VENV.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry != RECORD:
            entry.unlink()


def make_venv() -> None:
    """A new environment of the Python that runs this."""
    print(f"making .venv with {base_python()}", flush=True)
    command = [base_python(), "-m", "venv", str(VENV)]
    made = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if made.returncode != 0:
        last = (made.stdout.strip().splitlines() or ["no message"])[-1]
        raise SetupError(f"{' '.join(command)} failed: {last}")


def forget_half_installed() -> None:
    """Lets pip install again what it was killed at: it writes RECORD last, yet trusts a folder without."""
    for folder in VENV.glob("lib/python3*/site-packages/*.dist-info"):
        if not (folder / "RECORD").exists():
            shutil.rmtree(folder)


def install(index: str) -> None:
    """torch, then toto, then the three packages that must not bring their dependencies; then a look at all."""
    source = ["--index-url", index] if index else []
    pip(f"1/4 {TORCH} from {index or 'where pip looks by itself'}", [*source, TORCH])
    pip(f"2/4 toto-video[{EXTRAS}]", [TORCH, "--editable", f"{ROOT}[{EXTRAS}]"])
    pip("3/4 " + " ".join(WITHOUT_DEPENDENCIES), ["--no-deps", *WITHOUT_DEPENDENCIES])
    import_once()


def pip(step: str, arguments: list[str]) -> None:
    """One `pip install`; raises SetupError when it fails, having let pip say why."""
    print(step, flush=True)
    # Most of torch's and ray's files are never imported: compiling all took a minute (see import_once).
    flags = ["--disable-pip-version-check", "--no-compile", "--no-warn-conflicts"]
    flags += [] if sys.stdout.isatty() else ["--quiet"]
    if subprocess.run([str(PYTHON), "-m", "pip", "install", *flags, *arguments]).returncode != 0:
        raise SetupError(f"step {step.split()[0]} failed, pip says why above; `make setup` goes on there")


def import_once() -> None:
    """Shows that the large packages import, which compiles what they load; else raises SetupError."""
    print(f"4/4 importing {', '.join(IMPORTED)}", flush=True)
    done = subprocess.run([PYTHON, "-c", f"import {', '.join(IMPORTED)}"], stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise SetupError(f"what was installed does not import: {last}")


def installed_torch() -> str:
    """Name and version of the torch in .venv, such as `torch 2.13.0+cpu`."""
    code = "from importlib.metadata import version; print('torch', version('torch'))"
    return subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
