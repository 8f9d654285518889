"""Real sealed datasets of chosen codes, without any video: what the tests of training and evaluation stand on.

    codes -> rows -> ShardWriter -> shards/, sources/ -> commits/ -> seal -> dataset.json

Everything goes through the public functions of `toto.shards`, in the order in which a run of toto-tokenize uses them.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from toto import Dataset
from toto.shards import ids
from toto.shards.commit import COMMITS, SHARDS, SOURCES, Commit, FileRef, committed_units
from toto.shards.hashing import content_hash, file_sha256
from toto.shards.parquet import parquet_bytes
from toto.shards.schema import FORMAT_VERSION, SOURCES_SCHEMA, RowRecord, row_id
from toto.shards.seal import Annotation, DatasetSpec, file_ref, seal
from toto.shards.snapshot import DATASET
from toto.shards.store import LocalStore, Store, open_store
from toto.shards.writer import BATCH_TOKEN_BYTES, ShardWriter
from toto.tokenize.tokenizers.dct import DCT

FRAME_US = 40_000  # 25 frames a second
MOVES = ((0, 1), (1, 0), (0, -1), (-1, 0))  # rows and columns a frame: right, down, left, up
MOVE_NAMES = ("right", "down", "left", "up")
LABELS_SCHEMA = pa.schema([("source", pa.string()), ("split", pa.string()), ("label", pa.int32())])


@dataclass(frozen=True)
class Video:
    """One source of moving pictures; view v of it holds the codes plus v."""

    key: str
    codes: np.ndarray  # int [n, h, w]
    split: str = "train"
    label: int | None = None
    views: int = 1
    runs: tuple[int, ...] = ()  # frames of each run; one run when empty
    pixels: np.ndarray | None = None  # uint8 [n, H, W, 3], of every view alike; with the setting `keep_pixels`

    @property
    def run_lengths(self) -> list[int]:
        """Frames of each run."""
        return list(self.runs) or [len(self.codes)]


@dataclass(frozen=True)
class Image:
    """One source of one still picture; view v of it holds the codes plus v."""

    key: str
    codes: np.ndarray  # int [h, w]
    split: str = "train"
    label: int | None = None
    views: int = 1
    pixels: np.ndarray | None = None  # uint8 [1, H, W, 3]


def write_tokens(
    root: str | Path,
    videos: Sequence[Video] = (),
    images: Sequence[Image] = (),
    vocab_size: int = 64,
    tokenizer_id: str | None = None,
    stride: int | None = 4,
    unit_sources: int = 1 << 30,
    batch_bytes: int = BATCH_TOKEN_BYTES,
    **settings: Any,
) -> Path:
    """Writes and seals a dataset; called again on the same root with other sources, it seals a larger snapshot.

    `unit_sources` sources go into one shard, about `batch_bytes` of ids into one record batch. Codes decode by `dct`;
    they are not checked, so that a test may write some outside the vocabulary.
    """
    store = open_store(root)
    assert isinstance(store, LocalStore)
    tokenizer = {**DCT(vocab_size).spec, **({} if tokenizer_id is None else {"id": tokenizer_id})}
    grids = [item.codes.shape[-2:] for item in (*videos, *images)]
    facts = {
        "dataset": "world",
        "format_version": FORMAT_VERSION,
        "tokenizer": tokenizer,
        "id_layout": ids.ID_LAYOUT,
        "settings": {**_settings(stride, min(map(min, grids), default=1), videos, images), **settings},
    }
    with patch("toto.shards.writer.BATCH_TOKEN_BYTES", batch_bytes):
        for unit in _units([*videos, *images], unit_sources):
            _commit_unit(store, unit, facts)
    spec = DatasetSpec(
        name="world",
        tokenizer=tokenizer,
        settings=facts["settings"],
        annotations=_annotate(store, [*videos, *images]),
        plans=[],
        units=frozenset(committed_units(store)),
        planned_sources=len(videos) + len(images),
    )
    seal(store, lambda: spec)
    return store.root


def moving_codes(
    count: int, frames: int = 8, grid: tuple[int, int] = (4, 4), vocab_size: int = 64, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Codes int [count, frames, h, w] and labels int [count]: a picture of a few codes that moves one cell a frame,
    around the edges. The label is the direction (0 … 3); every frame but the first two follows from those before it.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(MOVES)
    pictures = rng.integers(0, max(2, vocab_size // 4), (count, *grid)) * min(4, vocab_size // 2)
    steps = [
        [np.roll(p, (t * MOVES[m][0], t * MOVES[m][1]), (0, 1)) for t in range(frames)]
        for p, m in zip(pictures, labels, strict=True)
    ]
    return np.array(steps).reshape(count, frames, *grid), labels


def moving_videos(count: int, split: str = "train", **codes: Any) -> list[Video]:
    """Labelled videos of `moving_codes`; keys name their split."""
    made, labels = moving_codes(count, **codes)
    return [Video(f"{split}/{i:04d}.mp4", c, split, int(m)) for i, (c, m) in enumerate(zip(made, labels, strict=True))]


def still_images(count: int, grid: tuple[int, int] = (4, 4), vocab_size: int = 64, seed: int = 0) -> list[Image]:
    """Images of random codes, labelled 0 and 1 in turn; the first code of an image is its label."""
    codes = np.random.default_rng(seed).integers(0, vocab_size, (count, *grid))
    codes[:, 0, 0] = np.arange(count) % 2
    return [Image(f"train/{i:04d}.png", c, label=i % 2) for i, c in enumerate(codes)]


def _settings(stride: int | None, cells: int, videos: Sequence[Video], images: Sequence[Image]) -> dict[str, Any]:
    """The settings that a plan of toto-tokenize fixes."""
    views = {item.views for item in (*videos, *images)} or {1}
    assert len(views) == 1, "every run of a dataset has as many views"
    return {
        "crop": "center",
        "filter": "swscale BILINEAR|ACCURATE_RND|BITEXACT|FULL_CHR_H_INT",
        "fps": None if stride else 7.5,
        "keep_pixels": None,
        "labels": "none",
        "layout": "folder",
        "min_frames": 1,
        "resolution": 8 * int(cells),
        "run_frames": "all",
        "seed": 0,
        "stride": stride,
        "uniform": None,
        "views": views.pop(),
    }


def _units(sources: Sequence[Video | Image], unit_sources: int) -> Iterator[list[Video | Image]]:
    for split in sorted({source.split for source in sources}):
        chosen = [source for source in sources if source.split == split]
        for start in range(0, len(chosen), unit_sources):
            yield chosen[start : start + unit_sources]


def _commit_unit(store: LocalStore, sources: list[Video | Image], facts: dict[str, Any]) -> None:
    unit = hashlib.sha256("\0".join(source.key for source in sources).encode()).hexdigest()[:16]
    rows, results = [], []
    for source in sources:
        made = list(_rows(source, ids.id_dtype(facts["tokenizer"]["vocab_size"]), facts["settings"]["stride"] or 4))
        rows += made
        results.append(_result(source, made))
    _write_unit(store, unit, sources[0].split, rows, results, facts)


def _write_unit(
    store: LocalStore,
    unit: str,
    split: str,
    rows: list[RowRecord],
    results: list[dict[str, Any]],
    facts: dict[str, Any],
) -> None:
    path = store.scratch()
    writer = ShardWriter(path, ids.id_dtype(facts["tokenizer"]["vocab_size"]), {**facts, "unit": unit, "split": split})
    for row in rows:
        writer.write(row)
    summary = writer.close()
    shard = _publish(store, path, f"{SHARDS}/{unit}", "arrow") if rows else None
    table = store.scratch()
    table.write_bytes(parquet_bytes(pa.Table.from_pylist(results, SOURCES_SCHEMA)))
    commit = Commit(
        unit=unit,
        attempt=0,
        split=split,
        sources=_publish(store, table, f"{SOURCES}/{unit}", "parquet"),
        shard=shard,
        **asdict(summary),
        tokenizer_id=facts["tokenizer"]["id"],
        made_by={"version": "test"},
    )
    store.create(f"{COMMITS}/{unit}.json", commit.to_json())


def _publish(store: LocalStore, path: Path, stem: str, suffix: str) -> FileRef:
    digest, size = file_sha256(path), path.stat().st_size
    ref = FileRef(f"{stem}-{digest[:8]}.{suffix}", size, digest)
    store.publish(path, ref.path)
    return ref


def _rows(source: Video | Image, dtype: np.dtype, stride: int) -> Iterator[RowRecord]:
    """Rows as a run writes them: run by run, the views of a run adjacent; frames every `stride`-th, at 25 a second."""
    still = isinstance(source, Image)
    codes = source.codes[None] if isinstance(source, Image) else source.codes
    kind = ids.KIND_IMAGE if still else ids.KIND_VIDEO
    first = 0
    for run, n in enumerate([1] if isinstance(source, Image) else source.run_lengths):
        for view in range(source.views):
            yield RowRecord(
                row_id=row_id(source.key, run, view),
                source=source.key,
                run=run,
                view=view,
                kind=kind,
                n_frames=n,
                grid_h=codes.shape[1],
                grid_w=codes.shape[2],
                tokens=ids.to_ids(codes[first : first + n] + view, kind, dtype),
                pixels=None if source.pixels is None else source.pixels[first : first + n].tobytes(),
                label=source.label,
                frame0=first * stride,
                frame_step=1 if n == 1 else stride,
                frame_index=None,
                pts_us=None if still else first * stride * FRAME_US,
                dt_us=None if still else stride * FRAME_US,
                pts_list_us=None,
                crop=(0, 0, 8 * codes.shape[2], 8 * codes.shape[1]),
                flags=0,
            )
        first += n


def _result(source: Video | Image, rows: list[RowRecord]) -> dict[str, Any]:
    lengths = [1] if isinstance(source, Image) else source.run_lengths
    return {
        "key": source.key,
        "split": source.split,
        "attempt": 0,
        "kind": "image" if isinstance(source, Image) else "video",
        "status": "ok",
        "label": source.label,
        "size": 1000,
        "frames_decoded": sum(lengths),
        "frames_kept": sum(lengths),
        "duration_s": None if isinstance(source, Image) else sum(lengths) * FRAME_US / 1e6,
        "flags": 0,
        "errors": 0,
        "rows": len(rows),
        "tokens": sum(len(row.tokens) for row in rows),
        "run_lengths": lengths,
    }


def _annotate(store: Store, sources: Sequence[Video | Image]) -> dict[str, Annotation]:
    """`labels` and `classes`, as the readers of labelled datasets give them; those of earlier calls stay."""
    known = Dataset(store.uri).annotations("labels").to_pylist() if _labelled(store) else []
    lines = [{"source": s.key, "split": s.split, "label": s.label} for s in sources if s.label is not None]
    lines = sorted({line["source"]: line for line in known + lines}.values(), key=lambda line: line["source"])
    if not lines:
        return {}
    numbers = sorted({line["label"] for line in lines})
    names = [MOVE_NAMES[n] if n < len(MOVE_NAMES) else f"class {n}" for n in numbers]
    classes = pa.table({"label": pa.array(numbers, pa.int32()), "name": names})
    return {
        "labels": _annotation(store, "labels", pa.Table.from_pylist(lines, LABELS_SCHEMA)),
        "classes": _annotation(store, "classes", classes),
    }


def _labelled(store: Store) -> bool:
    return store.exists(DATASET) and "labels" in Dataset(store.uri).info["files"]["annotations"]


def _annotation(store: Store, name: str, table: pa.Table) -> Annotation:
    data = parquet_bytes(table)
    ref = file_ref(f"annotations/{name}-{hashlib.sha256(data).hexdigest()[:8]}.parquet", data)
    store.write(ref.path, data)
    return Annotation(ref, content_hash(table))
