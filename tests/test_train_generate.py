"""Generation: what a model knows by heart is continued; real prompts; a folder to look at, replaced as a whole."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from clips import write_image, write_video
from matplotlib.figure import Figure
from PIL import Image
from token_world import Video, still_images, write_tokens

from toto import Dataset
from toto.command import run as run_command
from toto.config import ModelConfig
from toto.errors import UsageError, UserError
from toto.shards.ids import CODE_OFFSET, VIDEO_START
from toto.shards.recipe import make_recipe
from toto.shards.store import open_store
from toto.shards.verify import verify
from toto.tokenize.tokenizers.dct import DCT
from toto.train import checkpoint
from toto.train.cost import Cost
from toto.train.generation import files
from toto.train.generation.command import generate as command
from toto.train.generation.cost import GenerationCost, lines_of
from toto.train.generation.curves import picture
from toto.train.generation.files import prompts_of_files
from toto.train.generation.generate import (
    Generation,
    accuracy_by_frame,
    by_frame,
    copy_accuracy_by_frame,
    generate,
    make,
)
from toto.train.generation.prompts import Asked, no_prompts, prompts
from toto.train.generation.sampling import Sampling
from toto.train.hardware import memory_for
from toto.train.load import Loaded, load_model
from toto.train.models import make_model, packed
from toto.train.models.llama import Llama
from toto.train.parallel import Team

CODES, GRID, CELLS, FRAMES = 64, (2, 3), 6, 4  # a context of four frames
MODEL = ModelConfig(name="test", dim=48, layers=2, heads=2, mlp_hidden=96)
GREEDY = Sampling(greedy=True)


def videos(split: str, count: int, frames: int, seed: int) -> list[Video]:
    codes = np.random.default_rng(seed).integers(0, CODES, (count, frames, *GRID))
    return [Video(f"{split}/{i}.mp4", codes[i], split) for i in range(count)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos of eight frames that the model knows by heart, and images."""
    root = tmp_path_factory.mktemp("generate")
    write_tokens(root / "tokens", [*videos("train", 4, 8, 0), *videos("val", 4, 8, 0)], still_images(9, GRID), CODES)
    return root


def by_heart(codes: np.ndarray) -> Llama:
    """A model that was shown every window of four frames of codes [n, 8, cells] until it knew them."""
    model = Llama(MODEL, CODES + CODE_OFFSET)
    windows = np.concatenate([codes[:, start : start + FRAMES].reshape(len(codes), -1) for start in range(5)])
    ids = torch.from_numpy(np.pad(windows + CODE_OFFSET, ((0, 0), (1, 0)), constant_values=VIDEO_START))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.015)
    for _ in range(60):
        optimizer.zero_grad()
        model(ids[:, :-1], ids[:, 1:]).mean().backward()
        optimizer.step()
    return model


@pytest.fixture(scope="module")
def run(world: Path) -> Path:
    """A run's folder with a real checkpoint of that model."""
    recipe = make_recipe([("world", str(world / "tokens"), 1, "train")], FRAMES, 4, 0, 8)
    codes = np.stack([video.codes.reshape(8, CELLS) for video in videos("train", 4, 8, 0)])
    facts = {
        "model": vars(MODEL),
        "training": {},
        "recipe": json.loads(recipe.to_json()),
        "tokenizer": Dataset(world / "tokens").tokenizer,
        "used_ids": CODES + CODE_OFFSET,
        "context": FRAMES * CELLS,
        "frames": FRAMES,
        "stride": 4,
        "grid": list(GRID),
    }
    tensors = checkpoint.tensors_of(by_heart(codes))
    checkpoint.save(world / "run", 150, tensors, facts, Team(0, 1, torch.device("cpu")))
    return world / "run"


@pytest.fixture(scope="module")
def loaded(run: Path) -> Loaded:
    return load_model(run)


