"""The demo on a few clips of one's own: every command run as typed, and a page that a real browser shows whole."""

import shlex
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import browser
import numpy as np
import pytest
from clips import call, write_image, write_video
from PIL import Image
from warm_scripts import stand_beside, warm_scripts

from toto import Dataset
from toto.demo.report import reading_code
from toto.demo.road import choose_road

HOSTILE = "<script>alert(1)</script>".replace("/", "\u2215") + "&\"'.mp4"
BROKEN = "<b>broken.mp4"


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of console scripts."""
    folder = tmp_path_factory.mktemp("bin")
    with warm_scripts(folder):
        yield folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("my videos")
    write_video(folder / "long.mp4", 80, (96, 64), 0)
    write_video(folder / "trip" / HOSTILE, 40, (64, 96), 1)
    write_video(folder / "trip" / "short.mp4", 3, (64, 64), 2)
    write_image(folder / "still.png", (80, 60), 3)
    (folder / BROKEN).write_bytes(b"no video")
    return folder


def demo(scripts: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return call("demo", "--ray-address", "local", *arguments, first=partial(stand_beside, scripts))


@pytest.fixture(scope="module")
def done(scripts: Path, videos: Path) -> tuple[subprocess.CompletedProcess[str], Path]:
    out = videos.parent / "demo-out"
    return demo(scripts, "--videos", videos, "--out", out), out


def test_demo_runs_plan_run_verify_info_and_says_so(
    done: tuple[subprocess.CompletedProcess[str], Path], videos: Path
) -> None:
    ran, out = done
    assert ran.returncode == 0, ran.stderr
    typed = [shlex.split(line[2:]) for line in ran.stdout.splitlines() if line.startswith("$ ")]
    assert [words[:2] for words in typed] == [
        ["toto-tokenize", "plan"],
        ["toto-tokenize", "run"],
        ["toto-shards", "verify"],
        ["toto-shards", "info"],
    ]
    assert f"datasets.folder.root={videos}" in typed[1]
    assert ": whole (" in ran.stdout and Dataset(out / "shards").dataset_id in ran.stdout
    assert ran.stdout.splitlines()[-1].startswith(f"{out / 'report.html'}: open it in a browser")


def test_report_holds_all_and_loads_nothing(done: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    page = (done[1] / "report.html").read_text()
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page
    assert "<b>broken" not in page and "&lt;b&gt;broken.mp4" in page and "open_error" in page
    assert "http://" not in page and "https://" not in page and "url(" not in page
    assert "tokens a second" in page and "not measured" not in page
    assert len(page) < 4_000_000


def test_the_code_on_the_page_runs(done: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    uri = str(done[1] / "shards")
    names: dict[str, object] = {}
    exec(reading_code(uri, Dataset(uri)), names)
    assert names["window"].tokens.shape == (2 + 16 * 256,)  # type: ignore[attr-defined]
    assert names["pictures"].shape[1:] == (3, 128, 128)  # type: ignore[attr-defined]


def test_a_real_browser_shows_every_picture(
    done: tuple[subprocess.CompletedProcess[str], Path], tmp_path: Path
) -> None:
    report = done[1] / "report.html"
    seen = browser.look(report, width=500)  # as narrow as a phone: nothing sticks out
    assert seen["wide"] <= 500
    # One frame: source and decoded. Then a picture of two halves for each video and image.
    assert len(seen["pictures"]) == 2 + 3 + 1
    assert all(loaded and width >= 128 and shown > 100 for loaded, width, _, shown in seen["pictures"])
    assert Dataset(done[1] / "shards").dataset_id in seen["text"]
    assert HOSTILE in seen["text"] and "$ toto-tokenize run folder" in seen["text"]
    browser.screenshot(report, tmp_path / "page.png", (1200, 1600))
    with Image.open(tmp_path / "page.png") as shot:
        assert shot.size == (1200, 1600)
        assert len(np.unique(np.asarray(shot.convert("RGB")).reshape(-1, 3), axis=0)) > 1000


def test_running_it_again_does_nothing_twice(
    done: tuple[subprocess.CompletedProcess[str], Path], scripts: Path, videos: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (done[1] / "shards").rglob("*.arrow")}
    again = demo(scripts, "--videos", videos, "--out", done[1])
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in (done[1] / "shards").rglob("*.arrow")} == before
    assert "Measured when the dataset was made" in (done[1] / "report.html").read_text()


def test_a_failing_command_stops_the_demo_with_its_own_error(scripts: Path, tmp_path: Path) -> None:
    failed = demo(scripts, "--videos", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert failed.returncode in (1, 2)
    assert "nowhere" in failed.stderr and len(failed.stderr.splitlines()) <= 2
    assert not (tmp_path / "out" / "report.html").exists()


def test_folders_of_the_same_name_get_places_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOTO_DATA", "/d")
    monkeypatch.setenv("TOTO_RUNS", "/r")
    one, other = choose_road("/one/My Videos", None), choose_road("/other/My Videos", None)
    assert one.shards != other.shards and one.folder != other.folder
    assert one.shards is not None and one.shards.startswith("/d/my-videos-")
    assert choose_road(None, None).folder == Path("/r/demo")
