"""Annotations: tables made from a dataset's own files, kept beside the shards under names that hold their hash.

They are the truth about labels: when an official list is corrected, the next plan writes new tables, and nothing is
tokenized again. Tables with a `source` column hold the planned sources only.
"""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from toto.shards.annotation_file import read_annotation
from toto.shards.hashing import content_hash
from toto.shards.seal import Annotation
from toto.shards.store import Store
from toto.tokenize.sources.base import Listing
from toto.tokenize.sources.source_table import SourceTable


def planned_tables(
    store: Store, before: dict[str, Annotation], listing: Listing, left_out: np.ndarray, kept: np.ndarray
) -> dict[str, pa.Table]:
    """The listing's tables for the planned sources, not for those `left_out`; what earlier plans knew of others stays
    (a run may list one split only), and of those in `kept`: their rows hold the frames of moments that were annotated
    otherwise. Both are bool [n], of the listed sources.

    A table that this listing has not stays, too: the sources that it speaks of may not be in it.
    """
    index = SourceTable.of(listing.sources).by_key

    def told(table: pa.Table, but: np.ndarray) -> np.ndarray:
        at = index.rows(table["source"])
        return (at >= 0) & ~np.append(kept | but, False)[at]

    tables = {name: read_annotation(store, file) for name, file in before.items() if name not in listing.annotations}
    for name, table in listing.annotations.items():
        tables[name] = table
        if "source" not in table.column_names:
            continue
        parts = [_where(table, told(table, left_out))]
        if name in before:
            earlier = read_annotation(store, before[name])
            parts.insert(0, _where(earlier, ~told(earlier, np.zeros_like(kept))))
        tables[name] = pa.concat_tables(part.cast(table.schema) for part in parts)
    return tables


def with_known_classes(store: Store, before: dict[str, Annotation], listing: Listing) -> Listing:
    """The listing with the class numbers that the dataset has: a class that is new since comes after the known ones.

    Readers number classes in the order of their names; a folder `ant` added beside `bee` must not turn bees into ants.
    Numbers that the dataset's own files give stay as they are, and so do those of classes that share a name.
    """
    classes, labels = listing.annotations.get("classes"), listing.annotations.get("labels")
    if classes is None or labels is None or "classes" not in before:
        return listing
    old = read_annotation(store, before["classes"])
    if listing.numbered or not (_named_apart(old) and _named_apart(classes)):
        known = {row["label"]: row for row in [*old.to_pylist(), *classes.to_pylist()]}
        merged = pa.Table.from_pylist([known[label] for label in sorted(known)], classes.schema)
        return replace(listing, annotations={**listing.annotations, "classes": merged})
    number = dict(zip(old["name"].to_pylist(), old["label"].to_pylist(), strict=True))
    for name in classes["name"].to_pylist():
        number.setdefault(name, max(number.values(), default=-1) + 1)
    names = dict(zip(classes["label"].to_pylist(), classes["name"].to_pylist(), strict=True))
    renumbered = {label: number[name] for label, name in names.items()}
    told = {row["name"]: row for row in [*old.to_pylist(), *classes.to_pylist()]}
    every = pa.Table.from_pylist([{**told[name], "label": label} for name, label in number.items()], classes.schema)
    at = labels.schema.get_field_index("label")
    labelled = labels.set_column(at, labels.schema.field(at), _renumbered(labels["label"], renumbered))
    listed = SourceTable.of(listing.sources)
    rows = listed.by_key.rows(labels["source"])
    mine = np.zeros(len(listed), bool)
    mine[rows[rows >= 0]] = True
    column = listed.columns["label"]
    sources = listed.with_labels(pc.if_else(pa.array(mine), _renumbered(column, renumbered), column))
    tables = {"classes": every, "labels": labelled}
    return replace(listing, sources=sources, annotations={**listing.annotations, **tables})


def _renumbered(labels: pa.ChunkedArray, number: dict[int, int]) -> pa.ChunkedArray:
    """int32: the new number of each label; null where it is null, or has none."""
    old = pc.index_in(labels, value_set=pa.array(list(number), pa.int32()))
    return pc.take(pa.array(list(number.values()), pa.int32()), old)


def unchanged(tables: dict[str, pa.Table], before: dict[str, Annotation]) -> bool:
    """Whether these tables say what the earlier ones say."""
    now = {name: content_hash(table) for name, table in tables.items()}
    return now == {name: annotation.content_hash for name, annotation in before.items()}


def _named_apart(classes: pa.Table) -> bool:
    return len(set(classes["name"].to_pylist())) == len(classes)


def _where(table: pa.Table, wanted: np.ndarray) -> pa.Table:
    return table if wanted.all() else table.filter(pa.array(wanted))
