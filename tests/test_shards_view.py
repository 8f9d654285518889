"""`toto-shards view`: tokens back to pictures, beside their source; names from strangers do no harm."""

import base64
import io
import json
import sys
from html.parser import HTMLParser
from pathlib import Path

import av
import browser
import numpy as np
import pytest
from clips import PIXELS, call, run_arguments, write_image, write_video
from PIL import Image, ImageSequence

from toto import Dataset
from toto.errors import UserError
from toto.media import frames as source_frames
from toto.plain import plain
from toto.shards.cli import cli
from toto.shards.look import page, pictures
from toto.shards.look.clips import Painter, choose
from toto.shards.look.originals import NO_MEDIA, NO_ROOT, Originals, under
from toto.shards.look.view import NO_MP4, SHEET_FRAMES, View, write_view
from toto.tokenize.cli import cli as tokenize_cli
from toto.tokenizers import load

HOSTILE = "<img src=x onerror=alert(1)>&\"'\n\u202e.png"
SIDE = 128  # four times the 32 pixels of these frames


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "drift.mp4", 40, (48, 32))
    write_image(folder / "a" / "still.png", (64, 48), 1)
    write_image(folder / HOSTILE, (40, 40), 2)
    return folder


@pytest.fixture(scope="module")
def dataset(videos: Path) -> Dataset:
    return tokenize(videos, videos.parent / "set")


def tokenize(videos: Path, out: Path, *arguments: str) -> Dataset:
    words = ["run", *run_arguments(videos, out), "--ray-address", "local", *arguments]
    assert tokenize_cli.main(words, standalone_mode=False) == 0
    return Dataset(out)


def view(dataset: Dataset, root: Path | None = None, **asked: object) -> View:
    defaults = {"rows": (), "windows": (), "source": None, "frames": 16, "stride": 1}
    originals = Originals(under(str(root)) if root else None)
    return View(dataset, Painter(dataset, originals), choose(dataset, **{**defaults, **asked}))  # type: ignore[arg-type]


def decoded(dataset: Dataset, codes: np.ndarray) -> np.ndarray:
    return load(dataset.tokenizer).decode(codes).transpose(0, 2, 3, 1)


def enlarged(picture: np.ndarray) -> np.ndarray:
    return np.kron(picture, np.ones((4, 4, 1), np.uint8))


def test_sheet_shows_exactly_what_the_tokenizer_decodes(dataset: Dataset, tmp_path: Path) -> None:
    row = dataset.frames("drift.mp4")[0]
    out, remarks = write_view(view(dataset, source="drift.mp4"), tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(out).convert("RGB"))
    shown = np.linspace(0, row.n_frames - 1, SHEET_FRAMES).round().astype(int)
    top, left = pictures.MARGIN + pictures.LINE_HEIGHT, pictures.MARGIN + pictures.LABEL_WIDTH
    for place, frame in enumerate(decoded(dataset, row.codes[shown])):
        x = left + place * (SIDE + pictures.GAP)
        assert (sheet[top : top + SIDE, x : x + SIDE] == enlarged(frame)).all()
    assert remarks == []


def test_gif_moves_in_real_time_with_the_source_at_its_left(dataset: Dataset, videos: Path, tmp_path: Path) -> None:
    asked = view(dataset, videos, windows=(0,), frames=8, stride=2)
    window = dataset.window(0, frames=8, stride=2)
    out, _ = write_view(asked, tmp_path / "window.gif")
    with Image.open(out) as gif:
        assert gif.info["duration"] == 80  # every second frame of 25 a second
        moments = [np.asarray(moment.convert("RGB"), int) for moment in ImageSequence.Iterator(gif)]
    assert len(moments) == 8
    top, left = pictures.MARGIN + pictures.LINE_HEIGHT, pictures.MARGIN + pictures.LABEL_WIDTH
    originals = source_frames(str(videos / window.source), window.frame_index.tolist(), window.row.crop)
    codes = window.row.codes[window.frame_index]
    for moment, original, frame in zip(moments, originals, decoded(dataset, codes), strict=True):
        source, tokens = (moment[top : top + SIDE, x : x + SIDE] for x in (left, left + SIDE + pictures.GAP))
        assert np.abs(source - pictures.fit(original, SIDE, SIDE)).mean() < 8  # 256 colours for all frames
        assert np.abs(tokens - enlarged(frame)).mean() < 8
        assert np.abs(source - enlarged(frame)).mean() > np.abs(tokens - enlarged(frame)).mean()


