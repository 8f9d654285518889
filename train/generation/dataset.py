"""Clips as a dataset like any other: verified, viewed, counted, trained on and judged by the same commands.

    codes of each regime, true codes ─▶ sources free/000000, …, true/000000 ─ splits made, true ─▶ sealed dataset

Made and true clips of one number begin with the same prompt. `settings.derived` says that a model made them, and how.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from toto.errors import UsageError, UserError
from toto.shards.dataset import Dataset
from toto.shards.ids import id_dtype
from toto.shards.recipe import Kind
from toto.shards.rewrite.derive import SHARD_BYTES, Options, derive
from toto.shards.rewrite.foreign import Facts
from toto.shards.rewrite.foreign_rows import Written, image_rows, result, video_rows
from toto.shards.rewrite.importing import LINES
from toto.shards.rewrite.pieces import with_units
from toto.shards.rewrite.plan import DerivedUnit, Draft, Identity
from toto.shards.schema import SOURCES_SCHEMA, RowRecord
from toto.shards.writer import ShardWriter

MADE, TRUE = "made", "true"  # splits
HOW = "generate"  # in settings.derived


@dataclass(frozen=True)
class Clips:
    """Codes that go into one dataset, by the name of what made them; the true ones are called `true`."""

    codes: Mapping[str, np.ndarray]  # int [n, frames, h, w]
    kind: Kind
    facts: Facts
    derived: dict[str, Any]

    def lines(self) -> Iterator[dict[str, Any]]:
        """A line of the plan for each clip; of images for each picture, which is frame `first` of its clip."""
        width = id_dtype(self.facts.vocab_size).itemsize
        for name, clips in self.codes.items():
            frames = 1 if self.kind == "image" else clips.shape[1]
            size = frames * clips[0, 0].size * width
            told = {"split": TRUE if name == TRUE else MADE, "kind": self.kind, "label": None, "size": size}
            for i in range(len(clips)):
                for first in range(0, clips.shape[1], frames):
                    picture = f"-{first:03d}" if self.kind == "image" else ""
                    yield {**told, "key": f"{name}/{i:06d}{picture}", "first": first, "frames": frames, "bytes": size}

    def make(self, unit: DerivedUnit, writer: ShardWriter, told: Callable[[int], None]) -> pa.Table:
        """Writes the rows of a unit; returns the results of its sources."""
        results = []
        for line in unit.lines.select(LINES.names).to_pylist():
            written = Written()
            for row in self._rows(line):
                written.add(row)
                writer.write(row)
            results.append(result(line, written, self.facts))
            told(line["bytes"])
        return pa.Table.from_pylist(results, SOURCES_SCHEMA)

    def _rows(self, line: dict[str, Any]) -> Iterator[RowRecord]:
        name, _, number = line["key"].partition("/")
        clip = self.codes[name][int(number.partition("-")[0])]
        if self.kind == "video":
            return video_rows(line["key"], None, clip, self.facts)
        return image_rows(line["key"], None, clip[line["first"] :][:1], self.facts)


def refuse_foreign(out: Path) -> None:
    """UsageError where `out` is a file, or its `tokens` is something else than the clips of an earlier generation."""
    folder = out / "tokens"
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; choose a folder")
    if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        ours = Dataset(folder).info["settings"]["derived"]["how"] == HOW
    except (UserError, OSError, KeyError, TypeError):
        ours = False
    if not ours or folder.is_symlink():
        raise UsageError(f"--out {out}: {folder} would be replaced, and no generation made it; choose another --out")


def write_dataset(folder: Path, clips: Clips, checkpoint: str) -> str:
    """Writes and seals `folder`, whole or not at all, in the place of what an earlier generation left; its id."""
    partial = folder.with_name(f".{folder.name}.partial")
    settings = {
        **clips.facts.settings(HOW),
        "derived": {"how": HOW, **clips.derived, "shard_bytes": SHARD_BYTES},
    }
    identity = Identity(clips.facts.name, clips.facts.tokenizer, settings, [checkpoint], {})

    def draw() -> Draft:
        lines = pa.Table.from_pylist(list(clips.lines()), LINES)
        return Draft(with_units(lines, SHARD_BYTES, identity.of_units()), {}, len(lines))

    shutil.rmtree(partial, ignore_errors=True)
    try:
        done = derive(str(partial), identity, draw, clips, None, Options(workers=1, proof=False))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return str(done.snapshot.value["dataset_id"])
