"""gs:// against an emulator on this machine that forgets the conditions of puts: one run at a time, the rest as on S3.

That Google's own storage honours them (ifGenerationMatch=0) is taken from its documentation.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from token_world import moving_videos, write_tokens

from toto import Dataset
from toto.errors import UserError
from toto.shards.store import RemoteStore, is_exclusive, open_store
from toto.shards.verify import verify

BUCKET = "videos"


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """gs:// is an emulator of this module's own, with an empty bucket in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # asks for the bucket's kind by gRPC, for a minute
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("no_proxy", "127.0.0.1")
        patch.setitem(fsspec.config.conf, "gs", {"token": "anon"})
        from gcp_storage_emulator.server import create_server

        server = create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET)
        server.start()
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server._api._httpd.server_port}")
        yield f"gs://{BUCKET}"
        server.stop()


def test_a_google_bucket_keeps_what_is_written(bucket: str) -> None:
    store = open_store(f"{bucket}/set")
    data = bytes(range(256)) * 5000
    name = f"shards/u-{hashlib.sha256(data).hexdigest()[:8]}.arrow"
    path = store.scratch()
    path.write_bytes(data)
    store.publish(path, name)
    assert store.list("shards") == [name] and store.size(name) == len(data) and store.age_s(name) < 60
    assert store.sha256(name) == hashlib.sha256(data).hexdigest()
    assert store.local_path(name).read_bytes() == data == store.read(name)
    assert store.read_ranges(name, [(0, 8), (700_000, 500)]) == [data[:8], data[700_000:700_500]]
    assert store.create("commits/a.json", b"first") and not store.create("commits/a.json", b"second")
    assert store.version(name) is None  # fsspec knows no conditional replacement here
    assert store.abort_uploads(0) == ()
    store.remove(name)
    assert not store.exists(name)


def test_an_emulator_that_forgets_conditions_is_found_out(bucket: str) -> None:
    assert not is_exclusive(open_store(f"{bucket}/probe"))
    with pytest.raises(UserError, match="no such bucket"):
        is_exclusive(open_store("gs://nobodys-bucket/set"))


def test_a_dataset_in_a_google_bucket_is_whole(bucket: str, tmp_path: Path) -> None:
    local = write_tokens(tmp_path / "set", moving_videos(3), unit_sources=1)
    store = open_store(f"{bucket}/world")
    assert isinstance(store, RemoteStore)
    for path in (path for path in local.rglob("*") if path.is_file()):
        store.write(str(path.relative_to(local)), path.read_bytes())
    assert verify(store, deep=True).problems == []
    assert [row.source for row in Dataset(store.uri).rows()] == [row.source for row in Dataset(local).rows()]