def test_what_is_known_by_heart_is_continued_past_the_context(loaded: Loaded) -> None:
    known = prompts(loaded, Asked("video", 2, 8, 4), needs_truth=True)
    for regime in ("free", "frame", "token"):
        asked = Generation("video", 8, regime, GREEDY)  # type: ignore[arg-type]
        codes = generate(loaded, known, asked)
        assert np.array_equal(codes, known.codes), regime
    assert accuracy_by_frame(codes, known) == [None, None, 1, 1, 1, 1, 1, 1]
    copied = copy_accuracy_by_frame(known, asked)
    assert copied is not None and max(share for share in copied if share is not None) < 0.2


@pytest.mark.parametrize(("kind", "small"), [("video", 1 << 24), ("image", 1 << 24), ("video", 0)])
def test_batches_change_no_clip(loaded: Loaded, kind: str, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "SMALL", small)  # 0: packed matrices serve any number of rows
    asked = Generation(kind, 6, "free", Sampling(temperature=1.5), seed=3)  # type: ignore[arg-type]
    whole = generate(loaded, no_prompts(loaded, 11), asked)  # more than are made at once
    for batch, count in ((1, 11), (3, 2), (16, 9)):
        fewer = generate(loaded, no_prompts(loaded, count), replace(asked, batch=batch))
        assert np.array_equal(fewer, whole[:count]), batch
    assert len(np.unique(whole.reshape(11, -1), axis=0)) == 11, "samples repeat"
    assert not np.array_equal(generate(loaded, no_prompts(loaded, 2), replace(asked, seed=4)), whole[:2])


def test_losses_of_frames_are_those_of_the_true_codes(loaded: Loaded) -> None:
    known = prompts(loaded, Asked("video", 1, FRAMES, 3), needs_truth=True)
    ids = torch.from_numpy(np.pad(known.codes.reshape(3, -1) + CODE_OFFSET, ((0, 0), (1, 0)), constant_values=1))
    expected = loaded.model(ids[:, :-1], ids[:, 1:]).view(3, FRAMES, CELLS).mean((0, 2))
    for regime in ("token", "frame", "free"):  # known by heart: what is made is what is true
        made = make(loaded, known, Generation("video", FRAMES, regime, GREEDY))  # type: ignore[arg-type]
        assert made.losses is not None and np.isnan(made.losses[0])
        assert made.losses[1:] == pytest.approx(expected[1:].numpy(), abs=1e-5), regime
    found = by_frame(made, known, Generation("video", FRAMES, "free", GREEDY))
    assert found["loss_by_frame"] == [None, *made.losses[1:].tolist()]


def test_the_start_id_is_heard(loaded: Loaded) -> None:
    made = {}
    for kind in ("video", "image"):
        asked = Generation(kind, 4, "free", GREEDY)  # type: ignore[arg-type]
        made[kind] = generate(loaded, no_prompts(loaded, 1), asked)
    assert not np.array_equal(made["video"], made["image"])


def test_memory_that_is_not_there_is_told_and_other_errors_pass() -> None:
    for asked in (lambda: torch.empty(1 << 56), lambda: np.empty(1 << 56)):
        with pytest.raises(UserError, match="^no memory for 16 clips; lower --batch$"):
            with memory_for("16 clips", "lower --batch"):
                asked()
    with pytest.raises(RuntimeError, match="shapes"):
        with memory_for("16 clips", "lower --batch"):
            torch.ones(2, 3) @ torch.ones(2, 3)


def test_a_model_whose_weights_are_no_numbers_is_named(run: Path, tmp_path: Path) -> None:
    loaded = load_model(run)
    with torch.no_grad():
        loaded.model.table.weight[9] = torch.inf
    with pytest.raises(UserError, match=f"^{run}.*: the logits of frame 1 are not finite: .* take another checkpoint$"):
        make(loaded, no_prompts(loaded, 2), Generation("video", 2, "free", GREEDY))


