"""Weights of strangers are read in a process of their own: its memory and its time have bounds, and it can be killed.

    parent ── KIND SOURCE TARGET SHA256 ─▶ child: read, rename, check ─▶ TARGET (safetensors); on stdout {"error": text}

A few hundred bytes of pickle can ask for hours or for all of memory, inside one call that no signal interrupts.
"""

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

from toto.errors import UserError
from toto.tokenize.child_process import environment

MODULE = "toto.tokenize.weights_child"
PATIENCE_S = 120.0  # besides the time that its bytes take
SLOWEST = 5e6  # bytes a second of a file from a network drive, read and converted
ROOM = 1 << 30  # bytes of memory, besides MEMORY_PER_BYTE of the file; the libraries come on top
MEMORY_PER_BYTE = 8  # read, as float32 of half the size, written


def convert(kind: str, source: Path, target: Path, sha256: str) -> None:
    """Writes the tensors of a file as our networks name them; UserError when they are no such weights."""
    limit_s = PATIENCE_S + source.stat().st_size / SLOWEST
    command = [sys.executable, "-P", "-m", MODULE, kind, str(source), str(target), sha256, str(int(limit_s) + 1)]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        process_group=0,  # Ctrl-C reaches the parent alone, which kills it
    ) as child:
        try:
            said, complaint = child.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            raise UserError(f"{source}: not read in {limit_s:.0f} s, as all weights are; these are not taken") from None
        finally:
            child.kill()
            child.wait()
    if said:
        raise UserError(json.loads(said)["error"])
    if child.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise UserError(f"{source}: reading it took more time or memory than any weights need; these are not taken")
    if child.returncode:
        words = " ".join(complaint.decode(errors="replace").split())[-200:]
        raise UserError(f"{source}: reading it failed ({words or f'exit code {child.returncode}'}); nothing was run")


def _bound(source: Path, cpu_s: int) -> None:
    """From here on; what is loaded by now does not count."""
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    most = now + ROOM + MEMORY_PER_BYTE * source.stat().st_size
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))  # also when the parent was killed
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main(kind: str, source: str, target: str, sha256: str, cpu_s: str) -> None:
    """The child."""
    import torch

    from toto.tokenize.tokenizers import autoencoder_net, dvae_net  # noqa: F401 (loaded before memory is bounded)
    from toto.tokenize.weights_convert import write_converted

    torch.set_num_threads(1)
    if sys.platform == "linux":
        _bound(Path(source), int(cpu_s))
    try:
        write_converted(kind, Path(source), Path(target), sha256)
    except UserError as error:
        print(json.dumps({"error": str(error)}))
    except (MemoryError, RecursionError, RuntimeError) as error:  # torch's allocator raises RuntimeError
        problem = " ".join(str(error).split())[:120] or type(error).__name__
        print(json.dumps({"error": f"{source}: not taken ({problem}); nothing in it was run"}))


if __name__ == "__main__":
    main(*sys.argv[1:])
