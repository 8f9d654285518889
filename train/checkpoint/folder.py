"""Checkpoints on disk: their names, what checkpoint.json says, which are whole, which of them stay."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from toto.errors import UserError
from toto.shards.hashing import file_sha256, json_sha256
from toto.shards.untrusted.shape import SIZE, misshapen

FORMAT = 1
FACTS = "checkpoint.json"
STATE = "state"
_NAME = re.compile(r"step-([0-9]{9,18})")
_FILE = re.compile(r"\.?\w[\w.-]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def name_of(step: int) -> str:
    """The folder of the checkpoint after `step` steps."""
    return f"step-{step:09d}"


def step_of(name: str) -> int | None:
    """The step of a checkpoint's folder; None for any other name."""
    named = _NAME.fullmatch(name)
    return int(named.group(1)) if named and name_of(int(named.group(1))) == name else None


def found(run: Path) -> list[Path]:
    """The finished checkpoints of a run, oldest first."""
    folders = [path for path in run.glob("step-*") if step_of(path.name) is not None and (path / FACTS).is_file()]
    return sorted(folders, key=lambda path: step_of(path.name) or 0)


def resolve(path: Path) -> Path:
    """A checkpoint's folder; of a run's folder its newest checkpoint. UserError when there is none."""
    if (path / FACTS).is_file():
        return path
    inside = found(path)
    if not inside:
        raise UserError(f"{path} is no checkpoint and no run with one: there is no {FACTS} in it or in a step-* below")
    return inside[-1]


def retained(steps: list[int], newest: int, every: int) -> set[int]:
    """Which of the checkpoints stay: the newest ones, and those at multiples of `every` steps (0: of none)."""
    return {step for step in steps if step in sorted(steps)[-newest:] or (every and step % every == 0)}


def retain(run: Path, newest: int, every: int) -> None:
    """Removes old checkpoints but for the newest ones and those at multiples of `every` steps (0: of none)."""
    folders = {step_of(folder.name) or 0: folder for folder in found(run)}
    stay = retained(list(folders), newest, every)
    for folder in (folder for step, folder in folders.items() if step not in stay):
        doomed = folder.with_name(f".{folder.name}.removed")
        os.replace(folder, doomed)  # so that a kill leaves no half of one
        shutil.rmtree(doomed, ignore_errors=True)


def clean(run: Path) -> None:
    """Removes what a killed process left of checkpoints that it wrote or removed."""
    for pattern in (".step-*.partial", ".step-*.removed"):
        for folder in run.glob(pattern):
            shutil.rmtree(folder, ignore_errors=True)


def with_hash(facts: dict[str, Any]) -> bytes:
    """The bytes of a checkpoint.json."""
    value = {**facts, "format": FORMAT}
    return json.dumps({**value, "hash": json_sha256(value)}, indent=1).encode()


def read_facts(folder: Path) -> dict[str, Any]:
    """What checkpoint.json says, checked against its own hash; UserError for what is no checkpoint of toto."""
    try:
        data = (folder / FACTS).read_bytes()
    except OSError:
        raise UserError(f"{folder} is no checkpoint: it has no {FACTS}") from None
    return parse_facts(data, str(folder))


def parse_facts(data: bytes, place: str) -> dict[str, Any]:
    """The same from the bytes of a checkpoint.json; `place` is the checkpoint's folder or URI, for errors."""
    path = f"{place}/{FACTS}"
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise UserError(f"{path} is damaged: not JSON; {another(place)}") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise UserError(f"{path}: not a checkpoint of format {FORMAT}, which this version of toto reads")
    stated = value.pop("hash", None)
    if not stated or stated != _hash(value):
        raise UserError(f"{path} is damaged: it is not as it was written; {another(place)}")
    kinds = {"files": dict, "tensors": dict, "step": SIZE, "model": dict, "tokenizer": dict, "recipe": dict}
    wrong = [name for name, kind in kinds.items() if misshapen(value.get(name), kind) is not None]
    if not wrong and not all(map(_is_file, value["files"].items())):
        wrong = ["files"]
    if wrong:
        raise UserError(f"{path}: {', '.join(wrong)} missing or not what it must be: not written by toto-train")
    return value


def identity(facts: dict[str, Any]) -> str:
    """16 hex digits that say which checkpoint this is: the same for copies of it, wherever they lie."""
    return json_sha256(facts)[:16]


def told_bytes(facts: dict[str, Any]) -> dict[str, int]:
    """The bytes that the tensors of each file take, as checkpoint.json tells; UserError where it does not."""
    told: dict[str, int] = {}
    try:
        for entry in facts["tensors"].values():
            for _, _, file, first, length in entry["chunks"]:
                told[file] = max(told.get(file, 0), int(first) + int(length))
    except (KeyError, TypeError, ValueError, OverflowError):
        raise UserError(f"{FACTS}: its tensors are not described as they must be") from None
    return told


def verify(folder: Path, facts: dict[str, Any]) -> None:
    """Checks every file's sha256; UserError names the first that is missing or not as it was written."""
    for name, digest in facts["files"].items():
        path = folder / STATE / name
        if not path.is_file() or file_sha256(path) != digest:
            what = "is damaged" if path.is_file() else "is missing"
            raise UserError(f"{path} {what}; {another(str(folder))}")


def another(place: str) -> str:
    """What to do about a checkpoint that is damaged."""
    return f"take another checkpoint: remove {place}, and the run goes on from the one before"


def _hash(value: dict[str, Any]) -> str | None:
    """The hash of a value; None for what toto does not write: numbers that are not finite, half characters."""
    try:
        return json_sha256(value)
    except ValueError:
        return None


def _is_file(entry: tuple[str, Any]) -> bool:
    """Whether an entry of `files` is the name of a file in state/, and its sha256."""
    name, digest = entry
    return bool(_FILE.fullmatch(name)) and isinstance(digest, str) and bool(_DIGEST.fullmatch(digest))
