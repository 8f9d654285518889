"""The annotation files of Ego4D's short-term anticipation, read strictly, and the tables made of them.

    info.video_metadata{uid: fps, frame_width, frame_height}, noun_categories, verb_categories [{id, name}],
    annotations [{uid, video_id or video_uid, frame, clip_uid, clip_frame, objects [{box, noun, verb, time}]}]

Boxes stay as they are given, those without area too: the official scorer counts them.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from toto.errors import UserError

SPLITS = ("train", "val", "test")
FRAMES = 16  # up to the moment, one after the other: 30 frames/s in every canonical video
_UID = re.compile(r"[A-Za-z0-9_-]{1,64}")  # of a video or clip: it becomes part of a file's name
_MOST_FRAMES = 2**31 - 1

MOMENTS = pa.schema(
    [
        pa.field("uid", pa.string()),
        pa.field("source", pa.string()),
        pa.field("split", pa.string()),
        pa.field("frame", pa.int32()),  # of the whole video
        pa.field("clip_uid", pa.string()),
        pa.field("clip_frame", pa.int32()),
        pa.field("fps", pa.float64()),
        pa.field(
            "positions", pa.list_(pa.int32())
        ),  # decoded frames of the source: 16, the first repeated at its start
        pa.field("frame_width", pa.int32()),  # of the canonical video, in which boxes are given
        pa.field("frame_height", pa.int32()),
    ]
)
OBJECTS = pa.schema(
    [
        pa.field("source", pa.string()),
        pa.field("uid", pa.string()),  # of the moment
        pa.field("box", pa.list_(pa.float32(), 4)),  # x1, y1, x2, y2 in pixels of the canonical video
        pa.field("noun", pa.int32()),
        pa.field("verb", pa.int32()),
        pa.field("ttc", pa.float32()),  # seconds to contact
    ]
)
CATEGORIES = pa.schema([pa.field("id", pa.int32()), pa.field("name", pa.string())])


@dataclass(frozen=True)
class Object:
    """Something that will be touched."""

    box: tuple[float, float, float, float]
    noun: int
    verb: int
    ttc: float


@dataclass(frozen=True)
class Moment:
    """One annotation."""

    uid: str
    split: str
    video: str  # the uid of the video, or of the clip, that its frames are counted in
    frame: int
    clip_uid: str | None
    clip_frame: int | None
    last: int  # the moment's frame in `video`
    fps: float | None
    width: int | None
    height: int | None
    objects: tuple[Object, ...]

    @property
    def source(self) -> str:
        """The key of its source."""
        return f"{self.split}/{self.video}"

    @property
    def positions(self) -> list[int]:
        """16 decoded frames that end at the moment; before the video's start its first frame repeats."""
        return [max(0, self.last - back) for back in range(FRAMES - 1, -1, -1)]


@dataclass(frozen=True)
class Annotations:
    """Moments, and the names of categories by id."""

    moments: list[Moment]
    nouns: dict[int, str]
    verbs: dict[int, str]


def parse(content: Any, split: str, in_clips: bool, where: str) -> Annotations:
    """A file's content; `in_clips`: frames count in the clip. UserError that names the annotation at fault."""
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
        raise UserError(f"{where}: no annotations of short-term anticipation in it; take an fho_sta_*.json")
    metadata = _mapping(_mapping(content, "info", where), "video_metadata", where)
    moments, seen = [], set[str]()
    for number, item in enumerate(content["annotations"]):
        try:
            moment = _moment(item, split, in_clips, metadata)
            if moment.uid in seen:
                raise ValueError(f"a second one with uid {moment.uid!r}")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problem = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{where}: annotation {number}: {problem}; get the file again") from None
        seen.add(moment.uid)
        moments.append(moment)
    return Annotations(moments, _categories(content, "noun", where), _categories(content, "verb", where))


def annotation_tables(annotations: Annotations) -> dict[str, pa.Table]:
    """moments, objects, nouns, verbs."""
    moments = sorted(annotations.moments, key=lambda moment: (SPLITS.index(moment.split), moment.source, moment.uid))
    names = ("uid", "source", "split", "frame", "clip_uid", "clip_frame", "fps", "positions")
    columns = {name: [getattr(moment, name) for moment in moments] for name in names}
    columns |= {"frame_width": [one.width for one in moments], "frame_height": [one.height for one in moments]}
    pairs = [(moment, thing) for moment in moments for thing in moment.objects]
    objects: dict[str, list[Any]] = {
        "source": [moment.source for moment, _ in pairs],
        "uid": [moment.uid for moment, _ in pairs],
        **{name: [getattr(thing, name) for _, thing in pairs] for name in ("box", "noun", "verb", "ttc")},
    }
    return {
        "moments": pa.table(columns, schema=MOMENTS),
        "objects": pa.table(objects, schema=OBJECTS),
        "nouns": _category_table(annotations.nouns),
        "verbs": _category_table(annotations.verbs),
    }


def _moment(item: Mapping[str, Any], split: str, in_clips: bool, metadata: Mapping[str, Any]) -> Moment:
    uid = _text(item["video_uid"] if "video_uid" in item else item["video_id"], "video_uid")
    facts = metadata.get(uid) or {}
    frame = _whole(item["frame"], "frame")
    clip_uid, clip_frame = item.get("clip_uid"), item.get("clip_frame")
    video, last = uid, frame
    if in_clips:
        video, last = _text(item["clip_uid"], "clip_uid"), _whole(item["clip_frame"], "clip_frame")
    return Moment(
        uid=_string(item["uid"], "uid"),
        split=split,
        video=video,
        frame=frame,
        clip_uid=clip_uid if isinstance(clip_uid, str) else None,
        clip_frame=None if clip_frame is None else _whole(clip_frame, "clip_frame"),
        last=last,
        fps=_number(facts["fps"], "fps") if "fps" in facts else None,
        width=_whole(facts["frame_width"], "frame_width") if "frame_width" in facts else None,
        height=_whole(facts["frame_height"], "frame_height") if "frame_height" in facts else None,
        objects=tuple(_object(thing) for thing in item.get("objects") or ()),
    )


def _object(thing: Mapping[str, Any]) -> Object:
    x1, y1, x2, y2 = (_number(value, "box") for value in thing["box"])
    noun, verb = (_whole(thing[name], name) for name in ("noun_category_id", "verb_category_id"))
    return Object((x1, y1, x2, y2), noun, verb, _number(thing["time_to_contact"], "time_to_contact"))


def _mapping(content: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    found = content.get(name) or {}
    if not isinstance(found, dict):
        raise UserError(f"{where}: {name} is no object; get the file again")
    return found


def _categories(content: Mapping[str, Any], kind: str, where: str) -> dict[int, str]:
    try:
        listed = content.get(f"{kind}_categories") or []
        return {_whole(one["id"], "id"): _string(one["name"], "name") for one in listed}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}: {kind}_categories: {error}; get the file again") from None


def _category_table(names: Mapping[int, str]) -> pa.Table:
    return pa.table({"id": sorted(names), "name": [names[number] for number in sorted(names)]}, schema=CATEGORIES)


def _whole(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST_FRAMES:
        raise ValueError(f"{name} {value!r} is no whole number from 0 to {_MOST_FRAMES:,}")
    return value


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} {value!r} is no number")
    return float(value)


def _string(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} {value!r} is no text")
    value.encode()  # JSON may hold half a surrogate pair, which nothing can store
    return value


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not _UID.fullmatch(value):
        raise ValueError(f"{name} {value!r} is no uid of a video or clip")
    return value
