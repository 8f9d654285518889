"""Commits -> a sealed snapshot: manifest, quarantine, card, then dataset.json, which readers look at first.

Sealing lists the commits, so it may run at any time, also while units are being written, and as often as one
likes. dataset.json is only ever replaced by one that holds all its units and maybe more; old manifests stay.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from toto import __version__
from toto.errors import UserError
from toto.shards import ids
from toto.shards.card import card_text
from toto.shards.commit import Commit, FileRef, read_commits
from toto.shards.manifest import final_results, manifest_table, totals
from toto.shards.parquet import parquet_bytes, read_parquet
from toto.shards.schema import FORMAT_VERSION
from toto.shards.snapshot import DATASET, MANIFEST, Snapshot, dataset_id, read_snapshot, snapshot_bytes
from toto.shards.store import Store

QUARANTINE, CARD = "quarantine.parquet", "README.md"


@dataclass(frozen=True)
class Annotation:
    """A table made from the dataset's own files."""

    file: FileRef
    content_hash: str


@dataclass(frozen=True)
class DatasetSpec:
    """What a seal needs to know besides the commits; the plans hold it."""

    name: str
    tokenizer: dict[str, Any]
    settings: dict[str, Any]
    annotations: dict[str, Annotation]
    plans: list[FileRef]
    units: frozenset[str]  # every planned one
    planned_sources: int


def seal(
    store: Store, read_spec: Callable[[], DatasetSpec], reached: Callable[[str], None] = lambda point: None
) -> Snapshot:
    """Publishes all that is committed now; returns the snapshot. `reached` is told each step by name.

    `read_spec` is called under the lock and after the commits were listed: another process may have planned since
    this one began, and whatever is committed was planned before.
    """
    with store.lock("seal"):
        previous = _previous(store)
        commits = read_commits(store)
        spec = read_spec()
        _refuse_strangers(store, spec, commits)
        results = read_results(store, commits)
        manifest = manifest_table(commits, results)
        final = final_results(results)
        value = _value(spec, commits, manifest, final)
        if previous is not None:
            _refuse_loss(store, previous, commits)
            if _same(previous.value, value):
                return previous
        files = _publish(store, spec, value, manifest, final, reached)
        data = snapshot_bytes({**value, "files": files})
        reached("before_dataset")
        store.write(f"{MANIFEST}/{value['dataset_id']}.json", data)
        store.write(DATASET, data)
        reached("after_dataset")
        return read_snapshot(store)


def file_ref(name: str, data: bytes) -> FileRef:
    """The reference to a file with these bytes."""
    return FileRef(name, len(data), hashlib.sha256(data).hexdigest())


def read_results(store: Store, commits: list[Commit]) -> list[pa.Table]:
    """The per-source results of each commit; UserError when a file is missing or damaged."""
    return [read_parquet(_checked(store, commit.sources)) for commit in commits]


def _previous(store: Store) -> Snapshot | None:
    return read_snapshot(store) if store.exists(DATASET) else None


def _refuse_strangers(store: Store, spec: DatasetSpec, commits: list[Commit]) -> None:
    strangers = [commit.unit for commit in commits if commit.unit not in spec.units]
    if strangers:
        raise UserError(
            f"{store.uri}/commits/{strangers[0]}.json is of a unit that no plan holds; take it away, nothing was sealed"
        )


def _refuse_loss(store: Store, previous: Snapshot, commits: list[Commit]) -> None:
    """A sealed unit stays, with the rows it had: also one whose commit vanished and that was done again."""
    before = read_parquet(store.read(previous.value["files"]["manifest"]["path"]), ["unit", "content_hash"])
    now = {commit.unit: commit.content_hash for commit in commits}
    lost = [unit for unit, rows in zip(*before.to_pydict().values(), strict=True) if now.get(unit) != rows]
    if lost:
        raise UserError(
            f"{store.uri}: {len(lost)} sealed units have lost their commit, or hold other rows now "
            f"(first: {min(lost)}); put commits/ back from a copy, nothing was sealed"
        )


def _same(previous: dict[str, Any], value: dict[str, Any]) -> bool:
    ignored = {"files", "sealed_at", "toto_version"}
    return all(previous.get(key) == item for key, item in value.items() if key not in ignored)


def _checked(store: Store, ref: FileRef) -> bytes:
    try:
        data = store.read(ref.path)
    except FileNotFoundError:
        data = b""
    if file_ref(ref.path, data) != ref:
        raise UserError(f"{store.uri}/{ref.path} is missing or damaged; run `toto-shards verify --deep {store.uri}`")
    return data


def _value(spec: DatasetSpec, commits: list[Commit], manifest: pa.Table, final: pa.Table) -> dict[str, Any]:
    ok = final.filter(pc.equal(final["status"], "ok"))
    hashes = {name: annotation.content_hash for name, annotation in sorted(spec.annotations.items())}
    units = [(commit.unit, commit.content_hash) for commit in commits]
    return {
        "format_version": FORMAT_VERSION,
        "dataset_id": dataset_id(spec.tokenizer["id"], spec.settings, units, hashes),
        "name": spec.name,
        "toto_version": __version__,
        "sealed_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "tokenizer": spec.tokenizer,
        "id_layout": {**ids.ID_LAYOUT, "model_vocab": ids.model_vocab(spec.tokenizer["vocab_size"])},
        "settings": spec.settings,
        "annotations": hashes,
        "totals": {
            **totals(manifest),
            "sources": ok.num_rows,
            "quarantined": final.num_rows - ok.num_rows,
            "hours": round((pc.sum(ok["duration_s"]).as_py() or 0.0) / 3600, 6),
        },
        "splits": {
            split: totals(manifest.filter(pc.equal(manifest["split"], split)))
            for split in sorted(set(manifest["split"].to_pylist()))
        },
        "units": {"committed": len(commits), "planned": len(spec.units)},
        "planned_sources": spec.planned_sources,
        "quarantine": dict(sorted(Counter(r for r in final["reason"].to_pylist() if r).items())),
        "made_by": _made_by(commits),
    }


def _made_by(commits: Iterable[Commit]) -> dict[str, Any]:
    """Which code wrote the units, and how far their tokenizers agreed on the canary pictures."""
    commits = list(commits)
    return {
        "versions": sorted({str(commit.made_by.get("version")) for commit in commits}),
        "canary_differs": max((float(commit.canary.get("differs", 0.0)) for commit in commits), default=0.0),
    }


def _publish(
    store: Store,
    spec: DatasetSpec,
    value: dict[str, Any],
    manifest: pa.Table,
    final: pa.Table,
    reached: Callable[[str], None],
) -> dict[str, Any]:
    bad = final.filter(pc.not_equal(final["status"], "ok"))
    written = {
        "manifest": (f"{MANIFEST}/{value['dataset_id']}.parquet", parquet_bytes(manifest)),
        "quarantine": (QUARANTINE, parquet_bytes(bad)),
        "card": (CARD, card_text(value, final).encode()),
    }
    files: dict[str, Any] = {}
    for key, (name, data) in written.items():
        store.write(name, data)
        files[key] = asdict(file_ref(name, data))
        reached(f"after_{key}")
    files["annotations"] = {name: asdict(annotation.file) for name, annotation in sorted(spec.annotations.items())}
    files["plans"] = [asdict(plan) for plan in spec.plans]
    return files
