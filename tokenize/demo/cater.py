"""The CATER layout: where is the golden solid at the end, even if a cone took it along?

videos/CATER_new_######.avi      24 fps; WorldSpec.cater_frames and cater_size (the true set: 301, 320x240)
scenes/CATER_new_######.json     keys of the true scene files; every solid's `locations` at every frame
lists/{localize,localize_4x4,localize_8x8}/{train,val}.txt      `<video name> <cell>`, split 70 to 30
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

from toto.tokenize.demo.encode import write_video
from toto.tokenize.demo.hiding import SPL, Game, cell, play
from toto.tokenize.demo.spec import Job, WorldSpec, generator
from toto.tokenize.demo.table import Camera, draw_game

FPS = 24
LISTS = {"localize": 3, "localize_4x4": 2, "localize_8x8": 4}  # name: cells from the middle to the edge


def annotate(root: Path, spec: WorldSpec) -> None:
    """Plays the games; writes their scenes and the lists of labels."""
    for folder in ("videos", "scenes", *(f"lists/{kind}" for kind in LISTS)):
        (root / folder).mkdir(parents=True)
    games = [_game(spec, number) for number in range(spec.cater_videos)]
    for number, game in enumerate(games):
        scene = describe(game, number, Camera(spec.cater_size))
        (root / "scenes" / f"{name(number)}.json").write_text(json.dumps(scene, indent=1) + "\n")
    _write_lists(root / "lists", games)


def jobs(root: Path, spec: WorldSpec) -> list[Job]:
    """One job per video."""
    return [partial(_write_video, root, spec, number) for number in range(spec.cater_videos)]


def name(number: int) -> str:
    """The name of video and scene `number`, without suffix."""
    return f"CATER_new_{number:06d}"


def describe(game: Game, number: int, camera: Camera) -> dict[str, Any]:
    """A scene file's content."""
    objects = []
    for solid, track in zip(game.solids, game.locations.round(4).tolist(), strict=True):
        objects.append(
            {
                "shape": solid.shape,
                "size": solid.size,
                "sized": solid.radius,
                "material": solid.material,
                "color": solid.color,
                "instance": solid.instance,
                "rotation": 0.0,
                "3d_coords": track[0],
                "pixel_coords": [*(round(value, 1) for value in camera.project(*track[0])), track[0][1]],
                "locations": {str(frame): place for frame, place in enumerate(track)},
            }
        )
    return {
        "split": "new",
        "image_index": number,
        "image_filename": f"{name(number)}.avi",
        "objects": objects,
        "movements": game.movements,
    }


def _game(spec: WorldSpec, number: int) -> Game:
    return play(generator(spec.seed, "cater", number, "game"), spec.cater_frames)


def _write_lists(root: Path, games: list[Game]) -> None:
    cut = max(1, int(0.7 * len(games)))
    for kind, half in LISTS.items():
        labels = [cell(game.locations[SPL, -1].round(4), half) for game in games]
        lines = [f"{name(number)}.avi {label}\n" for number, label in enumerate(labels)]
        (root / kind / "train.txt").write_text("".join(lines[:cut]))
        (root / kind / "val.txt").write_text("".join(lines[cut:]))


def _write_video(root: Path, spec: WorldSpec, number: int) -> None:
    rng = generator(spec.seed, "cater", number, "picture")
    view = draw_game(rng, _game(spec, number), Camera(spec.cater_size))
    pictures = (view.frame(frame) for frame in range(spec.cater_frames))
    write_video(root / "videos" / f"{name(number)}.avi", pictures, FPS, "mpeg4", spec.cater_size)