def test_special_ids_are_never_made(loaded: Loaded) -> None:
    logits = torch.zeros(4096, CODES + CODE_OFFSET)
    logits[:, :CODE_OFFSET] = 50.0  # pad, starts and end are all but certain
    for sampling in (GREEDY, Sampling(), Sampling(top_k=5), Sampling(top_p=0.5)):
        codes = sampling.choose(logits, torch.linspace(0, 1 - 1e-9, 4096, dtype=torch.float64)).codes
        assert codes.min() >= 0 and codes.max() < CODES


def test_prompts_are_windows_of_the_held_out_split(loaded: Loaded, world: Path) -> None:
    known = prompts(loaded, Asked("video", 1, 3, 5, seed=1), needs_truth=True)
    assert known.codes.shape == (5, 3, *GRID) and known.prompt == 1 and known.has_truth
    dataset = Dataset(world / "tokens", split="val")
    for codes, where in zip(known.codes, known.sources, strict=True):
        (source,) = where["sources"]
        (row,) = dataset.frames(source)
        places = [row.frame_index.tolist().index(frame) for frame in where["frames"]]
        assert np.array_equal(row.codes[places], codes)
    assert known.fps == pytest.approx(6.25)  # every 4th of 25 frames a second
    assert known.sources != prompts(loaded, Asked("video", 1, 3, 5, seed=2), needs_truth=True).sources


def test_prompts_of_images(loaded: Loaded) -> None:
    known = prompts(loaded, Asked("image", 2, 4, 2, split="train"), needs_truth=True)
    assert known.codes.shape == (2, 4, *GRID)
    assert [len(where["sources"]) for where in known.sources] == [4, 4]
    assert copy_accuracy_by_frame(known, Generation("image", 4, "free", GREEDY)) is None


def test_longer_clips_than_any_run_have_no_truth(loaded: Loaded) -> None:
    known = prompts(loaded, Asked("video", 2, 70, 2), needs_truth=False)
    assert known.codes.shape == (2, 2, *GRID) and not known.has_truth
    codes = generate(loaded, known, Generation("video", 70, "free", GREEDY))
    assert codes.shape == (2, 70, *GRID) and np.array_equal(codes[:, :2], known.codes)
    assert accuracy_by_frame(codes, known) is None
    with pytest.raises(UserError, match="no window of 20 frames"):
        prompts(loaded, Asked("video", 2, 20, 2), needs_truth=True)


def invoke(*arguments: str | Path) -> tuple[str, dict]:
    result = CliRunner().invoke(command, [str(a) for a in (*arguments, "--json", "--device", "cpu")])
    assert result.exit_code == 0, result.output
    return result.output, json.loads(result.output.splitlines()[-1])


def test_the_command_leaves_codes_facts_and_pictures(run: Path) -> None:
    output, value = invoke("--ckpt", run, "--frames", 8, "--frames-prompt", 2, "--greedy", "--samples", 3)
    folder = run / "generated" / "step-000000150"
    written = {"curves.png", "generated.gif", "generated.json", "generated.png", "tokens", "tokens.npz"}
    assert {path.name for path in folder.iterdir()} == written == {Path(path).name for path in value["files"]}
    with np.load(folder / "tokens.npz") as arrays:
        assert arrays["codes"].dtype == np.uint16 and arrays["codes"].shape == (3, 8, *GRID)
        assert np.array_equal(arrays["codes"], arrays["true_codes"]) and arrays["prompt_frames"] == 2
    facts = json.loads((folder / "generated.json").read_text())
    assert facts["accuracy_by_frame"] == value["accuracy_by_frame"] == [None] * 2 + [1.0] * 6
    assert facts["checkpoint_id"] == load_model(run).id and facts["step"] == 150
    assert len(facts["dataset_ids"]) == 1 and len(facts["prompts"]) == 3
    assert "100%" in output and str(folder / "tokens.npz") in value["files"]
    with Image.open(folder / "generated.gif") as gif, Image.open(folder / "generated.png") as png:
        assert gif.n_frames == 8
        assert np.asarray(png).std() > 10


