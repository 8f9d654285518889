"""Annotations of a derived dataset: those of its snapshots, with the sources that come along, under the splits that
they go to.

Of several snapshots: tables of sources are put one behind the other, and refused where they say two things of one
source; tables of classes are joined by their number, and refused where one number means two things, or where some
datasets number their sources without naming the classes.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType

import pyarrow as pa
import pyarrow.compute as pc

from toto.errors import UsageError
from toto.shards.rewrite.class_numbers import PAIRS, Renumbering
from toto.shards.rewrite.inputs import Input

LABELS, CLASSES = "labels", "classes"
NUMBERS = ("label", "id")  # the column that numbers the classes of a table without sources


def tables_of(taken: Input) -> dict[str, pa.Table]:
    """All annotations of a snapshot."""
    return {name: taken.dataset.annotations(name) for name in taken.dataset.info["annotations"]}


def with_splits(tables: dict[str, pa.Table], split_of: Callable[[str, str], str]) -> dict[str, pa.Table]:
    """Tables with other splits: `split_of(source, split)`, where a table has both columns."""
    return {name: _with_splits(table, split_of) for name, table in tables.items()}


def joined(
    inputs: Sequence[Input],
    annotations: Sequence[Mapping[str, pa.Table]],
    prefixes: Sequence[str],
    left: Sequence[Collection[str]],
    without: Collection[str],
    labelled: Sequence[bool],
    numbers: Sequence[Renumbering] = (),
    classes: Mapping[str, pa.Table] = MappingProxyType({}),
) -> dict[str, pa.Table]:
    """The `annotations` of several snapshots as one: keys with their prefix, and without the sources `left` of each.
    Where classes were given `numbers` by name, `classes` are the tables of all of them.

    UsageError where two tables of a name do not go together and the name is not in `without`.
    """
    if LABELS not in without:
        _refuse_unnamed_classes(inputs, annotations, without, labelled)
    found: dict[str, list[tuple[str, pa.Table]]] = {}
    for i, (taken, prefix, gone) in enumerate(zip(inputs, prefixes, left, strict=True)):
        for name, table in annotations[i].items():
            if name not in without and name not in classes:
                table = numbers[i].table(name, table) if numbers else table
                found.setdefault(name, []).append((taken.uri, _taken(table, prefix, gone)))
    return dict(sorted({**{name: _joined(name, parts) for name, parts in found.items()}, **classes}.items()))


def _with_splits(table: pa.Table, split_of: Callable[[str, str], str]) -> pa.Table:
    if not {"source", "split"} <= set(table.column_names):
        return table
    lines = zip(table["source"].to_pylist(), table["split"].to_pylist(), strict=True)
    return _replaced(table, "split", [split_of(source, split) for source, split in lines])


def _taken(table: pa.Table, prefix: str, gone: Collection[str]) -> pa.Table:
    if "source" not in table.column_names:
        return table
    keys = table["source"].to_pylist()
    if gone:
        table = table.filter(pa.array([key not in gone for key in keys], pa.bool_()))
        keys = table["source"].to_pylist()
    return _replaced(table, "source", [prefix + key for key in keys]) if prefix else table


def _joined(name: str, parts: list[tuple[str, pa.Table]]) -> pa.Table:
    (where, first), *others = parts
    for other, table in others:
        if table.schema.remove_metadata() != first.schema.remove_metadata():
            raise UsageError(
                f"{where} and {other} have different columns in annotation {name!r} "
                f"({', '.join(first.column_names)}; {', '.join(table.column_names)}); leave it out by --without {name}"
            )
    if "source" in first.column_names:
        return _of_sources(name, parts)
    number = next((column for column in NUMBERS if column in first.column_names), None)
    if number is None:
        return _the_same(name, parts)
    return _of_classes(name, number, parts)


def _refuse_unnamed_classes(
    inputs: Sequence[Input],
    annotations: Sequence[Mapping[str, pa.Table]],
    without: Collection[str],
    labelled: Sequence[bool],
) -> None:
    """A label means what the `classes` of its own dataset say: nobody else's may name it."""
    numbered = [
        (taken.uri, PAIRS[next((labels for labels in PAIRS if labels in names), LABELS)] in names)
        for taken, names, has in zip(inputs, annotations, labelled, strict=True)
        if has or LABELS in names
    ]
    named = [uri for uri, has in numbered if has]
    unnamed = [uri for uri, has in numbered if not has]
    way_out = f"leave both out by --without {LABELS} --without {CLASSES}"
    if CLASSES in without and numbered:
        raise UsageError(f"--without {CLASSES}: the labels of {numbered[0][0]} would mean nothing any more; {way_out}")
    if unnamed and any(CLASSES in names for names in annotations):
        other = named[0] if named else "another"
        raise UsageError(f"{unnamed[0]} has labels and no {CLASSES}, {other} has {CLASSES} of its own; {way_out}")


