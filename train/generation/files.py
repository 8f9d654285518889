"""Videos and pictures as prompts: toto-tokenize, in a process of its own, makes a small dataset of them.

    files ─ links in a temporary folder, toto-tokenize run with the checkpoint's tokenizer ─▶ dataset ─▶ Prompts

Training needs neither a video library nor a tokenizer; this one way of prompting needs both, and says so where
toto-video[tokenize] is not installed. Clip i begins like file i, from its first frame on, squares from its middle, with
the stride of the model; files are taken again in turn where there are fewer than clips.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from toto.config import load
from toto.errors import UsageError, UserError
from toto.plain import plain
from toto.shards.dataset import Dataset
from toto.shards.row import Row, cut_window
from toto.train.generation.prompts import Asked, Prompts
from toto.train.load import Loaded, check_fits

LONGEST = 65_535  # frames of a row
RUN = "from toto.tokenize.cli import main; main()"


def prompts_of_files(loaded: Loaded, files: Sequence[Path], asked: Asked, exact: bool) -> Prompts:
    """The first `asked.prompt` frames of each file, of a picture its only one; without `exact` as many as all have.

    Where every file has `asked.frames`, the rest is the truth. UserError for a file that has too few frames, or that
    cannot be read; UsageError for a tokenizer that nothing here can make.
    """
    missing = next((path for path in files if not path.is_file()), None)
    if missing is not None:
        raise UsageError(f"--prompt {missing}: no such file")
    with TemporaryDirectory(prefix="toto-prompts-") as folder:
        keys = _link(files, Path(folder) / "files")
        _tokenize(loaded, Path(folder), asked.frames)
        dataset = Dataset(Path(folder) / "tokens")
        rows = [_first_run(dataset, key, path) for key, path in zip(keys, files, strict=True)]
        check_fits(loaded, dataset.tokenizer, (rows[0].grid_h, rows[0].grid_w), "--prompt")
        fewest = min(row.n_frames for row in rows)
        if fewest < asked.prompt and exact:
            short = next(path for row, path in zip(rows, files, strict=True) if row.n_frames == fewest)
            raise UserError(f"--prompt {short}: frames at this stride: {fewest}; --frames-prompt is {asked.prompt}")
        prompt, has_truth = min(fewest, asked.prompt), fewest >= asked.frames
        clips = [cut_window(row, 0, asked.frames if has_truth else prompt) for row in rows]
        codes = np.stack([row.codes[: clip.frames] for row, clip in zip(rows, clips, strict=True)]).astype(np.int64)
    turns = [i % len(files) for i in range(asked.samples)]
    named = [[str(files[i])] for i in turns]
    return Prompts(codes[turns], prompt, has_truth, [[clips[i]] for i in turns], (dataset.dataset_id,), named)


def _link(files: Sequence[Path], folder: Path) -> list[str]:
    """Links to all files in one folder, in order; returns their names, which are the sources' keys."""
    folder.mkdir()
    names = [f"{i:06d}{path.suffix.lower()}" for i, path in enumerate(files)]
    for name, path in zip(names, files, strict=True):
        os.symlink(path.resolve(), folder / name)
    return names


def _tokenize(loaded: Loaded, folder: Path, frames: int) -> None:
    """The first `frames` frames of each file, at most LONGEST."""
    if find_spec("av") is None:
        raise UserError("--prompt needs the tokenizing stage: pip install 'toto-video[tokenize]'")
    dataset = {
        **{
            "layout": "folder",
            "tokenizer": "prompts",
            "root": str(folder / "files"),
            "labels": "none",
            "crop": "center",
            "run_frames": "all",
            "most_frames": min(frames, LONGEST),
        },
        **{"min_frames": 1, "resolution": min(loaded.grid) * loaded.tokenizer["patch"], **_frame_rule(loaded)},
    }
    config = {"datasets": {"prompts": dataset}, "tokenizers": {"prompts": _entry(loaded.tokenizer)}}
    path = folder / "pipelines.yaml"
    path.write_text(json.dumps(config))
    words = ["run", "prompts", "--config", str(path), "--out", str(folder / "tokens")]
    done = subprocess.run(
        [sys.executable, "-c", RUN, *words, "--ray-address", "local", "--quiet"], capture_output=True, text=True
    )
    if not (folder / "tokens" / "dataset.json").exists():
        said = done.stderr[max(0, done.stderr.rfind("error: ")) :].split() or [f"exit code {done.returncode}"]
        if "no videos or images here" in done.stderr:
            first = min((folder / "files").iterdir()).resolve()
            raise UsageError(f"--prompt {first}: by its name neither a video nor a picture")
        raise UserError(f"--prompt: no codes were made. toto-tokenize says: {plain(' '.join(said))[:300]}")


def _entry(spec: dict[str, Any]) -> dict[str, Any]:
    """The entry of `tokenizers:` that makes the codes of a checkpoint, held to the hash of its weights."""
    for config in load().tokenizers.values():
        if config.backend == spec["name"] and config.vocab_size in (None, spec["vocab_size"]):
            told = {key: value for key, value in asdict(config).items() if key != "name" and value}
            known = ("seed", "luma_coefficients", "weights_sha256", "decoder_sha256")
            return told | {key: spec[key] for key in known if spec.get(key) is not None}
    raise UsageError(
        f"--prompt: pipelines.yaml has no tokenizer {spec['name']} of {spec['vocab_size']:,} codes, as the model reads"
    )


def _frame_rule(loaded: Loaded) -> dict[str, Any]:
    """Which frames of a video the model was trained on: every so many, or so many a second."""
    if loaded.stride is not None:
        return {"stride": loaded.stride}
    part = loaded.recipe["parts"][0]
    settings = Dataset(part["uri"], part["dataset_id"]).info["settings"]
    return {key: settings[key] for key in ("stride", "fps") if settings.get(key)} or {"stride": 1}


def _first_run(dataset: Dataset, key: str, path: Path) -> Row:
    """The first run of a file; UserError says why there is none."""
    try:
        return dataset.frames(key)[0]
    except ValueError:
        reasons = {line["key"]: line["reason"] for line in dataset.quarantine().to_pylist()}
        why = reasons.get(key, "it is neither a video nor a picture")
        raise UserError(f"--prompt {path}: no frame could be read ({why})") from None
