"""Builds a demo world: spec in, a folder with five official layouts out, whole or not at all.

    <root>/kinetics imagenet davis cater ego4d_sta      as their modules say
    <root>/README.md world.json                         what this is; the spec, written when all else is there

Lists and annotations come first, then the files (crew.py); each depends on the spec and its own name only.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from toto.errors import UserError
from toto.tokenize.demo import cater, crew, davis, ego4d_sta, imagenet, kinetics
from toto.tokenize.demo.spec import WorldSpec

MARKER = "world.json"
VERSION = 2  # of what a spec draws; raised when the pictures change
ANNOTATE = {
    "kinetics": kinetics.annotate,
    "imagenet": imagenet.annotate,
    "davis": davis.annotate,
    "cater": cater.annotate,
    "ego4d_sta": ego4d_sta.annotate,
}
_STALE_SECONDS = 86_400

_README = """# A demo world of toto

Drawn, not filmed: every picture and video here was generated from the numbers in world.json, and may be
removed and drawn again at any time. Each folder has the layout of a dataset that people really use:

- kinetics/    clips of moving shapes; the label is the motion, which no single frame gives away
- imagenet/    pictures of textured shapes; the label is the shape
- davis/       short sequences with a mask of every object in every frame
- cater/       a golden object that a cone may hide and take along; the label is where it ends up
- ego4d_sta/   a hand reaches for an object: which one, where, how, and in how many seconds
"""


def build(root: Path, spec: WorldSpec, progress: Callable[[int, int], None] | None = None) -> None:
    """Draws the world of `spec` at `root`; does nothing when it is there already.

    `progress(done, total)` is called after every file. Raises UserError when something else is at `root`.
    """
    root = root.resolve()
    if _is_there(root, spec):
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(root)
    # Beside the target, so that the final rename stays within one file system.
    with tempfile.TemporaryDirectory(prefix=_prefix(root), dir=root.parent) as folder:
        world = Path(folder) / "world"
        world.mkdir()
        _draw(world, spec, progress)
        _publish(world, root, spec)


def _is_there(root: Path, spec: WorldSpec) -> bool:
    """Whether this very world is at `root`; raises UserError for anything else that would be overwritten."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = json.loads((root / MARKER).read_text())
    except (OSError, ValueError):
        raise UserError(f"{root} is not a demo world; remove it or choose another folder") from None
    if found != _record(spec):
        raise UserError(
            f"{root} holds a demo world drawn from other settings; remove the folder {root}"
            " to have it drawn again, or choose another"
        )
    return True


def _record(spec: WorldSpec) -> dict[str, object]:
    """What world.json holds."""
    record: dict[str, object] = json.loads(json.dumps({"version": VERSION, "spec": asdict(spec)}))
    return record


def _draw(world: Path, spec: WorldSpec, progress: Callable[[int, int], None] | None) -> None:
    for name, annotate in ANNOTATE.items():
        annotate(world / name, spec)
    crew.draw(world, spec, progress)
    (world / "README.md").write_text(_README)
    (world / MARKER).write_text(json.dumps(_record(spec), indent=1) + "\n")


def _publish(world: Path, root: Path, spec: WorldSpec) -> None:
    """Renames the whole world to its place; another process may have put the same one there meanwhile."""
    try:
        os.replace(world, root)
    except OSError:
        if not _is_there(root, spec):
            raise


def _prefix(root: Path) -> str:
    return f".{root.name}.drawing-"


def _remove_stale(root: Path) -> None:
    """Removes what drawings that were killed more than a day ago left beside `root`."""
    for left in root.parent.iterdir():
        if left.name.startswith(_prefix(root)) and time.time() - left.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(left, ignore_errors=True)
