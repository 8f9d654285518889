"""Weights in any of their usual forms -> one safetensors file in the cache, named by the source's sha256.

    dvae-encoder, dvae-decoder   dall_e's module or state dict (blocks.….w)      -> blocks.….weight
    vqgan                        Lightning checkpoint of taming, its loss left out -> encoder. decoder. quant_conv. …
    sdvae                        diffusers' or CompVis' names, with or without first_stage_model. -> the same

A file is converted once, in a child process (weights_child.py); from then on nothing but safetensors is read, and the
source may be gone. Tensors that a network needs must all be there, fit, and be finite.
"""

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from toto.errors import UserError, naming
from toto.lazy import cached_property
from toto.shards.hashing import file_sha256
from toto.tokenize import weights_child
from toto.tokenize.weights import (
    Weights,
    cache,
    forgotten_if_wrong,
    known,
    local_path,
    locked,
    obtain,
    recorded_sha256,
)

VERSION = 1  # changes when the same source would give other tensors
MOST_GROWTH = 4.25  # of a file's bytes, as float32: int8 becomes four times as large
AUTOENCODER = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")

Shapes = dict[str, tuple[int, ...]]  # of tensors by name


class WeightsFile(Protocol):
    """Tensors by name, and the hash of the file that they came in."""

    @property
    def sha256(self) -> str:
        """Of that file."""
        ...

    @property
    def shapes(self) -> Shapes:
        """Of all tensors."""
        ...

    def tensor(self, name: str) -> Any:
        """One tensor as float32 array."""
        ...

    def tensors(self, *prefixes: str) -> dict[str, Any]:
        """The torch tensors of these prefixes."""
        ...


