"""Commits -> a sealed snapshot: views, manifest, quarantine, card, then dataset.json, which readers look at first.

Sealing lists the commits, so it may run at any time, also while units are being written, and as often as one
likes. dataset.json is only ever replaced by one that holds all its units and maybe more; old manifests stay.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Set
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from toto import __version__
from toto.errors import UserError
from toto.plain import counted
from toto.shards import ids
from toto.shards.card import card_text
from toto.shards.commit import Commit, FileRef, read_commits
from toto.shards.manifest import MANIFEST_SCHEMA, final_results, manifest_table, results_table, totals
from toto.shards.parquet import parquet_bytes, read_table
from toto.shards.protocol_views import VIEWS, source_labels, view_tables
from toto.shards.schema import FORMAT_VERSION
from toto.shards.snapshot import DATASET, MANIFEST, Snapshot, dataset_id, read_snapshot, snapshot_bytes
from toto.shards.store import Store

QUARANTINE, CARD = "quarantine.parquet", "README.md"
SEALERS = 8  # seals that may come between, one after the other, before one gives up


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
        for _ in range(SEALERS):
            snapshot = _seal_once(store, read_spec, reached)
            if snapshot is not None:
                return snapshot
    raise UserError(f"{store.uri}: {SEALERS} other runs sealed at this moment; nothing is lost, run again")


def _seal_once(store: Store, read_spec: Callable[[], DatasetSpec], reached: Callable[[str], None]) -> Snapshot | None:
    """The snapshot of all that is committed now; None when another seal came between, on a store without locks."""
    version, sealed = store.version(DATASET), set(store.list(MANIFEST))
    previous = _previous(store)
    commits = read_commits(store)
    spec = read_spec()
    _refuse_strangers(store, spec, commits)
    results = read_results(store, commits)
    manifest = manifest_table(commits, results)
    final = final_results(results)
    value = _value(spec, commits, manifest, final)
    views = view_tables(spec.settings, final, _labels(store, spec))
    if previous is not None:
        _refuse_loss(store, previous, commits)
        if _same(previous.value, value, views.keys()) and _agrees(store, previous):
            return previous
    files = _publish(store, spec, value, manifest, final, views, reached)
    data = snapshot_bytes({**value, "files": files})
    reached("before_dataset")
    store.write(f"{MANIFEST}/{value['dataset_id']}.json", data)
    if not store.replace(DATASET, data, version):
        return None
    reached("after_dataset")
    return _settled(store, sealed, value["dataset_id"])


def file_ref(name: str, data: bytes) -> FileRef:
    """The reference to a file with these bytes."""
    return FileRef(name, len(data), hashlib.sha256(data).hexdigest())


def read_results(store: Store, commits: list[Commit]) -> list[pa.Table]:
    """The per-source results of each commit; UserError when a file is missing or damaged."""
    refs = [commit.sources for commit in commits]
    try:
        files = store.read_all([ref.path for ref in refs])
    except FileNotFoundError:
        files = ()
    whole = len(files) == len(refs) and all(file_ref(r.path, d) == r for r, d in zip(refs, files, strict=True))
    found = files if whole else (_checked(store, ref) for ref in refs)
    return [results_table(data, ref.path) for ref, data in zip(refs, found, strict=True)]


def _previous(store: Store) -> Snapshot | None:
    return read_snapshot(store) if store.exists(DATASET) else None


def _settled(store: Store, sealed: set[str], mine: str) -> Snapshot | None:
    """The snapshot that is there now; None when a seal that began before ours ended may have lost units by ours.

    Every seal writes manifest/<id>.json first. So where two cross, the later one to write dataset.json finds the
    other's there, and seals again, over the commits of both.
    """
    snapshot = read_snapshot(store)
    others = set(store.list(MANIFEST)) - sealed - {f"{MANIFEST}/{mine}.json", f"{MANIFEST}/{mine}.parquet"}
    crossed = bool(others) and snapshot.dataset_id == mine
    return None if crossed or not _agrees(store, snapshot) else snapshot


def _agrees(store: Store, snapshot: Snapshot) -> bool:
    """Whether the files whose names stay the same are those of this snapshot."""
    refs = [FileRef(**snapshot.value["files"][key]) for key in ("quarantine", "card")]
    return all(store.exists(ref.path) and file_ref(ref.path, store.read(ref.path)) == ref for ref in refs)


def _refuse_strangers(store: Store, spec: DatasetSpec, commits: list[Commit]) -> None:
    strangers = [commit.unit for commit in commits if commit.unit not in spec.units]
    if strangers:
        raise UserError(
            f"{store.uri}/commits/{strangers[0]}.json is of a unit that no plan holds; take it away, nothing was sealed"
        )


def _refuse_loss(store: Store, previous: Snapshot, commits: list[Commit]) -> None:
    """A sealed unit stays, with the rows it had: also one whose commit vanished and that was done again."""
    name = previous.value["files"]["manifest"]["path"]
    before = read_table(store.read(name), name, ["unit", "content_hash"], MANIFEST_SCHEMA)
    now = {commit.unit: commit.content_hash for commit in commits}
    lost = [unit for unit, rows in zip(*before.to_pydict().values(), strict=True) if now.get(unit) != rows]
    if lost:
        raise UserError(
            f"{store.uri}: {counted(len(lost), 'sealed unit')} without a commit, or with other rows than before "
            f"(first: {min(lost)}); put commits/ back from a copy, nothing was sealed"
        )


def _labels(store: Store, spec: DatasetSpec) -> dict[str, int]:
    """Source -> label by the annotations, which may be newer than the rows."""
    if "labels" not in spec.annotations:
        return {}
    file = spec.annotations["labels"].file
    return source_labels(read_table(_checked(store, file), file.path))


def _same(previous: dict[str, Any], value: dict[str, Any], views: Set[str]) -> bool:
    """Whether a snapshot says all this already; one from before there were views does not."""
    ignored = {"files", "sealed_at", "toto_version"}
    if previous["files"].get("views", {}).keys() != views:
        return False
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
    ok = final.select(["duration_s"]).filter(pc.equal(final["status"], "ok"))
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
    precisions = sorted({str(commit.canary["precision"]) for commit in commits if "precision" in commit.canary})
    flips = max((float(commit.canary.get("flips", 0.0)) for commit in commits), default=0.0)
    return {
        "versions": sorted({str(commit.made_by.get("version")) for commit in commits}),
        "canary_differs": max((float(commit.canary.get("differs", 0.0)) for commit in commits), default=0.0),
        **({"precisions": precisions, "flips": flips} if precisions else {}),
    }


def _publish(
    store: Store,
    spec: DatasetSpec,
    value: dict[str, Any],
    manifest: pa.Table,
    final: pa.Table,
    views: dict[str, pa.Table],
    reached: Callable[[str], None],
) -> dict[str, Any]:
    files: dict[str, Any] = {"views": {name: asdict(_write_views(store, name, views[name])) for name in sorted(views)}}
    reached("after_views")
    bad = final.filter(pc.not_equal(final["status"], "ok"))
    written = {
        "manifest": (f"{MANIFEST}/{value['dataset_id']}.parquet", parquet_bytes(manifest)),
        "quarantine": (QUARANTINE, parquet_bytes(bad)),
        "card": (CARD, card_text(value, final).encode()),
    }
    for key, (name, data) in written.items():
        store.write(name, data)
        files[key] = asdict(file_ref(name, data))
        reached(f"after_{key}")
    files["annotations"] = {name: asdict(annotation.file) for name, annotation in sorted(spec.annotations.items())}
    files["plans"] = [asdict(plan) for plan in spec.plans]
    return files


def _write_views(store: Store, name: str, table: pa.Table) -> FileRef:
    """Writes a table under a name that holds its hash: older snapshots keep theirs."""
    data = parquet_bytes(table)
    ref = file_ref("", data)
    ref = replace(ref, path=f"{VIEWS}/{name}-{ref.sha256[:8]}.parquet")
    store.write(ref.path, data)
    return ref
