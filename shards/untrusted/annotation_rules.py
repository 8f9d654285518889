"""What must hold in a table of annotations, whoever wrote it: sources are looked up by name, classes by number."""

import pyarrow as pa

from toto.errors import UserError

NEEDED = {
    "labels": ("source", "label"),
    "image_labels": ("source", "label"),
    "classes": ("label", "name"),
    "image_classes": ("label", "name"),
}
TYPES = {"source": pa.string(), "split": pa.string(), "label": pa.int32(), "name": pa.string()}
NEVER_NULL = ("source", "split")


def check_annotation(table: pa.Table, name: str, place: str) -> pa.Table:
    """The same table, where its columns are what their names say; UserError, naming its `place`, where they are not."""
    missing = [column for column in NEEDED.get(name, ()) if column not in table.column_names]
    columns = [column for column in table.column_names if column in TYPES]
    wrong = [column for column in columns if not _fits(table[column], column, name)]
    if missing or wrong or len(set(columns)) < len(columns):
        said = f"no column {missing[0]}" if missing else f"a column {(wrong or columns)[0]} of something else"
        raise UserError(f"{place}: no table of {name} that toto wrote ({said})")
    return table


def _fits(column: pa.ChunkedArray, name: str, table: str) -> bool:
    if name == "name" and table not in NEEDED:
        return True
    return column.type == TYPES[name] and not (name in NEVER_NULL and column.null_count)
