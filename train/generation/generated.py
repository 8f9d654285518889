"""The folder that `toto-train generate` leaves: codes, what made them, and pictures.

tokens/          the clips as a dataset (dataset.py)
tokens.npz       codes [n, frames, h, w], true_codes where they are known, prompt_frames
generated.json   settings, checkpoint, dataset ids, sources, accuracy and loss of each frame
generated.gif    clips that move, the true one left where it is known; generated.mp4 when asked for
generated.png    the same as strips      curves.png   accuracy and loss, frame by frame
"""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from toto.errors import UserError
from toto.files import write_whole
from toto.shards.look.clips import decoder
from toto.shards.look.pictures import NO_PILLOW, Band, Strip, fit, gif_bytes, has_pillow, png_bytes, sheet
from toto.shards.rewrite.foreign import facts_of
from toto.shards.statistics.plots import NO_MATPLOTLIB, has_matplotlib
from toto.train.generation.dataset import TRUE, Clips, write_dataset
from toto.train.generation.generate import Made
from toto.train.generation.prompts import Prompts
from toto.train.load import Loaded

NO_MP4 = "no MP4: it needs pip install 'toto-video[tokenize]'; the GIF shows the same"
MOST_CLIPS = 8  # in pictures
STRIP_FRAMES, MOVING_FRAMES = 8, 256  # most frames of a clip: in the PNG, in the GIF
SIDE = 128  # pixels of a frame, about
PICTURES = ("curves.png", "generated.gif", "generated.png", "generated.mp4")


def remove_pictures(folder: Path) -> None:
    """Those of an earlier generation: not every one makes them all, and none may stand beside other clips."""
    if (folder / "generated.json").is_file():
        for name in PICTURES:
            (folder / name).unlink(missing_ok=True)


def write_tokens(folder: Path, codes: np.ndarray, known: Prompts, dtype: np.dtype) -> Path:
    """`tokens.npz`, whole or not at all."""
    arrays: dict[str, Any] = {"codes": codes.astype(dtype), "prompt_frames": np.int64(known.prompt)}
    if known.has_truth:
        arrays["true_codes"] = known.codes.astype(dtype)
    sink = io.BytesIO()
    np.savez_compressed(sink, **arrays)
    write_whole(folder / "tokens.npz", sink.getvalue())
    return folder / "tokens.npz"


def write_shards(
    folder: Path, made: Mapping[str, Made], known: Prompts, value: dict[str, Any], loaded: Loaded
) -> tuple[Path, str]:
    """`tokens/`, a dataset of the clips of every regime and of the true ones; the folder, and the dataset's id."""
    codes = {regime: clips.codes for regime, clips in made.items()}
    if known.has_truth:
        codes[TRUE] = known.codes
    stride = loaded.stride or 1
    told = {"kind": value["kind"], "grid": list(loaded.grid), "stride": stride, "name": "generated"}
    if known.clips and value["kind"] == "video":
        told["fps"] = known.fps * stride
    facts = facts_of(told, loaded.tokenizer, str(folder))
    kept = ("frames_prompt", "temperature", "top_k", "top_p", "greedy", "seed", "precision", "prompts")
    origins = [{"dataset_id": name} for name in known.dataset_ids]
    derived = {"from": origins, "checkpoint": loaded.id, "step": loaded.step, **{key: value[key] for key in kept}}
    return folder / "tokens", write_dataset(
        folder / "tokens", Clips(codes, value["kind"], facts, derived), loaded.place
    )


def write_facts(folder: Path, value: dict[str, Any]) -> Path:
    """`generated.json`."""
    write_whole(folder / "generated.json", (json.dumps(value, indent=1) + "\n").encode())
    return folder / "generated.json"


def write_curves(
    folder: Path, regimes: dict[str, dict[str, Any]], context_frames: int
) -> tuple[list[Path], str | None]:
    """`curves.png`, where the truth is known; what was written, and one line where it cannot be drawn here."""
    if any(found["accuracy_by_frame"] is None for found in regimes.values()):
        return [], None
    if not has_matplotlib():
        return [], NO_MATPLOTLIB
    from toto.train.generation.curves import picture

    write_whole(folder / "curves.png", picture(regimes, context_frames))
    return [folder / "curves.png"], None


def write_pictures(
    folder: Path, codes: np.ndarray, known: Prompts, tokenizer: dict[str, Any], fps: float, mp4: bool = False
) -> tuple[list[Path], str | None]:
    """`generated.gif` and `.png`, and `.mp4` too; what was written, and one line where pictures cannot be made here."""
    if not has_pillow():
        return [], NO_PILLOW
    try:
        decode = decoder(tokenizer)
    except UserError as error:
        return [], f"no pictures: {error}"
    columns = {"true": known.codes} if known.has_truth else {}
    columns |= {"made": codes}
    clips = range(min(MOST_CLIPS, len(codes)))
    frames = {name: [_decoded(decode, of[i, :MOVING_FRAMES]) for i in clips] for name, of in columns.items()}
    captions = [_caption(i, known) for i in clips]
    moving, still = folder / "generated.gif", folder / "generated.png"
    moments = _moments(frames, captions)
    write_whole(moving, gif_bytes(moments, fps))
    write_whole(still, png_bytes(sheet(_bands(frames, captions, known.prompt))))
    if not mp4:
        return [moving, still], None
    try:
        write_video = import_module("toto.media").write_video
    except ImportError:
        return [moving, still], NO_MP4
    write_video(moments, folder / "generated.mp4", fps)
    return [moving, still, folder / "generated.mp4"], None


def _decoded(decode: Callable[[np.ndarray], np.ndarray], codes: np.ndarray) -> list[np.ndarray]:
    """Frames uint8 [H, W, 3] of codes [n, h, w], enlarged by whole factors to about SIDE."""
    pictures = decode(codes)
    factor = max(1, SIDE // max(pictures.shape[1:3]))
    return [fit(picture, picture.shape[0] * factor, picture.shape[1] * factor) for picture in pictures]


def _caption(i: int, known: Prompts) -> str:
    given = f"{known.prompt} frame{'' if known.prompt == 1 else 's'} given" if known.prompt else "nothing given"
    source = f" · {known.named[i][0]}" if known.clips else ""
    return f"{i}{source} · {given}"


def _moments(frames: dict[str, list[list[np.ndarray]]], captions: Sequence[str]) -> list[np.ndarray]:
    """One sheet for each moment, the columns side by side."""
    length = len(next(iter(frames.values()))[0])
    head = " | ".join(frames)
    return [
        sheet([
            Band(caption, [Strip(f"{t + 1} of {length}", [clips[i][t] for clips in frames.values()])])
            for i, caption in enumerate(f"{head} · {caption}" for caption in captions)
        ])
        for t in range(length)
    ]  # fmt: skip


def _bands(frames: dict[str, list[list[np.ndarray]]], captions: Sequence[str], prompt: int) -> list[Band]:
    """Of each clip a few frames: of the prompt the last, then evenly spread ones."""
    length = len(next(iter(frames.values()))[0])
    first = max(0, prompt - 1)
    picks = [int(t) for t in np.linspace(first, length - 1, min(STRIP_FRAMES, length - first)).round()]
    numbers = ", ".join(str(t + 1) for t in picks)
    return [
        Band(
            f"{caption} · frames {numbers}",
            [Strip(name, [clips[i][t] for t in picks]) for name, clips in frames.items()],
        )
        for i, caption in enumerate(captions)
    ]
