"""The demo world: official layouts that strangers' readers accept, and labels that only the right evidence gives.

Files are read with csv, json, Pillow and PyAV, never with the generator's own code.
"""

import csv
import dataclasses
import json
import math
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from toto.errors import UsageError, UserError
from toto.tokenize.demo import WorldSpec, build, crew, davis
from toto.tokenize.demo.hiding import SPL, play
from toto.tokenize.demo.motions import MOTIONS, FreeTrack, Motion, sample_track
from toto.tokenize.demo.scenes import motion_scene, tracking_scene
from toto.tokenize.demo.shapes import SHAPES
from toto.tokenize.demo.sprites import Pose, textured_sprite
from toto.tokenize.demo.table import Camera, draw_game

TINY = WorldSpec(
    videos_per_class=2,
    frames=12,
    size=(64, 48),
    images_per_class=2,
    davis_sequences=2,
    davis_frames=4,
    davis_size=(96, 64),
    cater_videos=4,
    cater_frames=49,
    cater_size=(96, 72),
    sta_videos=4,
    sta_frames=40,
    sta_size=(96, 72),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "world"
    build(root, TINY)
    return root


def _decode(path: Path) -> tuple[str, float, list[np.ndarray]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return stream.codec_context.name, float(stream.average_rate or 0), pictures


def _files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


# ---- one world, whole or not at all


def test_same_spec_draws_the_same_files_in_any_number_of_processes(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "FILES_PER_PROCESS", 1)
    monkeypatch.setattr(crew, "cores", lambda: 3)
    told: list[tuple[int, int]] = []
    build(tmp_path / "again", TINY, lambda done, total: told.append((done, total)))
    assert _files(tmp_path / "again") == _files(world)
    assert told[-1][0] == told[-1][1]
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_another_seed_draws_other_pictures(world: Path, tmp_path: Path) -> None:
    build(tmp_path / "other", dataclasses.replace(TINY, seed=1))
    ours, other = _files(world), _files(tmp_path / "other")
    pictures = [name for name in ours if name.endswith(".JPEG")]
    assert pictures and all(ours[name] != other[name] for name in pictures)


def test_a_world_that_is_there_is_left_alone(world: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in world.rglob("*")}
    build(world, TINY, lambda done, total: pytest.fail("drew something"))
    assert {path: path.stat().st_mtime_ns for path in world.rglob("*")} == before
    assert [path.name for path in world.parent.iterdir()] == [world.name]


def test_a_world_of_other_settings_is_refused_naming_the_folder(world: Path) -> None:
    with pytest.raises(UserError, match=f"remove the folder {re.escape(str(world))}"):
        build(world, dataclasses.replace(TINY, seed=2))


def test_a_strangers_folder_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="is not a demo world"):
        build(tmp_path, TINY)
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_two_who_draw_the_same_world_at_once_both_get_it(world: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: build(tmp_path / "same", TINY), range(2)))
    assert _files(tmp_path / "same") == _files(world)
    assert [path.name for path in tmp_path.iterdir()] == ["same"]


def test_a_failed_drawing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(crew, "draw", fail)
    with pytest.raises(OSError, match="No space left"):
        build(tmp_path / "world", TINY)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_process_is_reported_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "FILES_PER_PROCESS", 1)
    monkeypatch.setattr(crew, "cores", lambda: 2)
    with pytest.raises(UserError, match="could not draw the demo world.*No such file"):
        crew.draw(tmp_path / "nowhere", TINY)


def test_an_impossible_spec_is_refused() -> None:
    with pytest.raises(UsageError, match="classes is 9; it must be 1 to 8"):
        WorldSpec(classes=9)
    with pytest.raises(UsageError, match="must be even"):
        WorldSpec(size=(65, 48))


# ---- Kinetics


