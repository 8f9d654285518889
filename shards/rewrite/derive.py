"""From a plan to a sealed dataset; the same command again goes on where it was stopped.

    plan (created once) -> units that no commit holds, several at a time -> proof -> seal: dataset.json appears

It may be killed at any moment. Two at once on one target make the same units, each committed once. Memory: for each
worker one record batch of the input, one of the output, and the per-source results of a unit.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from toto.affinity import cores
from toto.shards.commit import committed_units, read_commits
from toto.shards.leftovers import clean
from toto.shards.rewrite.plan import DerivedUnit, Draft, Identity, Plan, planned, read_plan
from toto.shards.rewrite.progress import Progress
from toto.shards.rewrite.proof import Proof, RowProof
from toto.shards.rewrite.target import refuse_foreign_files
from toto.shards.rewrite.units import Maker, make_unit, remove_unfinished, start_of
from toto.shards.seal import seal
from toto.shards.snapshot import Snapshot
from toto.shards.store import RemoteStore, Store, open_store
from toto.shards.store.owner import open_target
from toto.shards.workers import each

REMOTE_WORKERS = 8  # they wait for a store more than they work
MOST_WORKERS = 8  # of local ones: each writes a shard of its own at the same time
WORTH_A_PROCESS = 64 << 20  # bytes; a process takes a second to begin


SHARD_BYTES = 256 << 20  # of ids and pixels, before compression


@dataclass(frozen=True)
class Options:
    """How to run; none of it changes a row."""

    workers: int | None = None
    proof: bool = True
    say: Callable[[str], None] = print
    reached: Callable[[str], None] = lambda point: None  # is told each step by name


DEFAULT = Options()


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    snapshot: Snapshot
    units_done: int  # by this process
    proof: Proof | None

    def value(self, out: str) -> dict[str, Any]:
        """For `--json`."""
        told = self.snapshot.value
        names = ("shards", "rows", "frames", "tokens", "bytes", "sources", "quarantined")
        return {
            **{"out": out, "dataset_id": told["dataset_id"], "splits": told["splits"], "units": told["units"]},
            **{name: told["totals"][name] for name in names},
            "quarantine": told["quarantine"],
            "units_done": self.units_done,
            "proof": None if self.proof is None else vars(self.proof),
        }


def derive(
    out: str,
    identity: Identity,
    draw: Callable[[], Draft],
    maker: Maker,
    proof: RowProof | None = None,
    options: Options = DEFAULT,
) -> Result:
    """Plans where nothing is planned, makes what is not committed, proves, seals.

    UsageError where the target holds something else; UserError or OSError for what stops the work.
    """
    draft = None
    if read_plan(target := open_store(out)) is None:
        refuse_foreign_files(target)
        draft = draw()  # what is refused leaves nothing at the target
    with open_target(out) as store:
        plan = planned(store, identity, draft, options.reached)
        return _derived(store, plan, maker, proof, options)


def _derived(store: Store, plan: Plan, maker: Maker, proof: RowProof | None, options: Options) -> Result:
    done = committed_units(store)
    todo = [unit for unit in plan.units.values() if unit.id not in done]
    total = sum(unit.bytes for unit in plan.units.values())
    workers = options.workers or _workers(store, total)
    left, before = sum(unit.bytes for unit in todo), len(plan.units) - len(todo)
    with Progress(plan.settings["derived"]["how"], len(plan.units), before, left) as progress:
        made = sum(_make_all(store, plan, todo, maker, workers, progress, options.reached))
    commits = read_commits(store, set(plan.units))
    proven = None
    if proof is not None:
        with Progress("proof: reading", 0, 0, total) as progress:
            proven = proof.read(store.uri, plan, commits, workers, progress.bytes)
    snapshot = seal(store, plan.spec, options.reached)
    clean(store)
    return Result(snapshot, made, proven)


def _make_all(
    store: Store,
    plan: Plan,
    todo: list[DerivedUnit],
    maker: Maker,
    workers: int,
    progress: Progress,
    reached: Callable[[str], None],
) -> Iterator[bool]:
    """Makes these units, here or in processes; of each whether this command committed it. The first error stops all."""
    first, mark = start_of(len(todo)), uuid4().hex[:12]
    todo = [*todo[first:], *todo[:first]]
    if min(workers, len(todo)) <= 1:
        for unit in todo:
            yield make_unit(store, plan, unit, maker, mark, progress.bytes, reached)
            progress.unit()
        return
    work = _Work(store, replace(plan), maker, mark)
    try:
        with closing(each(work.begun, [unit.id for unit in todo], workers)) as results:
            for name, mine in results:
                progress.bytes(plan.units[name].bytes)
                progress.unit()
                yield mine
    finally:
        remove_unfinished(store, mark)  # of processes that were ended


@dataclass(frozen=True)
class _Work:
    """What a process needs to make units."""

    store: Store
    plan: Plan
    maker: Maker
    mark: str

    def begun(self) -> Callable[[str], bool]:
        """What makes one unit, by its id."""
        return self._make

    def _make(self, unit: str) -> bool:
        return make_unit(self.store, self.plan, self.plan.units[unit], self.maker, self.mark, _unheard, _unheard)


def _unheard(told: object) -> None:
    """Processes tell nothing but that a unit is done."""


def _workers(store: Store, total_bytes: int) -> int:
    most = REMOTE_WORKERS if isinstance(store, RemoteStore) else min(cores(), MOST_WORKERS)
    return max(1, min(most, total_bytes // WORTH_A_PROCESS))
