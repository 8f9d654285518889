"""Clips -> a file to look at: contact sheet (.png), moving pictures (.gif, .mp4) or one page (.html).

Source frames stand left of, or above, what the tokens decode to. MP4 is written where toto-video[tokenize] is
installed; elsewhere a GIF takes its place, and a line says so.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from toto.errors import UsageError
from toto.files import write_whole
from toto.plain import counted
from toto.shards.dataset import Dataset
from toto.shards.look import page
from toto.shards.look.clips import Clip, Painter, Pick, first, thinned
from toto.shards.look.pictures import Band, Strip, fit, gif_bytes, png_bytes, sheet

SIDE = 128  # pixels of the longer side of a shown frame, about
SHEET_FRAMES, PAGE_FRAMES, MOVING_FRAMES = 8, 32, 256  # most frames of a clip: on a sheet, a page, in GIF or MP4
FORMATS = (".png", ".gif", ".mp4", ".html")
NO_MP4 = "MP4 needs pip install 'toto-video[tokenize]'; this is a GIF"


@dataclass(frozen=True)
class View:
    """What is to be shown, and what of it ends up in a file."""

    dataset: Dataset
    painter: Painter
    picks: Sequence[Pick]


def write_view(view: View, out: Path) -> tuple[Path, list[str]]:
    """Writes the file that the suffix of `out` asks for, whole or not at all; its path and lines of remarks."""
    suffix = format_of(out)
    remarks: list[str] = []
    if suffix == ".mp4" and (write_video := _video_writer()) is not None:
        frames, fps = _moving(view, remarks)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_video(frames, out, fps)
        return out, remarks
    if suffix == ".mp4":
        out, suffix = out.with_suffix(".gif"), ".gif"
        remarks.append(NO_MP4)
    write_whole(out, _file_bytes(view, suffix, remarks))
    return out, remarks


def format_of(out: Path) -> str:
    """The suffix of a file that can be written; UsageError for any other."""
    suffix = out.suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(f"--out {out}: known formats are {', '.join(FORMATS)}")
    return suffix


def shot(clip: Clip, side: int = SIDE) -> tuple[str, tuple[str, ...]]:
    """A clip as an HTML picture (source left, decoded right) and the names of its halves.

    One picture holds both halves, so that they move together.
    """
    frames = [np.concatenate(cells, axis=1) for cells in _cells(clip, side)]
    sides = (clip.label,) if clip.beside is None else (clip.beside_label, clip.label)
    description = f"{', '.join(sides)}: {clip.pick.caption}"
    still = png_bytes(frames[0])
    if len(frames) == 1:
        return page.picture(still, description), sides
    return page.moving_picture(gif_bytes(frames, clip.pick.fps), still, description), sides


def strips(clip: Clip, side: int = SIDE) -> list[Strip]:
    """A clip's frames in a row, the source's above."""
    by_place = list(zip(*_cells(clip, side), strict=True))
    labels = [clip.label] if clip.beside is None else [clip.beside_label, clip.label]
    return [Strip(label, pictures) for label, pictures in zip(labels, by_place, strict=True)]


def _file_bytes(view: View, suffix: str, remarks: list[str]) -> bytes:
    if suffix == ".html":
        return _page(view, remarks).encode()
    if suffix == ".gif":
        return gif_bytes(*_moving(view, remarks))
    return png_bytes(sheet([_band(clip) for clip in _clips(view, thinned, SHEET_FRAMES)]))


def _clips(view: View, cut: Callable[[Pick, int], Pick], most: int) -> Iterable[Clip]:
    return [view.painter.clip(cut(pick, most)) for pick in view.picks]


def _band(clip: Clip) -> Band:
    return Band(clip.pick.caption, strips(clip))


def _cells(clip: Clip, side: int) -> list[list[np.ndarray]]:
    """For each frame its pictures of one size: [beside, decoded] or [decoded]."""
    height, width = _cell_size(clip.decoded.shape[1:3], side)
    columns = [clip.decoded] if clip.beside is None else [clip.beside, clip.decoded]
    return [[fit(picture, height, width) for picture in pictures] for pictures in zip(*columns, strict=True)]


def _cell_size(shape: tuple[int, int], side: int) -> tuple[int, int]:
    """Height and width: the largest whole multiple whose longer side is at most `side`, else shrunk to it."""
    longer = max(shape)
    if longer <= side:
        return shape[0] * (side // longer), shape[1] * (side // longer)
    return max(1, shape[0] * side // longer), max(1, shape[1] * side // longer)


def _moving(view: View, remarks: list[str]) -> tuple[list[np.ndarray], float]:
    """Every clip in one moving picture; those that are over early hold their last frame."""
    _remark_length(view, MOVING_FRAMES, remarks)
    clips = list(_clips(view, first, MOVING_FRAMES))
    columns = [(clip.pick.caption, _cells(clip, SIDE)) for clip in clips]
    length = max(len(cells) for _, cells in columns)
    frames = [sheet([_moment(caption, cells, t) for caption, cells in columns]) for t in range(length)]
    longest = max(clips, key=lambda clip: len(clip.decoded))
    return frames, longest.pick.fps


def _moment(caption: str, cells: list[list[np.ndarray]], t: int) -> Band:
    """One clip at shown frame t."""
    t = min(t, len(cells) - 1)
    return Band(caption, [Strip(f"{t + 1} of {len(cells)}", cells[t])])


def _remark_length(view: View, most: int, remarks: list[str]) -> None:
    longest = max(len(pick.positions) for pick in view.picks)
    if longest > most:
        remarks.append(f"the first {most} of {longest} frames; --window shows others")


def _video_writer() -> Callable[[Iterable[np.ndarray], Path, float], Any] | None:
    try:
        return import_module("toto.media").write_video
    except ImportError:
        return None


def _page(view: View, remarks: list[str]) -> str:
    _remark_length(view, PAGE_FRAMES, remarks)
    dataset = view.dataset
    cards = [page.figure(*shot(clip), page.name(clip.pick.caption)) for clip in _clips(view, first, PAGE_FRAMES)]
    totals = dataset.info["totals"]
    lead = (
        f"{counted(totals['rows'], 'row')}, {totals['tokens']:,} ids by tokenizer "
        f"<code>{page.text(dataset.tokenizer['name'])}</code>. Dataset id <code>{dataset.dataset_id}</code>."
    )
    heading = f'<p class="over">toto-shards view</p><h1>{page.text(dataset.info["name"])}</h1>'
    body = [heading, f'<p class="lead">{lead}</p>', f'<div class="cards wide">{"".join(cards)}</div>']
    return page.document(f"{dataset.info['name']}: tokens as pictures", body)
