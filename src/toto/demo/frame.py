"""One frame three times, for the report: as it was, as token ids, and as what the ids decode to."""

import numpy as np

from toto.plain import counted
from toto.shards.dataset import Dataset
from toto.shards.ids import CODE_OFFSET
from toto.shards.look import page
from toto.shards.look.clips import Clip
from toto.shards.look.pictures import fit, png_bytes

SIDE = 288  # pixels of the pictures
CELLS = 8  # ids of a side that can still be read
PAPER_CELLS = 256  # 16 × 16 tokens a frame (§3.4)


def one_frame(dataset: Dataset, clip: Clip) -> str:
    """The section about the middle frame of a clip."""
    middle = len(clip.decoded) // 2
    decoded = clip.decoded[middle]
    codes = clip.pick.row.codes[clip.pick.positions[middle]]
    height, width = codes.shape
    shots = [] if clip.beside is None else [_shot(clip.beside[middle], clip.beside_label)]
    shots += [_ids(codes + CODE_OFFSET, decoded), _shot(decoded, clip.label)]
    spec = dataset.tokenizer
    lead = (
        f"A frame is cut into {height} × {width} patches, and each patch becomes the number of the nearest of "
        f"{spec['vocab_size']:,} codes: {decoded.size:,} bytes of pixels become {counted(codes.size, 'token')}. "
        f"The tokenizer here, <code>{page.text(spec['name'])}</code>, needs no weights and no download, at the price "
        "of coarse pictures."
    )
    if codes.size < PAPER_CELLS:
        lead += (
            " Frames are small on purpose, so that a tiny model can learn them in minutes; the paper's have 16 × 16."
        )
    return page.section("One frame", lead, f'<div class="trio">{"".join(shots)}</div>')


def variety(clip: Clip) -> int:
    """How many different codes the middle frame of a clip has: pictures with more show more."""
    return len(np.unique(clip.pick.row.codes[clip.pick.positions[len(clip.decoded) // 2]]))


def _shot(picture: np.ndarray, label: str) -> str:
    height, width = picture.shape[:2]
    factor = SIDE / max(height, width)
    shown = fit(picture, round(height * factor), round(width * factor))
    return page.figure(page.picture(png_bytes(shown), label), (label,), "")


def _ids(ids: np.ndarray, decoded: np.ndarray) -> str:
    """The grid of ids (its middle, if there are too many to read), each on its patch's mean colour."""
    patch = decoded.shape[0] // ids.shape[0]
    means = decoded.reshape(ids.shape[0], patch, ids.shape[1], patch, 3).mean((1, 3)).round().astype(int)
    rows, columns = (_middle(count) for count in ids.shape)
    part, colours = ids[rows, columns], means[rows, columns]
    spans = (_cell(int(i), colour) for i, colour in zip(part.reshape(-1), colours.reshape(-1, 3), strict=True))
    whole = part.shape == ids.shape
    label = "token ids" if whole else f"the middle {part.shape[0]} × {part.shape[1]} token ids"
    grid = f'<div class="ids" style="grid-template-columns:repeat({part.shape[1]},1fr)">{"".join(spans)}</div>'
    return page.figure(grid, (label,), "")


def _middle(count: int) -> slice:
    start = max(0, (count - CELLS) // 2)
    return slice(start, start + min(count, CELLS))


def _cell(token: int, colour: np.ndarray) -> str:
    red, green, blue = (int(value) for value in colour)
    ink = "#000" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#fff"
    return f'<span style="background:rgb({red},{green},{blue});color:{ink}">{token}</span>'
