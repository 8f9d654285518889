"""Where processes that torchrun started again meet: not at the addresses of those before them.

torchrun keeps one store over its restarts. gloo leaves addresses in it under the same names each time, so that whoever
comes first would wait for dead processes until its timeout, half an hour (torch 2.13). So rank 0 names a corner of the
store by a number that it draws, and the others believe whoever repeats the numbers that they have just drawn.
"""

import json
import os
import time
import uuid
from datetime import timedelta

import torch.distributed as dist

from toto.errors import UserError

PATIENCE_S = 600.0  # imports on a cold file system take minutes
POLL_S = 0.02


def store_of_torchrun() -> dist.Store | None:
    """torchrun's store, where it keeps one over its restarts; None where every start has a store of its own."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return dist.TCPStore(host, port, is_master=False, timeout=timedelta(seconds=PATIENCE_S))


def meet(store: dist.Store, rank: int, world: int, patience_s: float = PATIENCE_S) -> dist.Store:
    """A part of the store that the processes of this start share, and no earlier one; UserError when one stays away."""
    end = time.monotonic() + patience_s
    drawn = uuid.uuid4().hex
    if rank:
        store.set(f"here/{rank}", drawn)
    while time.monotonic() < end:
        corner = _invite(store, drawn, world) if rank == 0 else _accept(store, rank, drawn)
        if corner:
            return dist.PrefixStore(corner, store)
        time.sleep(POLL_S)
    raise UserError(f"rank {rank} of {world} waited {patience_s:.0f} s for the others to start; their output says more")


def _invite(store: dist.Store, corner: str, world: int) -> str | None:
    """Repeats what the others wrote, of whichever start; the corner once all have accepted it."""
    others = range(1, world)
    here = {rank: store.get(f"here/{rank}").decode() for rank in others if store.check([f"here/{rank}"])}
    store.set("invitation", json.dumps({"corner": corner, "here": list(here.values())}))
    return corner if all(store.check([f"{corner}/{rank}"]) for rank in others) else None


def _accept(store: dist.Store, rank: int, drawn: str) -> str | None:
    """The corner to which rank 0 invites this process, and not the one that had its rank before."""
    if not store.check(["invitation"]):
        return None
    invitation = json.loads(store.get("invitation"))
    if drawn not in invitation["here"]:
        return None
    store.set(f"{invitation['corner']}/{rank}", drawn)
    return str(invitation["corner"])
