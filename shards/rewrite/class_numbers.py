"""Classes of several datasets joined by their names: the first dataset's numbers stay, new names get the next ones.

    classes of each dataset ─▶ name -> number, of all ─▶ old number -> new one, of each ─▶ rows, results, `labels`

Labels and classes come in pairs of tables, one for videos (or for all), one for images where they have their own.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from toto.errors import UsageError, UserError
from toto.shards.ids import KIND_IMAGE
from toto.shards.rewrite.inputs import Input

PAIRS = {"labels": "classes", "image_labels": "image_classes"}
MOST = (1 << 31) - 1  # a label is an int32
SCHEMA = pa.schema([("label", pa.int32()), ("name", pa.string())])


@dataclass(frozen=True)
class Renumbering:
    """The new class numbers of one dataset, by table of labels; empty where they stay as they are. It is pickled."""

    where: str
    maps: Mapping[str, Mapping[int, int]] = field(default_factory=dict)

    def table(self, name: str, table: pa.Table) -> pa.Table:
        """A table of labels with the new numbers."""
        if name not in self.maps:
            return table
        at = table.schema.get_field_index("label")
        return table.set_column(at, table.schema.field(at), self._new(name, table["label"].combine_chunks()))

    def rows(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Rows with the new numbers."""
        at = batch.schema.get_field_index("label")
        new = self.labels(batch.column(at), pc.equal(batch.column("kind"), KIND_IMAGE))
        columns = [*batch.columns[:at], new, *batch.columns[at + 1 :]]
        return pa.RecordBatch.from_arrays(columns, schema=batch.schema)

    def labels(self, labels: pa.Array, images: pa.Array) -> pa.Array:
        """int32: labels of rows or sources, of which some are images."""
        if not self.maps:
            return labels
        if "image_labels" not in self.maps or "labels" not in self.maps:
            return self._new(next(iter(self.maps)), labels)
        none = pa.scalar(None, labels.type)
        of_images = self._new("image_labels", pc.if_else(images, labels, none))
        return pc.if_else(images, of_images, self._new("labels", pc.if_else(images, none, labels)))

    def _new(self, name: str, labels: pa.Array) -> pa.Array:
        known = self.maps[name]
        unknown = {number for number in pc.unique(labels).to_pylist() if number is not None} - known.keys()
        if unknown:
            raise UserError(f"{self.where}: label {min(unknown)} has no name in its {PAIRS[name]}; correct the table")
        return pa.array([None if number is None else known[number] for number in labels.to_pylist()], pa.int32())


def by_name(
    inputs: Sequence[Input], annotations: Sequence[Mapping[str, pa.Table]]
) -> tuple[list[Renumbering], dict[str, pa.Table]]:
    """New numbers for each dataset by its annotations, and the tables of all classes. UsageError where labels have no
    classes, or two classes of one dataset have one name or one number."""
    maps: list[dict[str, dict[int, int]]] = [{} for _ in inputs]
    tables = {}
    for labels, classes in PAIRS.items():
        numbers: dict[str, int] = {}
        for taken, told, mine in zip(inputs, annotations, maps, strict=True):
            if classes in told:
                mine[labels] = _joined(taken, classes, told[classes], numbers)
            elif labels in told:
                raise UsageError(
                    f"{taken.uri} has {labels} and no {classes} to join by name; leave --classes-by-name out"
                )
        if numbers:
            lines = sorted((number, name) for name, number in numbers.items())
            tables[classes] = pa.Table.from_pylist([{"label": n, "name": name} for n, name in lines], SCHEMA)
    return [Renumbering(taken.uri, mine) for taken, mine in zip(inputs, maps, strict=True)], tables


def _joined(taken: Input, classes: str, table: pa.Table, numbers: dict[str, int]) -> dict[int, int]:
    """Old number -> new one of a dataset's classes; names that are new get numbers of their own in `numbers`."""
    found = _named(taken, classes, table)
    used = set(numbers.values())
    for number, name in found.items():
        if name not in numbers:
            numbers[name] = number if number not in used else max(used) + 1
            used.add(numbers[name])
    if max(used, default=0) > MOST:
        raise UsageError(f"{taken.uri}: no numbers are left for its {classes}; leave --classes-by-name out")
    return {number: numbers[name] for number, name in found.items()}


def _named(taken: Input, classes: str, table: pa.Table) -> dict[int, str]:
    """The name of each class by its number, ascending. UsageError where these are not one for one."""
    way_out = "leave --classes-by-name out"
    if set(table.column_names) != set(SCHEMA.names):
        raise UsageError(f"{taken.uri}: {classes} has other columns than label and name; {way_out}")
    if table["label"].null_count or table["name"].null_count:
        raise UsageError(f"{taken.uri}: {classes} has a line without label or name; {way_out}")
    lines = sorted((line["label"], str(line["name"])) for line in table.to_pylist())
    for values, what in (([number for number, _ in lines], "numbered"), ([name for _, name in lines], "called")):
        again = next((value for value, times in Counter(values).items() if times > 1), None)
        if again is not None:
            raise UsageError(f"{taken.uri}: two of its {classes} are {what} {again!r}; {way_out}")
    return dict(lines)
