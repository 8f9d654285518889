"""From a row's key back to its source, also in tars and in Ego4D's folders: what readers list is what is found."""

import io
from pathlib import Path

import numpy as np
import pytest
from archives import tar_of
from PIL import Image
from test_tokenize_imagenet_tars import archives, jpeg

from toto import media
from toto.config import DatasetConfig
from toto.errors import UserError
from toto.shards.look.originals import Originals, under
from toto.tokenize.sources import list_sources


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (24, 32, 3), dtype=np.uint8)


def png(seed: int) -> bytes:
    target = io.BytesIO()
    Image.fromarray(picture(seed)).save(target, "PNG")
    return target.getvalue()


def written(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def shards() -> dict[str, bytes]:
    """Two webdataset shards with samples of the same names, one a prefix of another."""
    return {
        f"{shard}.tar": tar_of({f"00{i}.{part}": png(i) for i in (seed, seed * 10) for part in ("png", "txt")})
        for seed, shard in ((1, "train/00000"), (2, "train/00001"))
    }


def wnid_tars() -> dict[str, bytes]:
    return {f"n0{i}000000.tar": tar_of({f"n0{i}000000_1.JPEG": jpeg(i)}) for i in (1, 2)}


ROOTS = {
    "webdataset": ("webdataset", shards),
    "imagenet21k": ("imagenet21k", wnid_tars),
    "imagenet": ("imagenet", archives),
}


@pytest.mark.parametrize("name", ROOTS)
def test_members_of_tars_are_found_as_the_reader_of_the_layout_lists_them(name: str, tmp_path: Path) -> None:
    layout, files = ROOTS[name]
    root = written(tmp_path / name, files())
    sources = list_sources(DatasetConfig(name="mine", layout=layout, root=str(root))).sources
    assert len(sources) >= 2 and all(source.uri.startswith("part:") for source in sources)
    assert {source.key: media.find(str(root), source.key) for source in sources} == {s.key: s.uri for s in sources}


def test_a_viewer_gets_the_pixels_of_a_member(tmp_path: Path) -> None:
    originals = Originals(under(str(written(tmp_path, shards()))))
    frames = originals.frames("train/00001/002", [0], (4, 2, 20, 10))
    assert frames is not None and originals.note is None
    np.testing.assert_array_equal(frames[0], picture(2)[2:12, 4:24])


def test_videos_of_moments_are_found_in_their_variants_folder(tmp_path: Path) -> None:
    root = written(tmp_path, {"v2/full_scale/uid-1.mp4": b"x", "v2/clips/clip-1.mp4": b"x", "note.txt": b"x"})
    find = under(str(root))
    assert find("val/uid-1") == str(root / "v2/full_scale/uid-1.mp4")
    assert find("val/clip-1") == str(root / "v2/clips/clip-1.mp4")
    assert find("val/uid") is None


def test_keys_that_are_nowhere_and_damaged_tars_are_told(tmp_path: Path) -> None:
    root = written(tmp_path, shards())
    assert media.find(str(root), "train/00000/00") is None and media.find(str(root), "train/00000/002") is None
    assert media.find(str(root / "nowhere"), "x") is None
    written(tmp_path / "other", {"broken.tar": b"no tar at all" * 100})
    originals = Originals(under(str(tmp_path / "other")))
    assert originals.frames("broken/1", [0], (0, 0, 1, 1)) is None
    assert originals.note is not None and len(originals.note.splitlines()) == 1


def test_a_member_that_changed_is_not_shown_as_another(tmp_path: Path) -> None:
    root = written(tmp_path, shards())
    uri = media.find(str(root), "train/00000/001")
    assert uri is not None
    written(root, {"train/00000.tar": tar_of({"other.png": png(9), "001.png": png(8)})})
    with pytest.raises(UserError):
        media.frames(uri, [0])
