"""A Ray cluster of several nodes on this machine, started by somebody else: nodes can be killed and others can join.

It lives in a process of its own, in a folder of its own, and lets nobody in who has not its key. Its first node has
no CPU for workers; drivers join that one.
"""

import subprocess
import sys
from pathlib import Path
from typing import Self

from clips import environment
from ray_run import MARK, new_mark

NODES = """
import os, sys, tempfile
with tempfile.TemporaryDirectory(prefix="toto-") as folder:
    os.environ["RAY_TMPDIR"] = folder  # else it would become the cluster that others on this machine join
    os.mkdir(folder + "/ray")
    from ray.cluster_utils import Cluster
    first = {"num_cpus": 0, "temp_dir": folder, "include_dashboard": False, "object_store_memory": 128 << 20}
    cluster = Cluster(initialize_head=True, head_node_args=first)
    nodes = []
    print(cluster.address, flush=True)
    for line in sys.stdin:
        word, number = line.split()
        if word == "add":
            nodes.append(cluster.add_node(num_cpus=int(number), object_store_memory=128 << 20))
        else:
            cluster.remove_node(nodes[int(number)], allow_graceful=False)
        print(len(nodes), flush=True)
    cluster.remove_node(cluster.head_node, allow_graceful=False)
"""


class RayCluster:
    """`add` a node, `kill` one. Use as a context manager."""

    def __init__(self, **extra: str) -> None:
        self.mark = new_mark()
        self.key = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.mark}  # the environment of those whom it lets in
        self._process = subprocess.Popen(
            [sys.executable, "-c", NODES],
            env=environment(**{MARK: self.mark}, **self.key) | extra,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=Path(sys.executable).anchor,
        )
        self.address = self._line()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate(timeout=60)

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
