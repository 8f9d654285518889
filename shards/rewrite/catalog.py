"""What opened snapshots hold, source by source, as arrays: about 50 bytes a source, and no shard is opened.

manifest, per-source results -> a `Lines` for each unit -> which way each source goes (-1: it stays behind)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from toto.errors import UserError
from toto.plain import counted
from toto.shards.ids import id_dtype
from toto.shards.rewrite.inputs import Input
from toto.shards.schema import hashes_of_keys

STAYS = -1


@dataclass
class Lines:
    """The per-source results of one unit; every array has a value for each source, in their order."""

    dataset: int  # number of its snapshot
    unit: str
    split: str
    batch_rows: list[int]  # of its shard; empty where it has none
    keys: np.ndarray  # uint64: xxh3-64 of the source's key
    attempts: np.ndarray
    used: np.ndarray  # bool: gave rows
    rows: np.ndarray  # int64, and so the next three
    frames: np.ndarray
    tokens: np.ndarray
    bytes: np.ndarray  # of ids and pixels, before compression
    labelled: bool  # whether any source has a label
    ways: np.ndarray  # int64: where each goes, by the command's own count; STAYS: nowhere


Place = tuple[int, int, int]  # snapshot, unit, source: numbers


class Catalog:
    """The lines of some snapshots."""

    def __init__(self, inputs: Sequence[Input]) -> None:
        self.inputs = inputs
        self.units = [[_lines(i, taken, *of) for of in taken.all_results()] for i, taken in enumerate(inputs)]
        for number in range(len(inputs)):
            self._leave_older_attempts(number)

    def lines(self) -> Iterator[Lines]:
        """Of every unit, snapshot after snapshot, in the order of their manifests."""
        for units in self.units:
            yield from units

    @property
    def sources(self) -> int:
        """How many go somewhere."""
        return sum(int((lines.ways != STAYS).sum()) for lines in self.lines())

    def keep_splits(self) -> list[str]:
        """Sends every source that comes along to the split that it is in; the names of the splits, as ways count."""
        splits = sorted({lines.split for lines in self.lines()})
        for lines in self.lines():
            lines.ways[lines.ways != STAYS] = splits.index(lines.split)
        return splits

    def keys(self, number: int, unit: int) -> list[str]:
        """The sources' keys of one unit."""
        return self.inputs[number].results(unit)["key"].to_pylist()

    def repeated(self, numbers: Sequence[int]) -> dict[str, list[Place]]:
        """The keys that stand more than once among what goes somewhere of these snapshots, with all their places."""
        every = [(n, u, lines) for n in numbers for u, lines in enumerate(self.units[n])]
        hashes = np.concatenate([np.empty(0, np.uint64), *(lines.keys[lines.ways != STAYS] for _, _, lines in every)])
        known, counts = np.unique(hashes, return_counts=True)
        twice = known[counts > 1]
        found: dict[str, list[Place]] = {}
        for number, unit, lines in every if len(twice) else ():
            again = np.flatnonzero(np.isin(lines.keys, twice) & (lines.ways != STAYS)).tolist()
            keys = self.keys(number, unit) if again else []
            for line in again:
                found.setdefault(keys[line], []).append((number, unit, line))
        return {key: places for key, places in found.items() if len(places) > 1}

    @property
    def labelled(self) -> list[bool]:
        """Of each snapshot whether any of its sources has a label."""
        return [any(lines.labelled for lines in units) for units in self.units]

    def is_used(self, place: Place) -> bool:
        """Whether this source gave rows."""
        number, unit, line = place
        return bool(self.units[number][unit].used[line])

    def leave(self, place: Place) -> None:
        """This source does not come along."""
        number, unit, line = place
        self.units[number][unit].ways[line] = STAYS

    def _leave_older_attempts(self, number: int) -> None:
        """Of a source that was tried several times the highest attempt counts, as everywhere."""
        for places in self.repeated([number]).values():
            attempts = [int(self.units[n][unit].attempts[line]) for n, unit, line in places]
            last = attempts.index(max(attempts))
            for place in (*places[:last], *places[last + 1 :]):
                self.leave(place)


def _lines(number: int, taken: Input, place: int, results: pa.Table) -> Lines:
    unit, info = taken.units[place], taken.dataset.info
    rows, tokens, lengths = (_ints(results[name]) for name in ("rows", "tokens", "frames_kept"))
    batch_rows = unit["batch_rows"] if unit["path"] is not None else []
    if int(rows.sum()) != sum(batch_rows):
        raise UserError(
            f"{taken.uri}: the per-source results of unit {unit['unit']} tell of {counted(int(rows.sum()), 'row')}, "
            f"its shard has {sum(batch_rows):,}; run `toto-shards verify --deep` on it"
        )
    runs = _ints(pc.list_value_length(results["run_lengths"]))
    video = pc.equal(results["kind"], "video").to_numpy(zero_copy_only=False)
    frames = np.where(video & (runs > 0), lengths * (rows // np.maximum(runs, 1)), rows)
    side = info["settings"].get("keep_pixels") or 0
    return Lines(
        dataset=number,
        unit=unit["unit"],
        split=unit["split"],
        batch_rows=batch_rows,
        keys=hashes_of_keys(results["key"].to_pylist()),
        attempts=_ints(results["attempt"]),
        used=pc.equal(results["status"], "ok").to_numpy(zero_copy_only=False),
        rows=rows,
        frames=frames,
        tokens=tokens,
        bytes=tokens * id_dtype(info["tokenizer"]["vocab_size"]).itemsize + frames * (3 * side * side),
        labelled=results["label"].null_count < len(results),
        ways=np.zeros(len(results), np.int64),
    )


def _ints(column: pa.ChunkedArray) -> np.ndarray:
    return column.to_numpy().astype(np.int64)
