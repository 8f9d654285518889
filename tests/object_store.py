"""An S3 server on this machine for tests: moto's, in a process of its own, with data of its own and made-up keys.

It honours If-None-Match: * (PutObject, CompleteMultipartUpload) and If-Match (PutObject), but looks and writes in two
steps. So it takes one request at a time here, which makes them one step, as S3 promises.

`python object_store.py` runs the server on a free port, which it prints, until its stdin ends.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import fsspec
import pytest
from fault_proxy import FaultProxy, fault_proxy

BUCKET = "videos"
_servers: list[subprocess.Popen[str]] = []  # kept: whose stdin is closed, ends
PAGE = 20  # names in one answer to a listing; S3 gives 1,000


@cache
def s3_server() -> str:
    """The address of this process's server, with an empty BUCKET in it; the server ends when this process does."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    server = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**environment, "MOTO_S3_DEFAULT_MAX_KEYS": str(PAGE)},
    )
    _servers.append(server)
    assert server.stdout is not None
    address = f"http://127.0.0.1:{int(server.stdout.readline())}"
    _fresh_file_system(address).mkdir(BUCKET)
    return address


def variables(address: str) -> dict[str, str]:
    """The environment in which s3:// is this server, and nothing can reach a real one."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "made-up",
        "AWS_SECRET_ACCESS_KEY": "made-up",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "no_proxy": "127.0.0.1",
    }


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultProxy]:
    """s3:// is this process's server, behind a proxy of this module's own; copies go into a cache of its own."""
    with fault_proxy(s3_server()) as proxy, pytest.MonkeyPatch.context() as patch:
        for name, value in variables(proxy.address).items():
            patch.setenv(name, value)
        patch.setenv("AWS_MAX_ATTEMPTS", "1")  # botocore's own tries, so that ours are seen
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        _forget_connections()
        yield proxy
        _forget_connections()


@pytest.fixture
def faults(s3: FaultProxy) -> Iterator[FaultProxy]:
    """The proxy, without faults at the beginning and at the end of each test."""
    yield s3
    s3.share, s3.once, s3.careless = 0.0, [], False
    s3.go_on.set()
    s3.go_on = threading.Event()


def upload(folder: Path, prefix: str) -> str:
    """Copies a folder into the bucket, past the proxy's schedule; its URI."""
    files = fsspec.filesystem("s3")
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        files.pipe_file(f"{BUCKET}/{prefix}/{path.relative_to(folder)}", path.read_bytes())
    return f"s3://{BUCKET}/{prefix}"


def _forget_connections() -> None:
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()  # they remember the address of an earlier module's server


def _fresh_file_system(address: str) -> fsspec.AbstractFileSystem:
    return fsspec.filesystem(
        "s3", key="made-up", secret="made-up", endpoint_url=address, skip_instance_cache=True, use_listings_cache=False
    )


def _serve() -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=False)
    print(server.server_port, flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    server.serve_forever()


if __name__ == "__main__":
    _serve()
