"""What is known of tokens that somebody else made: a JSON file beside them, completed on the command line.

metadata.json + --tokenizer, --vocab-size, --patch, … -> Facts -> the `tokenizer` object and the settings
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toto.errors import UsageError, UserError
from toto.shards.hashing import json_sha256
from toto.shards.ids import ID_LAYOUT
from toto.shards.rewrite.foreign_files import Files
from toto.shards.schema import HIGHEST_RATE
from toto.shards.split_names import PLAIN, is_plain
from toto.tokenizers import BUILT_IN

METADATA = "metadata.json"
MOST_CELLS = 65_536  # of a frame: a row of one frame stays small
METADATA_BYTES = 256 << 20  # labels of a million files take 30 MB
NUMBERS = {"vocab_size": (1, (1 << 31) - 8), "patch": (1, 4096), "stride": (1, 65_535), "views": (1, 255)}
KNOWN: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "kind": str,
    "fps": (int, float),
    "grid": list,
    "flips": bool,
    "codes": str,
    "labels": (str, dict),
    "classes": list,
    "splits": dict,
    **dict.fromkeys(NUMBERS, int),
}


@dataclass(frozen=True)
class Facts:
    """What decides how codes become rows."""

    tokenizer: dict[str, Any]
    name: str
    kind: str = "video"  # of .npy files: video, or image
    grid: tuple[int, int] | None = None  # rows and columns of a frame's codes; None: as each array has them
    fps: float | None = None  # of the source, not of the stored frames
    stride: int = 1  # source frames from one stored frame to the next
    views: int = 1  # pictures of each image: crops, with `flips` the second half of them mirrored
    flips: bool = False
    codes: str = ""  # folder of the .npy files, below the one with metadata.json
    labels: str | Mapping[str, int] = field(default_factory=dict)  # key -> number; or a folder of .npy files
    classes: tuple[str, ...] = ()
    splits: Mapping[str, str] = field(default_factory=dict)  # first folder of a key -> split

    @property
    def vocab_size(self) -> int:
        """Codes are below it."""
        return int(self.tokenizer["vocab_size"])

    def settings(self, layout: str) -> dict[str, Any]:
        """As a tokenized dataset has them; what nobody told is null."""
        side = None if self.grid is None else min(self.grid) * self.tokenizer["patch"]
        return {
            **dict.fromkeys(("filter", "fps", "held_out", "keep_pixels", "seed", "uniform")),
            **{"crop": "full" if self.grid is None else "center", "labels": "none", "layout": layout},
            **{"min_frames": 1, "resolution": side, "run_frames": "all", "stride": self.stride, "views": self.views},
            **({"flips": True} if self.flips else {}),
        }


def read_metadata(files: Files) -> dict[str, Any]:
    """The JSON object in a folder's metadata.json, {} where it has none; UserError when it is not one."""
    data, where = files.read(METADATA, METADATA_BYTES), f"{files.uri}/{METADATA}"
    if data is None:
        return {}
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error})") from None
    if not isinstance(value, dict):
        raise UserError(f"{where}: a JSON object is expected, with vocab_size, patch, grid …")
    return value


