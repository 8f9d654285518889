"""Classes of pictures beside classes of videos: where one dataset of a merge has both, all have.

    labels, classes of a dataset of pictures ─▶ image_labels, image_classes; of a mixed one each takes its sources

Else a picture's label would count in `classes` in one dataset's rows and in `image_classes` in another's.
"""

from collections.abc import Collection, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from toto.shards.rewrite.inputs import Input
from toto.shards.rewrite.tables import CLASSES, LABELS, tables_of

IMAGE_LABELS, IMAGE_CLASSES = "image_labels", "image_classes"


def annotations_of(inputs: Sequence[Input], without: Collection[str]) -> list[dict[str, pa.Table]]:
    """The annotations of each snapshot, pictures counted alike in all."""
    every = [tables_of(taken) for taken in inputs]
    if LABELS in without or not any(IMAGE_CLASSES in tables or IMAGE_LABELS in tables for tables in every):
        return every
    return [_apart(taken, tables) for taken, tables in zip(inputs, every, strict=True)]


def _apart(taken: Input, tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """These annotations with the labels of pictures in tables of their own."""
    if LABELS not in tables or IMAGE_LABELS in tables:
        return tables
    labels, classes = tables[LABELS], tables.get(CLASSES)
    still = _still(taken, labels["source"])
    found = {name: table for name, table in tables.items() if name not in (LABELS, CLASSES)}
    for part, names in ((pc.invert(still), (LABELS, CLASSES)), (still, (IMAGE_LABELS, IMAGE_CLASSES))):
        lines = labels.filter(part)
        if len(lines):
            found |= {names[0]: lines} if classes is None else {names[0]: lines, names[1]: classes}
    return found


def _still(taken: Input, sources: pa.ChunkedArray) -> pa.ChunkedArray:
    """Which of these sources are pictures; one of which nothing is known is one where there are no videos at all."""
    results = [table.select(["key", "kind"]) for _, table in taken.all_results()]
    known = pa.concat_tables(results) if results else pa.table({"key": pa.array([], pa.string()), "kind": []})
    videos = known.filter(pc.equal(known["kind"], "video"))
    if not len(videos):
        return pa.chunked_array([pa.array([True] * len(sources), pa.bool_())])
    pictures = known.filter(pc.equal(known["kind"], "image"))["key"].combine_chunks()
    return pc.is_in(sources, pictures)
