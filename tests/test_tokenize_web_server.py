"""A plain web server, without parts of files and without uploads: datasets and videos are read from it."""

import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from clips import PIXELS, reasons_of, rows_of, run_arguments, write_clips, write_image, write_video

from toto import Dataset
from toto.errors import UserError
from toto.shards.store import is_exclusive, open_store
from toto.shards.verify import verify
from toto.tokenize.cli import cli

BLOCK = 5 << 20  # bytes that fsspec asks a web server for at a time


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder and its listings; takes every request for a part of a file as one for all of it."""

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""

    def copyfile(self, source, outputfile) -> None:  # type: ignore[no-untyped-def]
        """A client may go away when it has what it wants."""
        try:
            super().copyfile(source, outputfile)
        except OSError:
            self.close_connection = True


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos, one of them larger than a block and with its index at the end, and the dataset made of them."""
    folder = tmp_path_factory.mktemp("www")
    write_clips(folder / "videos", 2, 20)
    write_image(folder / "videos" / "a b" / "100%.png")
    (folder / "videos" / "broken.mp4").write_bytes(b"not a video")
    assert write_video(folder / "videos" / "large.mp4", 90, (640, 480)).stat().st_size > BLOCK
    run_here(folder / "videos", folder / "set")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address under which that folder is served; local copies go into a cache of this module's own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("no_proxy", "127.0.0.1")
        yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def run_here(sources: str | Path, out: Path) -> None:
    """`toto-tokenize run` in this process."""
    words = ["run", *run_arguments(sources, out), *PIXELS, "--ray-address", "local"]  # type: ignore[arg-type]
    assert cli.main(words, standalone_mode=False) == 0


def rows(uri: str | Path) -> Counter[str]:
    """The multiset of rows."""
    return rows_of(uri)  # type: ignore[arg-type]


def test_a_dataset_is_read_from_a_web_server(folder: Path, server: str) -> None:
    dataset = Dataset(f"{server}/set")
    assert rows(f"{server}/set") == rows(folder / "set")
    assert Dataset(f"{server}/set", id=dataset.dataset_id[:12]).dataset_id == dataset.dataset_id
    report = verify(open_store(f"{server}/set"), deep=True)
    assert report.problems == [] and report.rows == len(dataset)
    with pytest.raises(UserError, match="no dataset at"):
        Dataset(f"{server}/nothing")


def test_videos_are_read_from_a_web_server_that_gives_no_parts_of_them(
    folder: Path, server: str, tmp_path: Path
) -> None:
    run_here(f"{server}/videos", tmp_path / "set")
    assert rows(tmp_path / "set") == rows(folder / "set")
    assert reasons_of(tmp_path / "set") == {"broken.mp4": "open_error"}


def test_a_web_server_is_no_target(server: str) -> None:
    with pytest.raises(UserError, match="the store refuses"):
        is_exclusive(open_store(f"{server}/target"))
