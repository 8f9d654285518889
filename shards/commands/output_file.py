"""The type of an option that names a file to write: never one that a dataset consists of."""

from pathlib import Path
from typing import Any

import click

from toto.errors import UsageError


class OutputFile(click.Path):
    """A path; UsageError for a sealed dataset's own file, whose hash the dataset holds."""

    name = "file"

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path as it was given."""
        from toto.shards.commit import COMMITS, SHARDS, SOURCES  # here: --help need not wait for pyarrow
        from toto.shards.protocol_views import VIEWS
        from toto.shards.snapshot import DATASET, MANIFEST

        own = {DATASET, "README.md", "quarantine.parquet", "annotations", "plan"}
        own |= {SHARDS, SOURCES, COMMITS, MANIFEST, VIEWS}
        path = Path(str(super().convert(value, param, ctx)))
        whole = path.resolve()
        around = next((above for above in whole.parents if (above / DATASET).is_file()), None)
        if around is not None and whole.relative_to(around).parts[0] in own:
            raise UsageError(f"{path} is a file of the dataset {around}; choose another --out")
        return path
