"""import from a store that speaks S3 over a wire that fails: what the same folder gives, and nothing is kept."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fault_proxy import FaultProxy
from object_store import BUCKET, faults, s3, upload  # noqa: F401
from rewrites import QUIET, code_folder, in_child, killing_at, whole

from toto import Dataset
from toto.errors import UsageError, UserError
from toto.files import cache_folder
from toto.shards.rewrite import foreign_files, foreign_rows, ranged
from toto.shards.rewrite.importing import import_tokens
from toto.shards.store import retry as store_retry

pytestmark = pytest.mark.xdist_group("s3")
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def patient(faults: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(store_retry, "PAUSES_S", (0.01,) * 8)


def imported(source: str | Path, out: Path, **more: Any) -> Dataset:
    """Imports and opens it; it is whole, and the cache holds no file of the source."""
    import_tokens(source, str(out), **{"tokenizer": "somebodys", "options": QUIET, **more})
    assert whole(out)
    assert not (cache_folder() / "tmp").exists() or list((cache_folder() / "tmp").iterdir()) == []
    return Dataset(out)


@pytest.mark.parametrize("in_memory", [4 << 20, 100])
def test_a_bucket_gives_the_dataset_that_the_folder_gives(
    in_memory: int,
    tmp_path: Path,
    faults: FaultProxy,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(foreign_files, "IN_MEMORY", in_memory)  # 100 bytes: every array goes through a file
    codes = RNG.integers(0, 300, (9, 1, 2, 24))
    arrays = {f"codes/a/{i}.npy": codes[i] for i in range(9)} | {"codes/b.npy": np.full((1, 2, 24), 300)}
    arrays |= {f"labels/a/{i}.npy": np.array([i % 2]) for i in range(8)}
    facts = {"kind": "image", "views": 2, "flips": True, "codes": "codes", "labels": "labels", "splits": {"a": "val"}}
    source = code_folder(tmp_path / "in", arrays, **facts)
    (source / "codes" / ".hidden.npy").write_bytes(b"x")
    (source / "codes" / "empty.npy").write_bytes(b"")
    uri = upload(source, f"{tmp_path.name}-npy")
    faults.share = 0.05
    there, here = imported(uri, tmp_path / "there"), imported(source, tmp_path / "here")
    assert there.dataset_id == here.dataset_id
    assert there.labels() == {f"a/{i}.npy": i % 2 for i in range(8)} and len(there) == 18
    assert {line["reason"] for line in there.quarantine().to_pylist()} == {"bad_codes", "empty"}


@pytest.mark.parametrize("part", [64 << 20, 1000])
def test_raw_video_is_read_by_parts(
    part: int,
    tmp_path: Path,
    faults: FaultProxy,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ranged, "AT_ONCE", part)  # 1,000 bytes: segments are checked and read in several requests
    monkeypatch.setattr(foreign_rows, "AT_ONCE", part)
    source = tmp_path / "train_v1.1"
    source.mkdir()
    codes = RNG.integers(0, 1 << 18, (300, 4, 4)).astype(np.uint32)
    codes[250] = 1 << 20
    codes.tofile(source / "video.bin")
    np.repeat(np.array([0, 1, 7], np.int32), (30, 210, 60)).tofile(source / "segment_ids.bin")
    told = {"token_dtype": "uint32", "s": 4, "num_images": 300, "hz": 30, "vocab_size": 1 << 18}
    (source / "metadata.json").write_text(json.dumps(told))
    uri = upload(source, f"{tmp_path.name}-raw")
    asked, more = len(faults.requests), {"tokenizer": "magvit2", "given": {"patch": 16}}
    there, here = imported(uri, tmp_path / "there", **more), imported(source, tmp_path / "here", **more)
    assert there.dataset_id == here.dataset_id
    assert (np.concatenate([row.codes for row in there.rows()]) == codes[:240]).all()
    assert [line["reason"] for line in there.quarantine().to_pylist()] == ["bad_codes"]
    gets = [path for method, path in faults.requests[asked:] if method == "GET" and "video.bin" in path]
    assert len(gets) == 3 if part > 1000 else len(gets) > 3


def test_killed_and_run_again_it_is_the_same_and_other_files_are_refused(tmp_path: Path) -> None:
    source = code_folder(tmp_path / "in", {f"{i}.npy": RNG.integers(0, 300, (3, 4, 6)) for i in range(9)})
    uri, out = upload(source, f"{tmp_path.name}-kill"), tmp_path / "out"
    expected = imported(source, tmp_path / "alone", shard_bytes=400).dataset_id
    in_child(lambda: import_tokens(uri, str(out), "somebodys", shard_bytes=400, options=killing_at(7))).join()
    assert imported(uri, out, shard_bytes=400).dataset_id == expected
    np.save(source / "0.npy", np.zeros((3, 4, 6), int))
    upload(source, f"{tmp_path.name}-kill")
    with pytest.raises(UsageError, match="made of other files"):
        import_tokens(uri, str(out), "somebodys", shard_bytes=400, options=QUIET)


def test_what_cannot_be_read_is_told_in_one_line(tmp_path: Path) -> None:
    for uri, said in (
        ("s3://nobodys-bucket/codes", "no such bucket"),
        (f"s3://{BUCKET}/nothing-here", "does not tell vocab_size"),
        (str(tmp_path / "nowhere"), "is not a folder; name one of this machine, or an fsspec URI"),
    ):
        with pytest.raises(UserError, match=said):
            import_tokens(uri, str(tmp_path / "out"), "somebodys", options=QUIET)
