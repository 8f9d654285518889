"""The Ray that a run uses: one of its own on this machine, or a cluster that is there. Only our own is stopped.

address None: a Ray of our own in a folder of our own, never Ray's shared default, which would join any other.
"auto" or host:port: a cluster that somebody else started, and that goes on after us.
"""

import fcntl
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from toto.affinity import cores
from toto.command import GO_ON, Terminated
from toto.errors import UserError

OBJECT_STORE_BYTES = 512 * 1024 * 1024  # of a Ray that we start; blocks are small and short-lived
FOLDER = "toto-ray-"
LOCK = "lock"
KNOCK_S = 10.0
SHORT = 20  # bytes: Ray's sockets add about 80, and on macOS a socket's path has at most 103
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}


@dataclass(frozen=True)
class Cluster:
    """Where to run: `address` None starts a Ray of our own, "auto" or an address joins one."""

    address: str | None
    workers: int | None  # None: one for each CPU that there is, also when more come
    tokenizer_actors: int | None = None  # 0: each worker encodes by itself; None: as many as the GPUs can hold
    gpus_per_tokenizer: float = 0.0  # 0: they encode on CPUs
    worker_resource: str | None = None  # a Ray resource of the nodes that may decode; None: all nodes may


@contextmanager
def connected(cluster: Cluster) -> Iterator[None]:
    """Joins or starts Ray, unless this process is in one. Raises UserError when a cluster cannot be joined."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # keeps Ray from warning about GPUs
    with _joined(cluster.address) if cluster.address is not None else _started(cluster):
        yield


def refuse_lost(cluster: Cluster) -> None:
    """UserError when a Ray that this run started has lost its only node: no other one will ever join it."""
    if cluster.address is None and not any(node["Alive"] for node in ray.nodes()):
        raise UserError(f"the Ray that this run started has died, perhaps for want of memory; {GO_ON}")


@contextmanager
def _joined(address: str) -> Iterator[None]:
    try:
        _knock(address)
        _init(address=address)
    except (ConnectionError, TimeoutError, ValueError, socket.gaierror) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"cannot join Ray at {address} ({reason}); leave --ray-address out to start one here") from None
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Ray itself would try for many minutes to reach a host:port where nobody answers, then abort the process."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or _current_cluster()
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=KNOCK_S).close()


def _current_cluster() -> str:
    """The address that `ray start` leaves on a machine; "" where there is none. It stays when that Ray dies."""
    try:
        return Path(tempfile.gettempdir(), "ray", "ray_current_cluster").read_text().strip()
    except OSError:
        return ""


@contextmanager
def _started(cluster: Cluster) -> Iterator[None]:
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else Ray writes one into the user's home
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 lets whatever else runs here take nearly all
    with _folder() as folder:
        try:
            _start(cluster, folder)
            yield
        finally:
            ray.shutdown()


def _start(cluster: Cluster, folder: str) -> None:
    """A Ray in this folder; UserError when it takes longer than Ray waits, on a machine that others fill."""
    try:
        _init(
            address="local",
            num_cpus=(cluster.workers or cores()) + (cluster.tokenizer_actors or 0),
            resources={cluster.worker_resource: 1.0} if cluster.worker_resource else None,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            _temp_dir=folder,
        )
    except Exception as error:  # a bare one; others may be what a library makes of a signal
        if "timed out during startup" not in str(error):
            raise
        raise UserError("Ray did not start within 30 s; run again, or without Ray: --ray-address local") from error


def _init(**options: Any) -> None:
    """ray.init; it takes SIGTERM for itself, which is given back, and what it made of one meanwhile put right."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**options, **QUIET)
    except SystemExit:
        raise Terminated from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextmanager
def _folder() -> Iterator[str]:
    """A folder for one Ray, locked while its run lives; removes those that killed runs have left."""
    temporary = tempfile.gettempdir()
    parent = temporary if len(temporary) <= SHORT else "/tmp"
    for left in Path(parent).glob(f"{FOLDER}*/{LOCK}"):
        _remove_if_dead(left)
    folder = tempfile.mkdtemp(prefix=FOLDER, dir=parent)
    try:
        with open(Path(folder, f"{LOCK}.new"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.rename(lock.name, Path(folder, LOCK))  # found only now that it is held
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_if_dead(lock: Path) -> None:
    try:
        with open(lock) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)
    except OSError:  # its run lives, it is another user's, or just gone
        return
