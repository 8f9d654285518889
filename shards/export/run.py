"""A dataset -> files in another library's format, in a folder or a bucket: split by split, whole or not at all.

snapshot ─▶ split ─▶ pieces, stored or shuffled ─▶ array, provenance ─▶ the files of the target ─▶ README, meta.json
"""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from toto.errors import UsageError, UserError
from toto.plain import counted
from toto.shards.dataset import Dataset
from toto.shards.export.earlier import begun
from toto.shards.export.folder import refuse_folder, whole_folder
from toto.shards.export.layout import Layout
from toto.shards.export.outgoing import META, Outgoing
from toto.shards.export.pieces import Cut, count, shuffled, stored
from toto.shards.export.prefix import whole_prefix
from toto.shards.export.provenance import Provenance
from toto.shards.export.readme import readme
from toto.shards.export.targets import TARGETS, is_plain
from toto.shards.ids import id_dtype
from toto.shards.store import LocalStore, Store, open_store

EXPORT_FORMAT = 1
MOST_SHARD_BYTES = 1 << 31  # offsets of litdata are 32-bit


@dataclass(frozen=True)
class Export:
    """What is exported, and how."""

    target: str  # one of TARGETS
    cut: Cut | None  # None: whole rows
    codes: bool = False
    seed: int | None = None  # None: as stored
    shard_bytes: int | None = None
    splits: Sequence[str] = ()  # all when empty


def export(uri: str, what: Export, out: str, force: bool, progress: Callable[[int, int], None]) -> dict[str, Any]:
    """Writes to a folder or an fsspec URI, and returns what is there: pieces of each split, files, bytes.

    UserError where the dataset has no codes or no pieces; UsageError where its splits are others.
    """
    store, dataset = _place(out, force), Dataset(uri)
    splits = _splits(dataset, what.splits)
    if not dataset.tokenizer["vocab_size"]:
        raise UserError(f"{uri} holds pixels and no codes; there is nothing to export")
    opened = {split: Dataset(uri, id=dataset.dataset_id, split=split) for split in splits}
    counts = {split: count(part, what.cut) for split, part in opened.items()}
    if not any(counts.values()):
        raise UserError(f"{uri} has no {_lacking(opened, what.cut)}")
    layout = Layout(what.codes, id_dtype(dataset.tokenizer["vocab_size"]), what.cut.frames if what.cut else None)
    images = sum(int(part.image_counts().sum()) for part in opened.values()) if what.cut else 0
    facts = _facts(dataset, what, counts, layout)
    total, done = sum(counts.values()), 0
    with _whole(store, what.target, splits, force) as outgoing:
        for split, part in opened.items():
            target, provenance = TARGETS[what.target](outgoing, split, layout, what.shard_bytes), Provenance(part)
            pieces = stored(part, what.cut) if what.seed is None else shuffled(part, what.cut, what.seed)
            for window in pieces:
                target.write(layout.array(window), provenance.of(window))
                done += 1
                progress(done, total)
            target.close()
        (outgoing.folder / "README.md").write_text(readme(facts))
        outgoing.finish()
        told = {**facts, "contents": outgoing.contents}
        (outgoing.folder / META).write_text(json.dumps(told, indent=1, sort_keys=True) + "\n")
    return {**facts, **outgoing.size, "out": out, "images_left_out": images}


def _place(out: str, force: bool) -> Store:
    if not out.strip():
        raise UsageError("--out is empty; name a folder, or an fsspec URI")
    store = open_store(out)
    if isinstance(store, LocalStore):
        refuse_folder(store.root, force)
    return store


def _lacking(splits: dict[str, Dataset], cut: Cut | None) -> str:
    """`run of 16 frames in splits train, val (…); give --frames 11, or --rows`: what there are no pieces of."""
    names = f"split{'s' if len(splits) > 1 else ''} {', '.join(splits)}"
    if cut is None:
        return f"rows in {names}"
    longest = max(part.longest_run() for part in splits.values())
    fitting = (longest - 1) // cut.stride + 1
    advice = f"give --frames {fitting} or fewer, or --rows" if longest else "images go with --rows"
    at = f" at stride {cut.stride}" if cut.stride > 1 else ""
    return f"run of {counted(cut.frames, 'frame')}{at} in {names} (the longest has {longest}); {advice}"


def _whole(store: Store, target: str, splits: Sequence[str], force: bool) -> AbstractContextManager[Outgoing]:
    if isinstance(store, LocalStore):
        return whole_folder(store.root, force)
    return whole_prefix(store, lambda replaced: begun(target, splits, replaced), force)


def _splits(dataset: Dataset, asked: Sequence[str]) -> list[str]:
    known = dataset.splits
    for split in asked:
        if split not in known:
            raise UsageError(f"{dataset.store.uri} has no split {split!r}; it has: {', '.join(known) or 'none'}")
    chosen = [split for split in known if not asked or split in asked]
    for split in chosen:
        if not is_plain(split):
            raise UserError(f"{dataset.store.uri}: split {split!r} is no name for a file; name others with --split")
    return chosen


def _facts(dataset: Dataset, what: Export, counts: dict[str, int], layout: Layout) -> dict[str, Any]:
    info, cut = dataset.info, what.cut
    return {
        "toto_export": EXPORT_FORMAT,
        "to": what.target,
        "dataset": info["name"],
        "dataset_id": dataset.dataset_id,
        "tokenizer": dataset.tokenizer,
        "id_layout": info["id_layout"],
        "settings": info["settings"],
        "array": layout.name,
        "dtype": str(layout.dtype),
        "frames": cut.frames if cut else None,
        "stride": cut.stride if cut else None,
        "hop": (cut.hop or cut.frames) if cut else None,
        "order": "stored" if what.seed is None else what.seed,
        "pieces": counts,
        "toto_version": info["toto_version"],
    }
