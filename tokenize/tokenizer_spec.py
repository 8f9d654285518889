"""An entry of `tokenizers:` in pipelines.yaml -> the spec that a tokenizer is made from.

`auto` is settled here, in the process that plans: the device, and with it the precision. What the weights decide (their
hashes, the vocabulary, the patch) is added by the tokenizer itself.
"""

import re
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from toto.config import TokenizerConfig, expand, load
from toto.errors import UsageError
from toto.tokenize.sources.names import shown
from toto.tokenize.weights import known
from toto.tokenize.weights_convert import is_here

WITH_NETWORKS = ("dvae", "vqgan", "sdvae")  # backends that run on a GPU where there is one
OF_NETWORKS = ("vocab_size", "weights", "weights_sha256", "trained_with", "precision", "compile", "device")
KEYS: dict[str, tuple[str, ...]] = {  # of the entry of each backend in pipelines.yaml
    "none": (),
    "dct": ("vocab_size", "seed", "luma_coefficients"),
    "dvae": (*OF_NETWORKS, "decoder", "decoder_sha256"),
    "vqgan": (*OF_NETWORKS, "model_config"),
    "sdvae": (*OF_NETWORKS, "seed"),
}
KEYS_OF_PLUG_INS = (*OF_NETWORKS, "decoder", "decoder_sha256", "model_config", "options")
FILES_OF_WEIGHTS = ("weights", "decoder", "model_config")
SECRETS = re.compile("sig|token|key|secret|cred|expires|auth", re.IGNORECASE)  # in the query of a signed URL


def tokenizer_spec(config: TokenizerConfig) -> dict[str, Any]:
    """What a tokenizer is made from, before its own hashes are known; a plug-in gets `options` as they stand.

    UsageError for a key that its backend does not have.
    """
    _refuse_foreign_keys(config)
    if config.backend == "none":
        return {"name": "none"}
    if config.backend == "dct":
        return {
            "name": "dct",
            "vocab_size": config.vocab_size or 8192,
            "luma_coefficients": config.luma_coefficients,
            "seed": config.seed,
        }
    device = device_of(config)
    given: dict[str, Any] = {
        "name": config.backend,
        "vocab_size": config.vocab_size,
        "seed": config.seed if config.backend == "sdvae" else None,
        "weights_sha256": config.weights_sha256,
        "decoder_sha256": config.decoder_sha256,
        "trained_with": config.trained_with or None,
        "options": config.options or None,
        "device": device,
        "precision": _precision(config, device),
        "compile": config.compile,
    }
    for key in FILES_OF_WEIGHTS:
        uri = getattr(config, key)
        if uri is not None:
            given[key] = _absolute(expand(uri, f"tokenizers.{config.name}.{key}"))
    return {key: value for key, value in given.items() if value is not None}


def _refuse_foreign_keys(config: TokenizerConfig) -> None:
    has = KEYS.get(config.backend, KEYS_OF_PLUG_INS)
    set_here = (f.name for f in fields(config) if f.name not in ("name", "backend") and not _is_default(config, f))
    foreign = next((key for key in set_here if key not in has), None)
    if foreign is not None:
        known = f"it has {', '.join(has)}" if has else "it has none"
        raise UsageError(
            f"tokenizers.{config.name}.{foreign}: backend {config.backend} has no such key ({known}); take it away"
        )


def _is_default(config: TokenizerConfig, key: Field[Any]) -> bool:
    return getattr(config, key.name) == (key.default if key.default_factory is MISSING else key.default_factory())


def device_of(config: TokenizerConfig) -> str:
    """cpu or cuda: `auto` is a GPU for a tokenizer with a network where this machine has one."""
    if config.device != "auto" or config.backend not in WITH_NETWORKS:
        return "cpu" if config.device == "auto" else config.device
    if not any(Path("/dev").glob("nvidia[0-9]*")):  # torch takes seconds to import
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def refuse_missing_gpu(name: str, device: str) -> None:
    """UsageError when a network is to run on a GPU of this machine, and torch finds none."""
    if name in WITH_NETWORKS and device.startswith("cuda"):
        import torch

        if not torch.cuda.is_available():
            raise UsageError(f"tokenizer {name}: device {device}, but torch finds no GPU here; use device: cpu")


def _precision(config: TokenizerConfig, device: str) -> str:
    if config.precision != "auto":
        return config.precision
    return "fp32" if device == "cpu" else "bf16"


def _absolute(uri: str) -> str:
    return uri if "://" in uri else str(Path(uri).absolute())


def has_weights(spec: dict[str, Any]) -> bool:
    """Whether a tokenizer can be made of its spec without fetching anything; True for those without networks."""
    if spec["name"] not in WITH_NETWORKS:
        return True
    kind = "dvae-encoder" if spec["name"] == "dvae" else spec["name"]
    uri, digest = spec.get("weights"), spec.get("weights_sha256")
    return is_here(kind, uri, digest) or (uri is not None and is_here(kind, f"{uri.rstrip('/')}/config.json", None))


def decoder_of(weights_sha256: str) -> tuple[str | None, str | None]:
    """The decoder (place, hash) that pipelines.yaml names beside the encoder with this hash; Nones without one."""
    pipelines = load()
    for name in (name for name, config in pipelines.tokenizers.items() if config.backend == "dvae"):
        try:
            spec = tokenizer_spec(pipelines.tokenizer(name))
        except UsageError:  # a variable that is not set here
            continue
        found = known(spec["weights"]) if "weights" in spec else None
        if weights_sha256 in (spec.get("weights_sha256"), found.sha256 if found else None):
            return spec.get("decoder"), spec.get("decoder_sha256")
    return None, None


def portable(uri: str) -> str:
    """How a dataset names weights: without secrets, and without folders of this machine."""
    if "://" not in uri:
        return Path(uri).name
    query = uri.partition("?")[2]
    return shown(uri) + (f"?{query}" if query and not SECRETS.search(query) else "")