def test_mp4_holds_every_frame(dataset: Dataset, tmp_path: Path) -> None:
    out, _ = write_view(view(dataset, source="drift.mp4"), tmp_path / "row.mp4")
    with av.open(str(out)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 40
        assert float(container.streams.video[0].average_rate or 0) == pytest.approx(25)


def test_without_a_video_library_mp4_becomes_gif_and_a_line_says_so(
    dataset: Dataset, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "toto.media", None)
    asked = view(dataset, videos, rows=(0,))
    out, remarks = write_view(asked, tmp_path / "row.mp4")
    assert (out.name, remarks) == ("row.gif", [NO_MP4])
    originals = Originals(under(str(videos)))
    assert Painter(dataset, originals).clip(asked.picks[0]).beside is None
    assert originals.note == NO_MEDIA


def test_without_pillow_view_gives_json_and_one_line(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "PIL").mkdir()
    (tmp_path / "PIL" / "__init__.py").write_text("raise ImportError('no pillow here')")
    uri = dataset.store.uri
    done = call("shards", "view", uri, "--row", "0", "--json", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1 and not (tmp_path / "view.png").exists()
    assert json.loads(done.stdout.splitlines()[-1])["clips"][0]["row_id"] == dataset.row(0).record.row_id.hex()
    assert done.stderr == "error: pictures need pillow: pip install 'toto-video[view]'\n"


class Tags(HTMLParser):
    """Every tag of a page with its attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


def test_page_is_self_contained_and_hostile_names_are_only_text(dataset: Dataset, videos: Path, tmp_path: Path) -> None:
    out, _ = write_view(view(dataset, videos), tmp_path / "page.html")
    found = Tags(out.read_text())
    shown = HOSTILE.replace("\n", "\ufffd").replace("\u202e", "\ufffd")
    assert shown in found.words and dataset.dataset_id in found.words
    images = [attributes for tag, attributes in found.tags if tag == "img"]
    assert len(images) == len(dataset)
    assert all((image["src"] or "").startswith("data:image/") for image in images)
    known = {"alt", "charset", "class", "content", "http-equiv", "lang", "media", "name", "src", "srcset"}
    assert {name for _, attributes in found.tags for name in attributes} <= known
    assert not {tag for tag, _ in found.tags} & {"script", "link", "iframe", "object", "a", "form"}
    assert ("http-equiv", "Content-Security-Policy") in [
        item for tag, attributes in found.tags if tag == "meta" for item in attributes.items()
    ]


def test_a_real_browser_shows_every_picture_of_the_page(dataset: Dataset, videos: Path, tmp_path: Path) -> None:
    out, _ = write_view(view(dataset, videos), tmp_path / "page.html")
    seen = browser.look(out, width=500)  # as narrow as a phone: nothing sticks out
    assert len(seen["pictures"]) == len(dataset) and seen["wide"] <= 500
    assert all(loaded and 0 < shown <= 500 for loaded, _, _, shown in seen["pictures"])
    assert dataset.dataset_id in seen["text"] and HOSTILE.partition("\n")[0] in seen["text"]


def test_hostile_names_stay_on_one_line_of_the_terminal(dataset: Dataset, tmp_path: Path) -> None:
    out = str(tmp_path / "sheet.png")
    done = call("shards", "view", dataset.store.uri, "--source", HOSTILE, "--out", out)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3 and "\u202e" not in done.stdout
    assert Image.open(out).size[0] > SIDE


def test_source_out_of_reach_is_said_in_one_line(dataset: Dataset, tmp_path: Path) -> None:
    originals = Originals(under(str(tmp_path)))
    (tmp_path / "drift.mp4").write_bytes(b"not a video")
    painter = Painter(dataset, originals)
    clips = [painter.clip(pick) for pick in choose(dataset, (), (), None, 16, 1)]
    assert [clip.beside for clip in clips] == [None] * len(dataset)
    assert originals.note is not None and originals.note.startswith("source frames of 3 not shown: ")
    assert "\n" not in plain(originals.note)
    assert Originals(None).note == NO_ROOT


def test_no_key_leads_out_of_the_sources_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"")
    inside = tmp_path / "inside"
    (inside / "train" / "some class").mkdir(parents=True)
    (inside / "train" / "some class" / "id_000001_000011.mp4").write_bytes(b"")
    find = under(str(inside))
    assert find("../secret.png") is None and find(str(tmp_path / "secret.png")) is None and find("") is None
    assert under("s3://bucket/videos")("../other/secret.png") is None
    found = find("train/id_000001_000011")  # keys of official lists have neither class folder nor suffix
    assert found == str(inside / "train" / "some class" / "id_000001_000011.mp4")
    with pytest.raises(UserError, match="no such folder"):
        under(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("--row", "9"), "has no row 9: they are 0 to 2"),
        (("--window", "2"), "has no window 2: those of 16 frames at stride 1 are 0 to 1"),
        (("--source", "x"), "no rows of source 'x'; keys are such as '"),
        (("--split", "val"), "has no split 'val'; it has: all"),
        (("--frames", "8"), "give --window N too"),
        (("--row", "0", "--window", "0"), "give one of them"),
        (("--out", "sheet.bmp"), "known formats are .png, .gif, .mp4, .html"),
        (("--sources", "/nowhere"), "/nowhere: no such folder"),
    ],
)
def test_what_cannot_be_shown_is_a_short_error(dataset: Dataset, asked: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError) as refused:
        cli.main(["view", str(dataset.store.uri), *asked], standalone_mode=False)
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_a_row_out_of_range_ends_the_command_with_one_line(dataset: Dataset, tmp_path: Path) -> None:
    done = call("shards", "view", dataset.store.uri, "--row", "9", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {dataset.store.uri} has no row 9: they are 0 to 2\n"
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_without_codes_shows_its_pixels(videos: Path, tmp_path: Path) -> None:
    dataset = tokenize(videos, tmp_path / "set", *PIXELS)
    (pick,) = choose(dataset, (), (), "drift.mp4", 16, 1)
    clip = Painter(dataset, Originals(None)).clip(pick)
    assert clip.label == "pixels" and (clip.decoded == pick.row.pixels).all()
    out, _ = write_view(view(dataset, windows=(1,)), tmp_path / "sheet.png")
    assert Image.open(out).size[0] > 8 * 128


def test_kept_pixels_stand_in_for_a_source_out_of_reach(videos: Path, tmp_path: Path) -> None:
    dataset = tokenize(videos, tmp_path / "set", "--set", "datasets.folder.keep_pixels=48")
    (pick,) = choose(dataset, (), (), "a/still.png", 16, 1)
    clip = Painter(dataset, Originals(None)).clip(pick)
    assert clip.beside_label == "pixels" and clip.beside is not None
    assert (clip.beside[0] == pick.row.pixels[0]).all()


def test_pictures_survive_the_page(dataset: Dataset) -> None:
    picture = decoded(dataset, dataset.row(0).codes)[0]
    held = page.picture(pictures.png_bytes(picture), 'a "name"')
    assert '"a &quot;name&quot;"' in held
    data = held.split("base64,")[1].split('"')[0]
    again = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert (again == picture).all()