def test_the_command_starts_from_nothing(run: Path, tmp_path: Path) -> None:
    _, value = invoke("--ckpt", run, "--frames-prompt", 0, "--kind", "image", "--samples", 2, "--out", tmp_path)
    assert value["accuracy_by_frame"] is None and value["prompts"] == [] and value["dataset_ids"] == []
    with np.load(tmp_path / "tokens.npz") as arrays:
        assert arrays["codes"].shape == (2, FRAMES, *GRID) and "true_codes" not in arrays


def test_the_clips_are_a_dataset_that_the_next_generation_replaces(run: Path, tmp_path: Path) -> None:
    arguments = ("--ckpt", run, "--frames", 6, "--frames-prompt", 2, "--samples", 3, "--out", tmp_path)
    value = invoke(*arguments, "--regime", "all", "--movie")[1]
    dataset = Dataset(tmp_path / "tokens", split="made")
    assert (dataset.dataset_id, dataset.splits) == (value["dataset_id"], ["made", "true"])
    with np.load(tmp_path / "tokens.npz") as arrays:
        for i in range(3):
            (row,) = dataset.frames(f"free/{i:06d}")
            assert np.array_equal(row.codes, arrays["codes"][i]) and row.frame_index.tolist() == [0, 4, 8, 12, 16, 20]
            (row,) = Dataset(tmp_path / "tokens").frames(f"true/{i:06d}")
            assert np.array_equal(row.codes, arrays["true_codes"][i])
    assert {row.source.split("/")[0] for row in dataset.rows()} == {"free", "frame", "token"} == set(value["by_regime"])
    derived = dataset.info["settings"]["derived"]
    assert (derived["how"], derived["checkpoint"], derived["frames_prompt"]) == ("generate", value["checkpoint_id"], 2)
    assert verify(open_store(tmp_path / "tokens"), deep=True).ok
    with Image.open(tmp_path / "curves.png") as picture:
        assert np.asarray(picture).std() > 10
    assert frames_of(tmp_path / "generated.mp4") == 6
    other = invoke(*arguments, "--kind", "image", "--frames-prompt", 0)[1]
    assert {path.name for path in tmp_path.iterdir()} == {Path(path).name for path in other["files"]}
    assert not {"curves.png", "generated.mp4"} & {path.name for path in tmp_path.iterdir()}, "they show other clips"
    replaced = Dataset(tmp_path / "tokens")
    assert replaced.dataset_id == other["dataset_id"] != value["dataset_id"] and replaced.splits == ["made"]
    assert [row.n_frames for row in replaced.rows()] == [1] * 18


def test_only_what_a_generation_made_is_replaced(run: Path, world: Path, tmp_path: Path) -> None:
    (tmp_path / "notes" / "tokens").mkdir(parents=True)
    (tmp_path / "notes" / "tokens" / "mine.txt").write_text("x")
    shutil.copytree(world / "tokens", tmp_path / "data" / "tokens")
    for out in (tmp_path / "notes", tmp_path / "data"):
        before = sorted(out.rglob("*"))
        result = CliRunner().invoke(command, ["--ckpt", str(run), "--samples", "1", "--out", str(out)])
        assert isinstance(result.exception, UsageError) and "no generation made it" in str(result.exception)
        assert sorted(out.rglob("*")) == before, "nothing was written, nothing is gone"
    result = CliRunner().invoke(command, ["--ckpt", str(run), "--out", __file__])
    assert isinstance(result.exception, UsageError) and "is a file" in str(result.exception)


