"""That a derived dataset holds the rows that it was made of: two multisets of rows are compared.

    input   the rows that the plan names, read again from the snapshots, in the order in which they are stored
    output  the sums that every commit holds: of its finished shard, as it read back from the disk

A sum of row hashes (row_hash.py) does not depend on order, on shards or on batches; a row lost, doubled or changed
changes it.
"""

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from toto.errors import UserError
from toto.plain import counted
from toto.shards.commit import Commit
from toto.shards.rewrite.copying import RowCopier
from toto.shards.rewrite.inputs import Input, RowReader
from toto.shards.rewrite.pieces import PIECES
from toto.shards.rewrite.plan import Plan
from toto.shards.row_hash import RowSum
from toto.shards.workers import each

Sums = dict[str, RowSum]  # split -> its rows


@dataclass(frozen=True)
class Proof:
    """What both sides have, by split: how many rows, and the sum of their hashes."""

    rows: dict[str, int]
    row_hash: dict[str, str]


class RowProof:
    """Compares what pieces name with what became of them. `whole`: the pieces must hold every row of the snapshots."""

    def __init__(self, inputs: list[Input], copier: RowCopier, whole: bool) -> None:
        self._inputs, self._copier, self._whole = inputs, copier, whole

    def read(self, where: str, plan: Plan, commits: list[Commit], workers: int, told: Callable[[int], None]) -> Proof:
        """Reads the input again; UserError where the output, at `where`, has other rows. `told` hears of bytes."""
        pieces = _by_input(plan.table)
        if self._whole:
            self._refuse_gaps(pieces)
        taken: Sums = {}
        work = _Reading(self._inputs, self._copier, pieces, told if workers == 1 else None)
        with closing(each(work.begun, range(len(pieces)), workers)) as results:
            for number, sums in results:
                taken = _added([taken, sums])
                if workers > 1:
                    told(int(pieces[number]["bytes"].to_numpy().sum()))
        made = _added(_of_commit(commit) for commit in commits)
        for split in sorted({*taken, *made}):
            given, got = taken.get(split, RowSum()), made.get(split, RowSum())
            if given != got:
                raise UserError(
                    f"{where}: split {split} has {counted(got.rows, 'row')} whose hashes add up to {got.hex}, "
                    f"its sources have {given.rows:,} and {given.hex}; nothing was sealed, "
                    "run `toto-shards verify --deep` on them"
                )
        return Proof({split: one.rows for split, one in made.items()}, {split: one.hex for split, one in made.items()})

    def _refuse_gaps(self, parts: list[pa.Table]) -> None:
        """UserError unless these pieces hold every row of every snapshot, each source once."""
        rows = [0] * len(self._inputs)
        for pieces in parts:
            firsts = pieces["first"].to_numpy()
            if (firsts[:-1] + pieces["sources"].to_numpy()[:-1] > firsts[1:]).any():
                raise UserError(f"unit {pieces['from_unit'][0]}: a source stands in two pieces of the plan")
            rows[pieces["dataset"][0].as_py()] += int(pieces["rows"].to_numpy().sum())
        for taken, planned in zip(self._inputs, rows, strict=True):
            expected = taken.dataset.info["totals"]["rows"]
            if planned != expected:
                raise UserError(f"{taken.uri}: the plan has {planned:,} of its {counted(expected, 'row')}")


@dataclass(frozen=True)
class _Reading:
    """What a process needs to read pieces: of each unit that rows are taken from, all of its pieces."""

    inputs: list[Input]
    copier: RowCopier
    pieces: list[pa.Table]
    told: Callable[[int], None] | None

    def begun(self) -> Callable[[int], Sums]:
        """What reads the pieces of one unit, by number."""
        return self._sums

    def _sums(self, number: int) -> Sums:
        """The rows of one unit's pieces, by the split that they go to."""
        pieces = self.pieces[number]
        sums = {split: RowSum() for split in pc.unique(pieces["split"]).to_pylist()}
        reader = RowReader(self.inputs)
        for split, found in sums.items():
            for taken, unit, _, spans in self.copier.groups(pieces.filter(pc.equal(pieces["split"], split))):
                for batch in self.copier.rows(reader, taken, unit, spans):
                    found.add(batch)
                    if self.told is not None:
                        self.told(batch.nbytes)
        return {split: found for split, found in sums.items() if found.rows}


def _by_input(table: pa.Table) -> list[pa.Table]:
    """The pieces of each unit that rows are taken from, in the order of its rows."""
    order = [("dataset", "ascending"), ("from_unit", "ascending"), ("first", "ascending")]
    table = table.sort_by(order).combine_chunks()
    places = list(zip(table["dataset"].to_pylist(), table["from_unit"].to_pylist(), strict=True))
    starts = [i for i, place in enumerate(places) if not i or place != places[i - 1]]
    columns = table.select([field.name for field in PIECES])
    return [columns.slice(a, b - a) for a, b in zip(starts, [*starts[1:], len(places)], strict=True)]


def _of_commit(commit: Commit) -> Sums:
    return {commit.split: RowSum(commit.rows, int(commit.made_by["row_hash"], 16))} if commit.rows else {}


def _added(parts: Iterable[Sums]) -> Sums:
    whole: Sums = {}
    for part in parts:
        for split, found in part.items():
            whole[split] = whole.get(split, RowSum()) + found
    return whole