def facts_of(values: Mapping[str, Any], tokenizer: dict[str, Any], where: str) -> Facts:
    """Checked facts; UsageError names the keys that are missing, or the one that is wrong."""
    for key, kind in KNOWN.items():
        if key in values and (not isinstance(values[key], kind) or isinstance(values[key], bool) != (kind is bool)):
            raise UsageError(
                f"{where}: {key} = {str(values[key])[:60]!r} is not of its kind; docs/shards.md has all keys"
            )
    values = {**values, **{key: tokenizer[key] for key in ("vocab_size", "patch") if key in tokenizer}}
    for key, (least, most) in NUMBERS.items():
        if key in values and not least <= values[key] <= most:
            raise UsageError(f"{where}: {key} = {str(values[key])[:40]}; {least} to {most} are possible")
    if missing := [key for key in ("vocab_size", "patch") if key not in values]:
        options = " and ".join(f"--{key.replace('_', '-')}" for key in missing)
        raise UsageError(f"{where} does not tell {' and '.join(missing)}; complete it, or give {options}")
    if values.get("kind", "video") not in ("video", "image"):
        raise UsageError(f"{where}: kind is {values['kind']!r}; video or image")
    fps = values.get("fps")
    if fps is not None and not 0.001 <= fps <= HIGHEST_RATE:
        raise UsageError(f"{where}: fps = {str(fps)[:40]}; 0.001 to {HIGHEST_RATE:,} are possible")
    spec = {**tokenizer, "vocab_size": values["vocab_size"], "patch": values["patch"]}
    return Facts(
        tokenizer=with_id(spec),
        name=str(values.get("name") or spec["name"]),
        grid=_grid(values.get("grid"), where),
        codes=_below(values.get("codes", ""), "codes", where),
        labels=_labels(values.get("labels", {}), where),
        classes=tuple(map(str, values.get("classes", ()))),
        splits={str(key): split_name(value, f"{where}: splits") for key, value in values.get("splits", {}).items()},
        **{key: values[key] for key in ("kind", "fps", "stride", "views", "flips") if key in values},
    )


def tokenizer_of(spec: str) -> dict[str, Any]:
    """What --tokenizer says: a name, or a JSON file with a `tokenizer` object; UsageError."""
    if not spec.strip():
        raise UsageError("--tokenizer is empty; give its name, or a .json file with a `tokenizer` object")
    if not spec.endswith(".json"):
        if spec in BUILT_IN:
            raise UsageError(
                f"--tokenizer {spec}: toto has a tokenizer of this name; give the whole `tokenizer` object of a "
                "dataset.json that it made, as a .json file, or another name"
            )
        return {"name": spec}
    try:
        value = json.loads(Path(spec).read_bytes()[:1_000_000])
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"--tokenizer {spec}: cannot be read ({error})") from None
    value = value.get("tokenizer", value) if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise UsageError(f"--tokenizer {spec}: a JSON object with a name is expected")
    if value["name"] in BUILT_IN and "id" not in value:
        raise UsageError(f"--tokenizer {spec}: {value['name']} is toto's own, and its object has an id; this has none")
    return value


def with_id(spec: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer's object with its id: the given one, else the first 16 hex of the sha256 over what is told of it."""
    if "id" in spec:
        return spec
    return {**spec, "id": json_sha256({**spec, "id_layout": ID_LAYOUT, "preprocessing": 1})[:16]}


def split_name(value: Any, where: str) -> str:
    """A split's name, of a stranger or of the command line; UsageError where it is none."""
    if not isinstance(value, str) or not is_plain(value):
        raise UsageError(f"{where}: {str(value)[:60]!r} is no name of a split ({PLAIN})")
    return value


def _grid(value: Any, where: str) -> tuple[int, int] | None:
    if value is None:
        return None
    if len(value) != 2 or not all(type(n) is int and 1 <= n <= 65_535 for n in value):
        raise UsageError(f"{where}: grid = {str(value)[:60]}; rows and columns of a frame's codes, such as [16, 16]")
    if value[0] * value[1] > MOST_CELLS:
        raise UsageError(f"{where}: grid = {value}; a frame has at most {MOST_CELLS:,} codes")
    return int(value[0]), int(value[1])


def _labels(value: str | dict[str, Any], where: str) -> str | dict[str, int]:
    if isinstance(value, str):
        return _below(value, "labels", where)
    wrong = next((key for key, n in value.items() if type(n) is not int or abs(n) >= 1 << 31), None)
    if wrong is not None:
        raise UsageError(f"{where}: label of {wrong!r} is not a class number")
    return value


def _below(value: str, key: str, where: str) -> str:
    """A folder that a stranger's file names must lie below the one that it lies in."""
    if value.startswith("/") or ".." in Path(value).parts or "\0" in value:
        raise UsageError(f"{where}: {key} = {value!r} leads out of the folder")
    return value