def test_the_names_of_the_curves_hide_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    found = {"accuracy_by_frame": [None, 0.1, 0.9], "loss_by_frame": [None, 2.0, 1.0]}
    copies = {"free": [None, 0.5, 0.4], "frame": [None, 0.5, 0.5], "token": [None, 0.5, 0.5]}
    picture({regime: {**found, "copy_accuracy_by_frame": copy} for regime, copy in copies.items()}, 2)
    (figure,) = drawn
    figure.draw_without_rendering()
    (names,) = figure.legends
    assert {text.get_text().split(":")[0] for text in names.texts} == {"free", "frame", "token", "frame, token"}
    below = names.get_window_extent()
    assert all(axes.get_legend() is None and not axes.get_tightbbox().overlaps(below) for axes in figure.axes)
    assert figure.bbox.x0 <= below.x0 and below.x1 <= figure.bbox.x1


def test_a_generation_that_takes_no_second_is_told_in_words() -> None:
    cost = GenerationCost(Cost(MODEL, CODES + CODE_OFFSET, FRAMES * CELLS), "H100")
    said = [lines_of(cost.value(clips), "H100")[-1] for clips in (2, 10**9)]
    assert said[0] == "2 clips: less than a second on one H100, at least" and "less" not in said[1]


def frames_of(path: Path) -> int:
    """Frames of a video file."""
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def square(path: Path) -> Loaded:
    """An untrained model of squares of 2×2 codes."""
    return Loaded(
        model=make_model(MODEL, 512 + CODE_OFFSET, seed=0).requires_grad_(False).eval(),
        config=MODEL,
        used_ids=512 + CODE_OFFSET,
        tokenizer=DCT(512).spec,
        context=16,
        frames=4,
        stride=4,
        grid=(2, 2),
        step=1,
        path=path,
        id="0" * 16,
        recipe={},
    )


def test_files_are_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = square(tmp_path)
    video, picture = write_video(tmp_path / "a b.mp4", 30), write_image(tmp_path / "x.png", (16, 16))
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    tokenize = files._tokenize

    def once(loaded: Loaded, folder: Path, frames: int) -> None:
        tokenize(loaded, folder, frames)
        shutil.copytree(folder / "tokens", tmp_path / "tokens")

    monkeypatch.setattr(files, "_tokenize", once)
    with pytest.raises(UserError, match=r"broken.mp4: no frame could be read \(open_error\)"):
        prompts_of_files(source, [video, picture, broken], Asked("video", 1, 4, 1), exact=True)
    assert Dataset(tmp_path / "tokens").info["totals"]["frames"] == 4 + 1  # of the film no more than asked for
    monkeypatch.setattr(files, "_tokenize", lambda loaded, folder, _: (tmp_path / "tokens").rename(folder / "tokens"))
    known = prompts_of_files(source, [video, picture], Asked("video", 2, 4, 3), exact=False)
    pixels = np.asarray(Image.open(picture)).transpose(2, 0, 1)
    assert known.prompt == 1 and not known.has_truth
    assert np.array_equal(known.codes[1, 0], DCT(512).encode(pixels[None])[0])
    assert np.array_equal(known.codes[2], known.codes[0])
    assert [where["sources"] for where in known.sources] == [[str(video)], [str(picture)], [str(video)]]
    assert generate(source, known, Generation("video", 4, "free", GREEDY)).shape == (3, 4, 2, 2)


def test_what_comes_after_the_prompt_in_a_file_is_the_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.random.default_rng(0).integers(0, 512, (5, 2, 2))

    def tokenize(loaded: Loaded, folder: Path, frames: int) -> None:
        clips = [Video("000000.png", codes, "all"), Video("000001.png", codes[:3], "all")]
        write_tokens(folder / "tokens", clips, (), 512)

    monkeypatch.setattr(files, "_tokenize", tokenize)
    long, short = (write_image(tmp_path / name) for name in ("long.png", "short.png"))  # nobody decodes them here
    known = prompts_of_files(square(tmp_path), [long, short], Asked("video", 2, 3, 2), exact=True)
    assert known.has_truth and np.array_equal(known.codes, np.stack([codes[:3]] * 2))
    assert known.sources[1] == {"sources": [str(short)], "frames": [0, 4, 8]} and known.fps == pytest.approx(6.25)
    known = prompts_of_files(square(tmp_path), [long, short], Asked("video", 2, 4, 2), exact=True)
    assert not known.has_truth and known.codes.shape == (2, 2, 2, 2)
    with pytest.raises(UsageError, match="true frames: not every prompt has 4 frames; lower --frames, or give longer"):
        make(square(tmp_path), known, Generation("video", 4, "frame", GREEDY))
    with pytest.raises(UserError, match=r"short.png: frames at this stride: 3; --frames-prompt is 4"):
        prompts_of_files(square(tmp_path), [long, short], Asked("video", 4, 8, 2), exact=True)