def _kinetics_rows(world: Path, split: str) -> list[dict[str, str]]:
    with open(world / f"kinetics/annotations/{split}.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_kinetics_csv_has_the_official_columns_and_quotes_labels_with_spaces(world: Path) -> None:
    for split, per_class in (("train", 1), ("val", 1)):
        lines = (world / f"kinetics/annotations/{split}.csv").read_text().splitlines()
        assert lines[0] == "label,youtube_id,time_start,time_end,split,is_cc"
        assert all(line.startswith('"') == (" " in line) for line in lines[1:])
        rows = _kinetics_rows(world, split)
        labels = [row["label"] for row in rows]
        assert sorted(labels) == sorted([motion.label for motion in MOTIONS] * per_class)
        assert {row["split"] for row in rows} == {split}


def test_kinetics_ids_are_eleven_characters_and_may_start_with_dash_or_underscore(world: Path) -> None:
    ids = [row["youtube_id"] for row in _kinetics_rows(world, "train")]
    assert all(re.fullmatch(r"[\w-]{11}", one, re.ASCII) for one in ids)
    assert len(set(ids)) == len(ids)
    assert {"-", "_"} <= {one[0] for one in ids}


def test_every_kinetics_row_has_its_clip_and_no_clip_is_unlisted(world: Path) -> None:
    for split in ("train", "val"):
        listed = set()
        for row in _kinetics_rows(world, split):
            stem = f"{row['youtube_id']}_{int(row['time_start']):06d}_{int(row['time_end']):06d}"
            found = [path for path in (world / "kinetics" / split).iterdir() if path.stem == stem]
            assert len(found) == 1
            listed.add(found[0])
            codec, rate, pictures = _decode(found[0])
            assert codec.removeprefix("libvpx-") == {".mp4": "h264", ".webm": "vp9"}[found[0].suffix]
            assert rate in (24, 25, 30)
            assert 0.8 * TINY.frames - 1 <= len(pictures) <= 1.2 * TINY.frames + 1
            assert math.ceil(len(pictures) / rate) == int(row["time_end"]) - int(row["time_start"])
        assert listed == set((world / "kinetics" / split).iterdir())


# ---- the motion is in the motion


def _gaps_from_uniform(values: np.ndarray) -> float:
    """Kolmogorov-Smirnov distance from the uniform distribution on 0…1."""
    ordered = np.sort(values)
    return float(np.max(np.abs(ordered - (np.arange(len(ordered)) + 0.5) / len(ordered))))


@pytest.mark.parametrize("motion", MOTIONS, ids=lambda motion: motion.label)
def test_poses_at_any_frame_are_uniform_and_independent_whatever_the_motion(motion: Motion) -> None:
    rng, count = np.random.default_rng(0), 2000
    tracks = [sample_track(rng, motion, (128, 96)) for _ in range(count)]
    arena = tracks[0].arena
    for frame in (0, 37):
        poses = [track.pose(frame) for track in tracks]
        columns = np.array([[pose.x, pose.y, pose.angle, math.log(pose.radius)] for pose in poses])
        columns -= columns.min(axis=0)
        shares = columns / [arena.periods[axis] for axis in ("x", "y", "angle", "radius")]
        # 1.95 / sqrt(n) is the distance that one uniform sample in a thousand exceeds.
        assert max(_gaps_from_uniform(share) for share in shares.T) < 1.95 / math.sqrt(count)
        assert np.abs(np.corrcoef(shares.T) - np.eye(4)).max() < 0.09


def _grey_pairs(per_class: int) -> tuple[np.ndarray, np.ndarray]:
    """Two frames, two apart, of `per_class` scenes of each motion: float [n, 2, 48, 64] and the classes [n]."""
    pairs, labels = [], []
    for label, motion in enumerate(MOTIONS):
        for number in range(per_class):
            scene = motion_scene(np.random.default_rng([7, label, number]), motion, (64, 48))
            pairs.append([np.asarray(scene.frame(frame).convert("L"), float) for frame in (30, 32)])
            labels.append(label)
    return np.array(pairs), np.array(labels)


@pytest.fixture(scope="module")
def grey_pairs() -> tuple[np.ndarray, np.ndarray]:
    return _grey_pairs(40)


def test_a_single_frame_does_not_give_the_motion_away(grey_pairs: tuple[np.ndarray, np.ndarray]) -> None:
    pairs, labels = grey_pairs
    frames = pairs[:, 0]
    small = frames.reshape(len(frames), 12, 4, 16, 4).mean(axis=(2, 4))
    edges = np.abs(np.diff(frames, axis=2)).reshape(len(frames), -1)[:, ::17]
    features = np.hstack([small.reshape(len(frames), -1), edges])
    features = np.hstack([(features - features.mean(0)) / (features.std(0) + 1), np.ones((len(frames), 1))])
    train = np.arange(len(frames)) % 2 == 0
    wanted = np.eye(len(MOTIONS))[labels]
    # Ridge regression in its dual form: as many unknowns as pictures.
    kernel = features[train] @ features[train].T + 100 * np.eye(train.sum())
    scores = features[~train] @ features[train].T @ np.linalg.solve(kernel, wanted[train])
    right = float(np.mean(scores.argmax(1) == labels[~train]))
    chance = 1 / len(MOTIONS)
    assert right < chance + 4 * math.sqrt(chance * (1 - chance) / (~train).sum())


def _flow(before: np.ndarray, after: np.ndarray, gap: int) -> np.ndarray:
    """Least squares of brightness constancy: mean shift in x and y, rotation and growth, each in mean rates.

    Every 16 x 16 window has a shift of its own, all share rotation and growth.
    """
    vertical, horizontal = np.gradient((before + after) / 2)
    y, x = np.mgrid[: before.shape[0], : before.shape[1]].astype(float)
    columns, weights = [], []
    turn = np.zeros_like(before)
    grow = np.zeros_like(before)
    for top in range(0, 48, 16):
        for left in range(0, 64, 16):
            inside = (y >= top) & (y < top + 16) & (x >= left) & (x < left + 16)
            u, v = x - left - 8, y - top - 8
            turn += inside * (vertical * u - horizontal * v)
            grow += inside * (vertical * v + horizontal * u)
            columns += [(inside * horizontal).ravel(), (inside * vertical).ravel()]
            weights.append(float((inside * (horizontal**2 + vertical**2)).sum()))
    design = np.stack([*columns, turn.ravel(), grow.ravel()], axis=1)
    normal = design.T @ design + 50 * np.eye(design.shape[1])
    solved = np.linalg.solve(normal, design.T @ (before - after).ravel())
    share = np.array(weights) / (sum(weights) + 1e-9)
    rates = np.array([0.017 * 48, 0.017 * 48, 0.07, 0.019]) * gap
    return np.array([share @ solved[:-2:2], share @ solved[1:-2:2], solved[-2], solved[-1]]) / rates


def test_two_frames_tell_the_motion(grey_pairs: tuple[np.ndarray, np.ndarray]) -> None:
    pairs, labels = grey_pairs
    axes = {"x": 0, "y": 1, "angle": 2, "radius": 3}
    classes = {(axes[motion.axis], motion.sign): label for label, motion in enumerate(MOTIONS)}
    flows = [_flow(before, after, 2) for before, after in pairs]
    told = [classes[int(np.abs(flow).argmax()), 1 if flow[np.abs(flow).argmax()] > 0 else -1] for flow in flows]
    assert np.mean(np.array(told) == labels) > 0.5


# ---- ImageNet


def test_imagenet_folders_hold_named_pictures_one_grey_one_turned(world: Path) -> None:
    for split, pattern in (("train", r"(n\d{8})_\d+\.JPEG"), ("val", r"ILSVRC2012_val_\d{8}\.JPEG")):
        folders = sorted((world / "imagenet" / split).iterdir())
        assert len(folders) == len(SHAPES)
        modes, turned = [], []
        for folder in folders:
            assert re.fullmatch(r"n\d{8}", folder.name)
            for path in folder.iterdir():
                match = re.fullmatch(pattern, path.name)
                assert match and folder.name in (match.groups() or (folder.name,))
                with Image.open(path) as picture:
                    picture.load()
                    assert picture.format == "JPEG"
                    modes.append(picture.mode)
                    turned.append(picture.getexif().get(0x0112, 1))
        assert (modes.count("L"), turned.count(6), len(modes)) == (1, 1, len(SHAPES))


def test_imagenet_names_its_classes(world: Path) -> None:
    lines = (world / "imagenet/LOC_synset_mapping.txt").read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == list(SHAPES)
    assert [line.split(" ", 1)[0] for line in lines] == sorted(p.name for p in (world / "imagenet/val").iterdir())


# ---- DAVIS


def test_davis_lists_frames_and_palette_masks_agree(world: Path) -> None:
    root = world / "davis"
    names = [(root / f"ImageSets/2017/{split}.txt").read_text().split() for split in ("train", "val")]
    assert [len(part) for part in names] == [1, 1]
    for name in names[0] + names[1]:
        frames = sorted((root / "JPEGImages/480p" / name).iterdir())
        masks = sorted((root / "Annotations/480p" / name).iterdir())
        assert [path.name for path in frames] == [f"{n:05d}.jpg" for n in range(TINY.davis_frames)]
        assert [path.name for path in masks] == [f"{n:05d}.png" for n in range(TINY.davis_frames)]
        ids = []
        for frame, mask in zip(frames, masks, strict=True):
            with Image.open(frame) as picture, Image.open(mask) as labels:
                assert (picture.mode, labels.mode) == ("RGB", "P")
                assert picture.size == labels.size == TINY.davis_size
                assert (labels.getpalette() or [])[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
                ids.append(set(np.unique(np.asarray(labels)).tolist()))
        assert ids[0] == set(range(len(ids[0]))) and len(ids[0]) >= 3  # background and at least two objects
        assert all(later <= ids[0] for later in ids)


def test_palette_is_the_official_one(media: Path) -> None:
    official = media / "davis" / "palette.txt"
    if not official.exists():
        pytest.skip(f"{official} is not there")
    assert np.array_equal(np.array(davis.palette()).reshape(256, 3), np.loadtxt(official, dtype=int))


def test_masks_agree_with_what_is_drawn() -> None:
    for seed in range(4):
        scene = tracking_scene(np.random.default_rng(seed), (160, 96), 16, ["star", "disc", "moon"])
        empty = dataclasses.replace(scene, actors=())
        for number in (0, 8, 15):
            mask = scene.mask(number)
            change = np.abs(np.asarray(scene.frame(number), int) - np.asarray(empty.frame(number), int)).sum(2)
            assert np.mean(change[mask > 0] > 20) > 0.97
            assert change[mask == 0].mean() < 60 < change[mask > 0].mean()  # a shadow, no object


def test_an_object_in_front_takes_the_masks_pixels() -> None:
    scene = tracking_scene(np.random.default_rng(3), (160, 96), 16, ["disc", "square"])
    near, far = (FreeTrack((160, 96), Pose(x, 48, radius), (0, 0), 0, 0) for x, radius in ((80, 24), (100, 20)))
    pair = tuple(dataclasses.replace(a, track=t) for a, t in zip(scene.actors, (near, far), strict=True))
    mask = dataclasses.replace(scene, actors=pair).mask(0)
    assert mask[48, 95] == 1  # where both are, the larger one is nearer
    assert mask[48, 108] == 2


def test_shapes_fill_their_circle_and_stay_in_it() -> None:
    for outline in SHAPES.values():
        assert 0.9 < max(math.hypot(x, y) for x, y in outline) <= 1.001


def test_turning_is_clockwise_as_seen() -> None:
    sprite = textured_sprite(np.random.default_rng(0), "arrow", 64)  # drawn pointing up
    stamp = sprite.stamp(Pose(32, 32, 28, math.pi / 2), (64, 64))
    assert stamp is not None
    seen = np.argwhere(np.asarray(stamp.mask)) + stamp.corner[::-1]
    tip = seen[seen[:, 1].argmax()]
    assert tip[1] >= 58 and abs(tip[0] - 32) <= 2  # now pointing right


# ---- CATER


def _scenes(world: Path) -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in sorted((world / "cater/scenes").iterdir())}


def _snitch(scene: dict) -> list[list[float]]:
    (spl,) = [one for one in scene["objects"] if one["shape"] == "spl"]
    return [spl["locations"][str(frame)] for frame in range(len(spl["locations"]))]


def test_cater_label_is_the_formula_of_the_last_snitch_location(world: Path) -> None:
    scenes, seen = _scenes(world), []
    for folder, cells in (("localize", 3), ("localize_4x4", 2), ("localize_8x8", 4)):
        for split in ("train", "val"):
            for line in (world / f"cater/lists/{folder}/{split}.txt").read_text().splitlines():
                match = re.fullmatch(r"(CATER_new_\d{6})\.avi (\d+)", line)
                assert match
                x, y = (value * cells / 3 for value in _snitch(scenes[match[1]])[-1][:2])
                assert int(match[2]) == (math.floor(y) + cells) * 2 * cells + math.floor(x) + cells
                seen.append((folder, match[1]))
    assert sorted(seen) == sorted((folder, name) for folder in {f for f, _ in seen} for name in scenes)


def test_cater_scenes_have_the_official_keys_and_a_place_for_every_frame(world: Path) -> None:
    for name, scene in _scenes(world).items():
        assert {"split", "image_index", "image_filename", "objects", "movements"} <= set(scene)
        codec, rate, pictures = _decode(world / "cater/videos" / scene["image_filename"])
        assert (codec, rate, scene["image_filename"]) == ("mpeg4", 24, f"{name}.avi")
        assert pictures[0].shape == (TINY.cater_size[1], TINY.cater_size[0], 3)
        assert {one["instance"] for one in scene["objects"]} == set(scene["movements"])
        for one in scene["objects"]:
            assert {"shape", "size", "color", "material", "3d_coords", "pixel_coords"} <= set(one)
            assert sorted(one["locations"], key=int) == [str(n) for n in range(TINY.cater_frames)]
        assert len(pictures) == TINY.cater_frames
        for action, other, first, last in (m for moves in scene["movements"].values() for m in moves):
            assert action in ("_slide", "_pick_place", "_contain") and 0 <= first < last < TINY.cater_frames
            assert (other == "Spl_0") == (action == "_contain")


def test_a_covered_snitch_goes_with_its_cone_and_is_not_seen() -> None:
    moved = 0
    for seed in range(12):
        game = play(np.random.default_rng(seed), 97)
        hidden = np.flatnonzero(game.covered[SPL])
        if not len(hidden):
            continue
        cone = next(i for i in (1, 2) if any(m[0] == "_contain" for m in game.movements[game.solids[i].instance]))
        assert np.allclose(game.locations[SPL, hidden, :2], game.locations[cone, hidden, :2])
        moved += bool(np.ptp(game.locations[SPL, hidden, 0]) > 0.5)
        view = draw_game(np.random.default_rng(0), game, Camera((96, 72)))
        disguised = dataclasses.replace(view, solids=(view.solids[cone], *view.solids[1:]))
        assert view.frame(0) != disguised.frame(0)
        assert view.frame(int(hidden[-1])) == disguised.frame(int(hidden[-1]))
    assert moved >= 3


def test_snitch_ends_in_many_cells() -> None:
    ends = [play(np.random.default_rng(seed), 49).locations[SPL, -1, :2] for seed in range(150)]
    assert np.abs(ends).max() < 3
    assert len({(math.floor(x), math.floor(y)) for x, y in ends}) >= 30


# ---- Ego4D short-term anticipation


def test_sta_annotations_lie_inside_and_before_the_contact(world: Path) -> None:
    for split, videos in (("train", 3), ("val", 1)):
        content = json.loads((world / f"ego4d_sta/fho_sta_{split}.json").read_text())
        info = content["info"]
        assert info["split"] == split and info["include_annotations"] is True
        assert len(info["video_metadata"]) == videos
        nouns = {one["id"] for one in content["noun_categories"]}
        verbs = {one["id"] for one in content["verb_categories"]}
        uids = [one["uid"] for one in content["annotations"]]
        assert len(set(uids)) == len(uids) >= videos
        for one in content["annotations"]:
            meta = info["video_metadata"][one["video_uid"]]
            assert one["video_id"] == one["video_uid"] and one["clip_frame"] == one["frame"]
            assert 0 <= one["frame"] < TINY.sta_frames
            for thing in one["objects"]:
                x1, y1, x2, y2 = thing["box"]
                assert 0 <= x1 < x2 <= meta["frame_width"] and 0 <= y1 < y2 <= meta["frame_height"]
                assert thing["noun_category_id"] in nouns and thing["verb_category_id"] in verbs
                assert isinstance(thing["time_to_contact"], float) and thing["time_to_contact"] > 0
                contact = one["frame"] + thing["time_to_contact"] * meta["fps"]
                assert contact == pytest.approx(round(contact), abs=0.01) and contact < TINY.sta_frames


def test_sta_videos_are_vp9_at_thirty_frames_a_second(world: Path) -> None:
    content = json.loads((world / "ego4d_sta/fho_sta_train.json").read_text())
    for uid, meta in content["info"]["video_metadata"].items():
        assert re.fullmatch(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", uid)
        codec, rate, pictures = _decode(world / f"ego4d_sta/{uid}.mp4")
        assert (codec.removeprefix("libvpx-"), rate, len(pictures)) == ("vp9", meta["fps"], TINY.sta_frames)
        assert pictures[0].shape == (meta["frame_height"], meta["frame_width"], 3)


def test_the_hand_reaches_the_box_at_the_time_to_contact(world: Path) -> None:
    content = json.loads((world / "ego4d_sta/fho_sta_train.json").read_text())
    for one in content["annotations"]:
        meta = content["info"]["video_metadata"][one["video_uid"]]
        _, _, pictures = _decode(world / f"ego4d_sta/{one['video_uid']}.mp4")
        thing = one["objects"][0]
        x1, y1, x2, y2 = (int(value) for value in thing["box"])
        contact = round(one["frame"] + thing["time_to_contact"] * meta["fps"])
        crops = [pictures[n][y1:y2, x1:x2].astype(int) for n in (0, one["frame"], contact)]
        at_mark, at_contact = (np.abs(crop - crops[0]).sum(2) > 60 for crop in crops[1:])
        assert at_contact.mean() > at_mark.mean() and at_contact.mean() > 0.01
