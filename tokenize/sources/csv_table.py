"""CSV lists whose column names drift from copy to copy: a header, then rows with the columns that a reader knows.

{"id": ("youtube_id", "ytid")} + "label,ytid,split" -> {"id": 1} -> {"id": "0wR5jVB-WPk"} for each row
"""

import csv
from collections.abc import Iterator, Mapping, Sequence

from toto.errors import UserError
from toto.tokenize.sources.names import shown


def find_columns(header: str, known: Mapping[str, Sequence[str]], delimiter: str = ",") -> dict[str, int]:
    """Where the known columns stand: what -> index. Of two names for one thing the one named first counts."""
    names = [name.strip().strip('"').lower() for name in header.split(delimiter)]
    found = {what: [names.index(name) for name in aliases if name in names] for what, aliases in known.items()}
    return {what: places[0] for what, places in found.items() if places}


def read_rows(
    uri: str, lines: Sequence[str], columns: Mapping[str, int], delimiter: str = ","
) -> Iterator[dict[str, str]]:
    """The known columns of each row that is not empty; a row that ends early lacks some. UserError on broken quotes."""
    rows = csv.reader(lines, delimiter=delimiter)
    try:
        for row in rows:
            if row:
                yield {what: row[index].strip() for what, index in columns.items() if index < len(row)}
    except csv.Error as error:
        raise UserError(f"{shown(uri)}: line {rows.line_num + 1}: {error}") from error