def _of_sources(name: str, parts: list[tuple[str, pa.Table]]) -> pa.Table:
    """One behind the other; of a source in several, which must say the same, the first one's lines."""
    owner: dict[str, int] = {}
    taken = []
    for i, (where, table) in enumerate(parts):
        keys = table["source"].to_pylist()
        again = {key for key in keys if key in owner}
        for j in sorted({owner[key] for key in again}):
            shared = {key for key in again if owner[key] == j}
            before, mine = (_lines_of(part, shared) for part in (parts[j][1], table))
            other = next((key for key in sorted(shared) if before[key] != mine[key]), None)
            if other is not None:
                raise UsageError(
                    f"annotation {name!r} says two things of {other!r}: {before[other]} in {parts[j][0]}, "
                    f"{mine[other]} in {where}; leave it out by --without {name}"
                )
        taken.append(table.filter(pa.array([key not in again for key in keys], pa.bool_())) if again else table)
        owner.update((key, i) for key in keys if key not in owner)
    return pa.concat_tables(taken).combine_chunks()


def _lines_of(table: pa.Table, sources: Collection[str]) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = {}
    for line in table.filter(pc.is_in(table["source"], pa.array(list(sources), pa.string()))).to_pylist():
        found.setdefault(line["source"], []).append(line)
    return found


def _the_same(name: str, parts: list[tuple[str, pa.Table]]) -> pa.Table:
    (where, first), *others = parts
    for other, table in others:
        if not table.equals(first):
            raise UsageError(f"{where} and {other} differ in annotation {name!r}; leave it out by --without {name}")
    return first


def _of_classes(name: str, number: str, parts: list[tuple[str, pa.Table]]) -> pa.Table:
    """Tables of classes by number. One number must mean one thing, and a name that several have one number."""
    known: dict[int, dict[str, object]] = {}
    numbers: dict[object, set[int]] = {}
    for where, table in parts:
        mine: dict[object, set[int]] = {}
        for line in table.to_pylist():
            before = known.setdefault(line[number], line)
            if before != line:
                _refuse(name, f"{before} in {parts[0][0]}, {line} in {where}")
            mine.setdefault(line.get("name"), set()).add(line[number])
        for spelled, those in mine.items():
            earlier = numbers.setdefault(spelled, those)
            if earlier.isdisjoint(those):
                _refuse(name, f"{spelled!r} has {number} {min(earlier)} in {parts[0][0]} and {min(those)} in {where}")
            earlier |= those
    return pa.Table.from_pylist([known[n] for n in sorted(known)], parts[0][1].schema)


def _refuse(name: str, why: str) -> None:
    raise UsageError(
        f"annotation {name!r} does not go together: {why}; give classes new numbers by --classes-by-name, leave it out "
        f"by --without {name} (and what counts in it), or train on the datasets as a mixture"
    )


def _replaced(table: pa.Table, name: str, values: list[str]) -> pa.Table:
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))
