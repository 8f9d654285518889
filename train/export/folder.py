"""A checkpoint -> a folder for transformers and for the Hugging Face Hub, written whole or not at all.

config.json  generation_config.json  model.safetensors   what transformers reads
toto.json        tokenizer, grid, frames, stride, context, recipe, and which checkpoint it was
report.json      logits and greedy tokens beside the checkpoint's
README.md        the card
"""

import json
import os
import re
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toto import __version__
from toto.errors import UsageError, UserError, naming
from toto.files import sync, write_whole
from toto.shards.ids import CODE_OFFSET, END, IMAGE_START, PAD, VIDEO_START
from toto.train.export.card import card
from toto.train.export.layout import layout_of
from toto.train.export.parity import Parity, check_parity
from toto.train.load import Loaded

FORMAT = 1
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SHARD_BYTES = 5_000_000_000  # of one file, as transformers splits them


def export(loaded: Loaded, out: Path, dtype: str = "fp32", check: bool = True) -> Parity | None:
    """Writes the folder; what the comparison found, None where there was none.

    UsageError when `out` holds something already; UserError when transformers gives other logits: nothing is left then.
    """
    out = out.absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists and is not empty; choose another --out")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with naming(out):
        partial.mkdir(parents=True)
        try:
            parity = _fill(partial, loaded, dtype, check)
            for path in partial.iterdir():
                sync(path)
            os.replace(partial, out)
            sync(out.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return parity


def _fill(folder: Path, loaded: Loaded, dtype: str, check: bool) -> Parity | None:
    layout, facts = layout_of(loaded.model, loaded.context), toto_facts(loaded)
    name = str(DTYPES[dtype]).removeprefix("torch.")
    _json(folder / "config.json", {**layout.config, "dtype": name, "torch_dtype": name})
    ids = {"bos_token_id": VIDEO_START, "eos_token_id": END, "pad_token_id": PAD}
    never = {"suppress_tokens": [PAD, VIDEO_START, IMAGE_START]}
    _json(folder / "generation_config.json", {"_from_model_config": False, "do_sample": True, **ids, **never})
    parity = None
    if check:  # in fp32, whatever is kept: what bf16 rounds away is no error of the export
        _save(folder, layout.tensors)
        parity = check_parity(loaded, folder)
        if not parity.holds:
            raise UserError(
                f"transformers {parity.transformers} gives other logits than the checkpoint (up to "
                f"{parity.max_logit_difference:.2g}; {parity.greedy_equal} of {parity.greedy_tokens} greedy tokens are "
                "equal); nothing was written"
            )
    if not check or dtype != "fp32":
        for path in folder.glob("model*.safetensors*"):  # those of the comparison
            path.unlink()
        _save(folder, {key: tensor.to(DTYPES[dtype]) for key, tensor in layout.tensors.items()})
    _json(folder / "report.json", {"dtype": name, "parity": None if parity is None else parity.value()})
    _json(folder / "toto.json", facts)
    write_whole(folder / "README.md", card(loaded, facts, parity).encode())
    return parity


def toto_facts(loaded: Loaded) -> dict[str, Any]:
    """What the weights mean: without it nobody knows which ids to feed."""
    return {
        "format": FORMAT,
        "toto_version": __version__,
        "checkpoint": loaded.id,
        "step": loaded.step,
        "model": vars(loaded.config),
        "tokenizer": loaded.tokenizer,
        "id_layout": {
            **{"pad": PAD, "video_start": VIDEO_START, "end": END, "image_start": IMAGE_START},
            "code_offset": CODE_OFFSET,
        },
        "context": loaded.context,
        "frames": loaded.frames,
        "stride": loaded.stride,
        "grid": list(loaded.grid),
        "recipe": loaded.recipe,
    }


def _save(folder: Path, tensors: dict[str, Tensor]) -> None:
    """One file of safetensors, or several and their index."""
    parts: list[dict[str, Tensor]] = [{}]
    for name, tensor in tensors.items():
        if parts[-1] and sum(t.nbytes for t in parts[-1].values()) + tensor.nbytes > SHARD_BYTES:
            parts.append({})
        parts[-1][name] = tensor
    if len(parts) == 1:
        _save_file(folder / "model.safetensors", tensors)
        return
    files = [f"model-{i:05d}-of-{len(parts):05d}.safetensors" for i in range(1, len(parts) + 1)]
    for file, part in zip(files, parts, strict=True):
        _save_file(folder / file, part)
    index = {name: file for file, part in zip(files, parts, strict=True) for name in part}
    total = {"total_size": sum(tensor.nbytes for tensor in tensors.values())}
    _json(folder / "model.safetensors.index.json", {"metadata": total, "weight_map": index})


def _save_file(path: Path, tensors: dict[str, Tensor]) -> None:
    """Readable for whom the files beside it are; OSError for a full disk, which safetensors tells of in an error of
    its own."""
    try:
        safetensors = import_module("safetensors.torch")
    except ImportError:
        raise UserError("safetensors is not installed: pip install 'toto-video[train]'") from None
    try:
        safetensors.save_file(tensors, path, {"format": "pt"})
        shutil.copymode(path.with_name("config.json"), path)  # safetensors lets nobody but the owner read
    except import_module("safetensors").SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1]))) from None


def _json(path: Path, value: Any) -> None:
    write_whole(path, json.dumps(value, indent=2, sort_keys=True).encode() + b"\n")
