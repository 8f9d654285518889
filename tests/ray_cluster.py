"""A Ray cluster on this machine that somebody else started: nodes can be killed and others can join.

It lives in a process of its own, in a folder of its own, and lets nobody in who has not its key. Its first node has
four CPUs, two GPUs that are Ray's word only, and the resource `decode`; nodes that join have the resource `joined`.
"""

import subprocess
import sys
from typing import Self

from clips import ROOT, environment
from ray_run import MARK, new_mark

NODES = """
import os, sys, tempfile
with tempfile.TemporaryDirectory(prefix="toto-") as folder:
    os.environ["RAY_TMPDIR"] = folder  # else it would become the cluster that others on this machine join
    os.mkdir(folder + "/ray")
    from ray.cluster_utils import Cluster
    lean = {"object_store_memory": 256 << 20, "include_log_monitor": False, "no_monitor": True}
    lean |= {"include_dashboard": False, "temp_dir": folder}
    first = {"num_cpus": 4, "num_gpus": 2, "resources": {"decode": 1.0}}
    for tries_left in (2, 1, 0):
        try:
            cluster = Cluster(initialize_head=True, head_node_args=lean | first)
            break
        except Exception:  # Ray waits for 30 s, which is too little on a busy machine
            if not tries_left:
                raise
    nodes = []
    print(cluster.address, flush=True)
    for line in sys.stdin:
        word, number = line.split()
        if word == "add":
            joined = {"num_cpus": int(number), "resources": {"joined": 1.0}, "object_store_memory": 128 << 20}
            nodes.append(cluster.add_node(**joined))
        else:
            cluster.remove_node(nodes[int(number)], allow_graceful=False)
        print(len(nodes), flush=True)
    for node in [*cluster.worker_nodes, cluster.head_node]:
        cluster.remove_node(node, allow_graceful=False)
"""
HASTE = {
    "RAY_health_check_period_ms": "1000",  # Ray's 3000 takes 15 s to find that a node is gone
    "RAY_prestart_worker_first_driver": "0",  # else four workers start before anybody asks for one
}


class RayCluster:
    """`add` a node, `kill` one. Use as a context manager. `extra` goes into the environment of its processes."""

    def __init__(self, **extra: str) -> None:
        self.mark = new_mark()
        self.key = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.mark}  # the environment of those whom it lets in
        self._process = subprocess.Popen(
            [sys.executable, "-c", NODES],
            env=environment(**{MARK: self.mark}, **self.key, **HASTE) | extra,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
        )
        self.address = self._line()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate(timeout=200)

    def add(self, cpus: int) -> None:
        """A node joins."""
        self._ask(f"add {cpus}")

    def kill(self, number: int) -> None:
        """kill -9 of everything of the node that joined as the `number`-th, from 0 on."""
        self._ask(f"kill {number}")

    def _ask(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, "the cluster did not start"
        return line