@dataclass(frozen=True)
class Stored:
    """Converted weights on this machine."""

    path: Path
    sha256: str  # of the file that they were converted from

    @cached_property
    def shapes(self) -> Shapes:
        """Of all tensors; reads the header alone."""
        with self._open("np") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118

    def tensor(self, name: str) -> Any:
        """One tensor as float32 array."""
        with self._open("np") as file:
            return file.get_tensor(name)

    def tensors(self, *prefixes: str) -> dict[str, Any]:
        """The torch tensors of these prefixes, after a look whether the file is as it was written; UserError if not."""
        if file_sha256(self.path) != _sealed_sha256(self.path):
            raise UserError(f"{self.path} is damaged; remove it, and it is made anew from the weights")
        with self._open("pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefixes)}  # noqa: SIM118

    def _open(self, framework: str) -> Any:
        from safetensors import safe_open

        return safe_open(self.path, framework)


def stored(kind: str, uri: str | None, sha256: str | None) -> Stored:
    """Converted weights of a kind, by their hash when they are here, else fetched and converted; UserError if not."""
    here = sha256 or (recorded_sha256(uri) if uri is not None else None)
    if here is not None and _is_whole(_path(kind, here)):
        return Stored(_path(kind, here), here)
    if uri is None and sha256 is not None:
        raise UserError(
            f"{kind}: weights with sha256 {sha256[:16]}… are not in the cache here; name their file in tokenizers: of "
            f"pipelines.yaml, and run toto-tokenize weights fetch NAME"
        )
    if uri is None:
        raise UserError(f"{kind}: no weights are named; set weights (a path or URI) in the tokenizer's entry")
    weights = obtain(uri, sha256)
    path = _path(kind, weights.sha256)
    with locked(path.parent), forgotten_if_wrong(uri):
        if not _is_whole(path):
            _convert(kind, weights, path)
    return Stored(path, weights.sha256)


def is_here(kind: str, uri: str | None, sha256: str | None) -> bool:
    """Whether a file of weights (or a folder with it) can be used without fetching anything."""
    if uri is not None and (known(uri) is not None or ((path := local_path(uri)) is not None and path.exists())):
        return True
    digest = sha256 or (recorded_sha256(uri) if uri is not None else None)
    return digest is not None and is_converted(kind, digest)


def is_converted(kind: str, sha256: str) -> bool:
    """Whether weights with this hash are here, whatever became of the file that they came in."""
    return _is_whole(_path(kind, sha256))


def convert_names(kind: str, tensors: dict[str, Any], where: str) -> dict[str, Any]:
    """Tensors under the names that our networks use; UserError when these are no weights of that kind."""
    renamed = dict(_RENAMERS[kind](tensors, where))
    wanted = _NEEDED[kind]
    if missing := [name for name in wanted if name not in renamed]:
        held = ", ".join(sorted(tensors)[:3]) or "nothing"
        raise UserError(f"{where}: no weights of a {kind}: {missing[0]} is not there (it holds {held}, …)")
    return renamed


def write_converted(kind: str, source: Path, target: Path, sha256: str) -> None:
    """What a child process does: a file of any form -> safetensors; UserError when these are no such weights."""
    from safetensors.torch import save_file

    from toto.tokenize.weights_reading import read_tensors

    tensors = convert_names(kind, read_tensors(source), str(source))
    if sum(tensor.numel() * 4 for tensor in tensors.values()) > MOST_GROWTH * source.stat().st_size:
        raise UserError(f"{source}: its tensors share their bytes, larger inside than outside; these are not taken")
    plain = {name: _plain(name, tensor, source) for name, tensor in tensors.items()}
    try:
        _fill_networks(kind, plain)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    save_file(plain, target, metadata={"source_sha256": sha256, "kind": kind})


def _plain(name: str, tensor: Any, source: Path) -> Any:
    """As float32, with bytes of its own."""
    if tensor.is_complex():
        raise UserError(f"{source}: {name!r} has complex numbers; these weights are not taken")
    tensor = tensor.float().contiguous().clone()
    if not tensor.isfinite().all():
        raise UserError(f"{source}: {name!r} has numbers that are not finite (NaN or inf); these weights are not taken")
    return tensor


def _fill_networks(kind: str, tensors: dict[str, Any]) -> None:
    """Nothing is missing and every shape fits, or UserError: known now, not at the first picture."""
    from toto.tokenize.tokenizers import autoencoder_net, dvae_net

    if kind == "dvae-encoder":
        dvae_net.load_dvae_encoder(tensors)
    elif kind == "dvae-decoder":
        dvae_net.load_dvae_decoder(tensors)
    else:
        autoencoder_net.load_autoencoder_encoder(tensors)
        autoencoder_net.load_autoencoder_decoder(tensors)


def _convert(kind: str, weights: Weights, path: Path) -> None:
    partial = path.with_name(f".{uuid4().hex[:12]}.partial")
    try:
        with naming(path):
            weights_child.convert(kind, weights.path, partial, weights.sha256)
            seal = json.dumps({"sha256": file_sha256(partial)})
            os.replace(partial, path)
            _seal(path).write_text(seal)  # last: without it the file does not count
    finally:
        partial.unlink(missing_ok=True)


def _path(kind: str, sha256: str) -> Path:
    return cache() / "converted" / f"{sha256}-{kind}-{VERSION}.safetensors"


def _seal(path: Path) -> Path:
    return path.with_suffix(".json")


def _is_whole(path: Path) -> bool:
    return path.is_file() and _sealed_sha256(path) is not None


def _sealed_sha256(path: Path) -> str | None:
    """What the file was when it was written; None when that was never finished."""
    try:
        return json.loads(_seal(path).read_bytes())["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _of_dvae(tensors: dict[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    for name, tensor in tensors.items():
        if name.startswith("blocks."):
            yield re.sub(r"\.b$", ".bias", re.sub(r"\.w$", ".weight", name)), tensor


def _of_vqgan(tensors: dict[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    if "quantize.embed.weight" in tensors:
        raise UserError(f"{where}: a VQGAN with Gumbel quantisation; only those with nearest codes are taken")
    if "quantize.used" in tensors:
        raise UserError(f"{where}: a VQGAN with remapped codes; only those that use their whole codebook are taken")
    wanted = (*AUTOENCODER, "quantize.embedding.weight")
    yield from ((name, tensor) for name, tensor in tensors.items() if name.startswith(wanted))


def _of_sdvae(tensors: dict[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    for prefix in ("first_stage_model.", "vae."):
        if f"{prefix}encoder.conv_in.weight" in tensors:
            tensors = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    ups = [int(m.group(1)) for name in tensors if (m := re.match(r"decoder\.up_blocks\.(\d+)\.", name))]
    for name, tensor in tensors.items():
        if name.startswith(AUTOENCODER):
            new = _from_diffusers(name, max(ups, default=0))
            is_flat = ".attn_1." in new and new.endswith(".weight") and ".norm." not in new and tensor.ndim == 2
            yield new, tensor[:, :, None, None] if is_flat else tensor


def _from_diffusers(name: str, last_up: int) -> str:
    """A name of diffusers' AutoencoderKL as CompVis spells it; names of CompVis stay."""
    name = re.sub(r"decoder\.up_blocks\.(\d+)\.", lambda m: f"decoder.up.{last_up - int(m.group(1))}.", name)
    for pattern, new in _DIFFUSERS:
        name = re.sub(pattern, new, name)
    return name


_DIFFUSERS = [
    (r"\.down_blocks\.(\d+)\.", r".down.\1."),
    (r"(\.down\.\d+|\.up\.\d+)\.resnets\.(\d+)\.", r"\1.block.\2."),
    (r"\.downsamplers\.0\.", ".downsample."),
    (r"\.upsamplers\.0\.", ".upsample."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.mid_block\.resnets\.0\.", ".mid.block_1."),
    (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
    (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
    (r"\.attn_1\.group_norm\.", ".attn_1.norm."),
    (r"\.attn_1\.(?:to_q|query)\.", ".attn_1.q."),
    (r"\.attn_1\.(?:to_k|key)\.", ".attn_1.k."),
    (r"\.attn_1\.(?:to_v|value)\.", ".attn_1.v."),
    (r"\.attn_1\.(?:to_out\.0|proj_attn)\.", ".attn_1.proj_out."),
    (r"\.conv_norm_out\.", ".norm_out."),
]
_RENAMERS: dict[str, Callable[[dict[str, Any], str], Iterator[tuple[str, Any]]]] = {
    "dvae-encoder": _of_dvae,
    "dvae-decoder": _of_dvae,
    "vqgan": _of_vqgan,
    "sdvae": _of_sdvae,
}
_DVAE_NEEDED = ("blocks.input.weight", "blocks.group_1.block_1.res_path.conv_1.weight", "blocks.output.conv.weight")
_AUTOENCODER_NEEDED = (
    "encoder.conv_in.weight",
    "encoder.conv_out.weight",
    "decoder.conv_in.weight",
    "quant_conv.weight",
    "post_quant_conv.weight",
)
_NEEDED = {
    "dvae-encoder": _DVAE_NEEDED,
    "dvae-decoder": _DVAE_NEEDED,
    "vqgan": (*_AUTOENCODER_NEEDED, "quantize.embedding.weight"),
    "sdvae": _AUTOENCODER_NEEDED,
}