def test_without_the_tokenizing_stage_files_are_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'toto-video\[tokenize\]'$"):
        prompts_of_files(square(tmp_path), [write_image(tmp_path / "x.png")], Asked("video", 1, 4, 1), exact=True)


def test_the_command_says_why_there_is_no_truth(run: Path, tmp_path: Path) -> None:
    arguments = ("--frames", 20, "--frames-prompt", 3, "--samples", 1, "--precision", "bf16", "--out", tmp_path)
    output, value = invoke("--ckpt", run, *arguments)
    assert "no run of the dataset has 20 frames" in output
    assert value["accuracy_by_frame"] is None and len(value["prompts"][0]["frames"]) == 3


def test_without_the_tokenizer_there_are_codes_and_one_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "toto.tokenize.tokenizers.dct", None)
    output, value = invoke("--ckpt", run, "--samples", 1, "--out", tmp_path)
    assert "pip install 'toto-video[tokenize]'" in output
    assert {path.name for path in tmp_path.iterdir()} == {"curves.png", "generated.json", "tokens", "tokens.npz"}


def test_prompts_of_another_tokenizer_are_refused(loaded: Loaded, tmp_path: Path) -> None:
    write_tokens(tmp_path, videos("val", 2, 8, 5), (), CODES, tokenizer_id="f" * 64)
    with pytest.raises(UserError, match="take shards of that tokenizer"):
        prompts(loaded, Asked("video", 1, 4, 1, data=str(tmp_path)), needs_truth=False)


def test_prompts_of_another_grid_are_refused(loaded: Loaded, tmp_path: Path) -> None:
    codes = np.zeros((8, 4, 4), np.int64)
    write_tokens(tmp_path, [Video("val/a.mp4", codes, "val")], (), CODES)
    with pytest.raises(UserError, match="4×4 codes, but .* was trained on 2×3"):
        prompts(loaded, Asked("video", 1, 4, 1, data=str(tmp_path)), needs_truth=False)


def test_a_stopped_generation_says_that_it_starts_anew(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*made: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("toto.train.generation.generate.make", stopped)
    monkeypatch.setattr("toto.command.on_stop", lambda handler: None)
    monkeypatch.setattr(sys, "argv", ["generate", "--ckpt", str(run)])
    with pytest.raises(SystemExit) as ended:
        run_command(command)  # type: ignore[arg-type]
    assert ended.value.code == 130
    assert "stopped by Ctrl-C; nothing was written; the same command starts anew" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frames", "3", "--frames-prompt", "3"], "nothing is left to make"),
        (["--temperature", "0"], "temperature 0"),
        (["--frames-prompt", "0", "--data", "x"], "nothing is read from it"),
        (["--split", "test"], "no split 'test'"),
        (["--prompt", "nowhere.mp4"], "nowhere.mp4: no such file"),
        (["--prompt", __file__], "no tokenizer dct of 64 codes"),
        (["--prompt", __file__, "--data", "x"], "prompts come from one place"),
        (["--frames", "30", "--regime", "frame"], "no window of 30 frames"),
    ],
)
def test_mistakes_end_in_one_line(run: Path, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(command, ["--ckpt", str(run), *arguments])
    assert isinstance(result.exception, UserError) and message in str(result.exception)
    assert len(str(result.exception).splitlines()) <= 2
