"""The layout of Ego4D's short-term anticipation: what will the hand touch next, where, how, and when?

    fho_sta_{train,val}.json     info, annotations, noun_categories, verb_categories
    <video uid>.mp4              VP9 at 30 fps, as the canonical videos of Ego4D

Each annotation stands at a frame (from 0) before a contact: box [x1, y1, x2, y2] in pixels, noun (the shape),
verb and time_to_contact in seconds. It carries both `video_id` and `video_uid`: official readers disagree.
"""

import json
import uuid
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from toto.tokenize.demo.encode import write_video
from toto.tokenize.demo.reach import VERBS, Reach, sample_reach, view
from toto.tokenize.demo.shapes import SHAPES
from toto.tokenize.demo.spec import Job, WorldSpec, generator, validation

FPS = 30
PER_VIDEO = 3  # annotated frames of one event
_SOONEST = 4  # frames from the last annotation to the contact, at least, unless the hand comes in later


@dataclass(frozen=True)
class Footage:
    """One video and its annotated frames."""

    uid: str
    clip_uid: str
    number: int
    reach: Reach
    marked: tuple[int, ...]


def annotate(root: Path, spec: WorldSpec) -> None:
    """Writes the annotations of both splits."""
    root.mkdir(parents=True)
    footage, held_out = plan(spec), validation(spec.sta_videos)
    for split, part in (("train", footage[:-held_out]), ("val", footage[-held_out:])):
        content = describe(part, split, spec.sta_size)
        (root / f"fho_sta_{split}.json").write_text(json.dumps(content, indent=1) + "\n")


def jobs(root: Path, spec: WorldSpec) -> list[Job]:
    """One job per video."""
    return [partial(_write_video, root, spec, one) for one in plan(spec)]


def plan(spec: WorldSpec) -> list[Footage]:
    """All videos, training ones first."""
    return [_footage(spec, number) for number in range(spec.sta_videos)]


def describe(footage: list[Footage], split: str, size: tuple[int, int]) -> dict[str, Any]:
    """An annotation file's content."""
    metadata = {"frame_width": size[0], "frame_height": size[1], "fps": FPS}
    return {
        "info": {
            "description": "toto demo world: short-term anticipation",
            "version": "1.0",
            "split": split,
            "include_annotations": True,
            "video_metadata": {one.uid: metadata for one in footage},
            "year": 2025,
            "date_created": "2025/01/01",
        },
        "annotations": [_annotation(one, frame) for one in footage for frame in one.marked],
        "noun_categories": [{"id": number, "name": shape} for number, shape in enumerate(SHAPES)],
        "verb_categories": [{"id": number, "name": verb} for number, verb in enumerate(VERBS)],
    }


def _annotation(footage: Footage, frame: int) -> dict[str, Any]:
    reach = footage.reach
    return {
        "uid": f"{footage.uid}_{frame:07d}",
        "video_id": footage.uid,
        "video_uid": footage.uid,
        "frame": frame,
        "clip_id": footage.number,
        "clip_uid": footage.clip_uid,
        "clip_frame": frame,
        "objects": [
            {
                "box": list(reach.box(reach.target, frame)),
                "verb_category_id": reach.verb,
                "noun_category_id": list(SHAPES).index(reach.shapes[reach.target]),
                "time_to_contact": round((reach.contact - frame) / FPS, 4),
            }
        ],
    }


def _footage(spec: WorldSpec, number: int) -> Footage:
    rng = generator(spec.seed, "ego4d_sta", number, "event")
    reach = sample_reach(rng, spec.sta_size, spec.sta_frames)
    uid, clip_uid = (str(uuid.UUID(bytes=rng.bytes(16), version=4)) for _ in range(2))
    first = _first_seen(reach)
    last = max(first, reach.contact - _SOONEST - int(rng.integers(0, 3)))
    frames = np.linspace(first, last, PER_VIDEO + 1).astype(int)[1:]
    return Footage(uid, clip_uid, number, reach, tuple(sorted(set(frames.tolist()))))


def _first_seen(reach: Reach) -> int:
    """The first frame with the hand's tip inside the picture."""
    width, height = reach.size
    tips = (reach.tip(frame) for frame in range(reach.contact))
    return next(frame for frame, (x, y) in enumerate(tips) if 0 <= x < width and 0 <= y < height)


def _write_video(root: Path, spec: WorldSpec, footage: Footage) -> None:
    seen = view(generator(spec.seed, "ego4d_sta", footage.number, "picture"), footage.reach)
    pictures = (seen.frame(number) for number in range(spec.sta_frames))
    write_video(root / f"{footage.uid}.mp4", pictures, FPS, "vp9", spec.sta_size)
