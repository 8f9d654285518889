"""`vqgan`: VQGAN of taming-transformers (arXiv 2012.09841); entries vqgan-1k and vqgan-16k, codes of 16×16 pixels.

Its code is the nearest of a learnt codebook. Weights: the official Lightning checkpoint, or its tensors as
safetensors; `model_config` may name the yaml beside it, which is held against the tensors by whoever plans. The package
taming is not needed.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from toto import strict_yaml
from toto.errors import UsageError
from toto.tokenize.tokenizers.codebook import ProductCodebook
from toto.tokenize.tokenizers.identity import place, recorded
from toto.tokenize.tokenizers.net_tokenizer import NetTokenizer, refuse_other_size
from toto.tokenize.tokenizers.untrained import drawn
from toto.tokenize.weights import forgotten_if_wrong, local_path, obtain
from toto.tokenize.weights_convert import AUTOENCODER, WeightsFile, stored

CODES = "quantize.embedding.weight"


def make(spec: dict[str, Any], device: str = "cpu") -> "VQGAN":
    """The tokenizer of a spec; UserError when the weights are not there, or not those of the spec or of the yaml."""
    if spec.get("untrained"):
        return VQGAN(spec, drawn("vqgan", spec), device)
    weights = stored("vqgan", place(spec, "weights"), spec.get("weights_sha256"))
    if spec.get("model_config") and "id" not in spec:  # a dataset's weights were held against it when it was planned
        check_model_config(spec["model_config"], weights)
    return VQGAN(spec, weights, device)


class VQGAN(NetTokenizer):
    """The nearest code to each latent."""

    def __init__(self, spec: dict[str, Any], weights: WeightsFile, device: str) -> None:
        self._codebook_array = np.ascontiguousarray(weights.tensor(CODES), "<f4")
        refuse_other_size(spec, len(self._codebook_array))
        facts = {
            "name": "vqgan",
            "vocab_size": len(self._codebook_array),
            "patch": patch_of(weights),
            "weights_sha256": weights.sha256,
            "codebook_sha256": hashlib.sha256(self._codebook_array.tobytes()).hexdigest(),
        }
        super().__init__({**recorded(spec), **facts}, device)
        self._weights = weights
        self._codebook: Any = None

    def _load_encoder(self) -> Any:
        from toto.tokenize.tokenizers.autoencoder_arithmetic import TAMING
        from toto.tokenize.tokenizers.autoencoder_net import load_autoencoder_encoder

        return load_autoencoder_encoder(self._weights.tensors(*AUTOENCODER), TAMING)

    def _load_decoder(self) -> Any:
        from toto.tokenize.tokenizers.autoencoder_arithmetic import TAMING
        from toto.tokenize.tokenizers.autoencoder_net import load_autoencoder_decoder

        return load_autoencoder_decoder(self._weights.tensors(*AUTOENCODER), TAMING)

    def _codes(self, head: Any) -> np.ndarray:
        import torch

        codebook, (n, _, h, w) = self._codes_on(head.device), head.shape
        found = [codebook.nearest(latents.flatten(1).t().contiguous()) for latents in head]  # picture by picture
        return torch.stack(found).reshape(n, h, w).cpu().numpy()

    def _pixels(self, codes: Any) -> Any:
        return self._decoder(self._codes_on(codes.device).codes[codes].permute(0, 3, 1, 2))

    def _codes_on(self, device: Any) -> ProductCodebook:
        if self._codebook is None:
            import torch

            self._codebook = ProductCodebook(torch.from_numpy(self._codebook_array).to(device))
        return self._codebook


def patch_of(weights: WeightsFile) -> int:
    """Pixels of a side that become one code: each level but the last halves."""
    levels = 0
    while f"encoder.down.{levels}.block.0.conv1.weight" in weights.shapes:
        levels += 1
    return 2 ** (levels - 1)


def check_model_config(uri: str, weights: WeightsFile) -> None:
    """UsageError when taming's yaml describes another model than the tensors, or a kind that is not taken."""
    path = local_path(uri)
    with forgotten_if_wrong(uri):
        _check_model(path if path is not None and path.is_file() else obtain(uri).path, weights)


def _check_model(path: Path, weights: WeightsFile) -> None:
    model = (strict_yaml.load_file(path) or {}).get("model") or {}
    target, params = str(model.get("target", "")), model.get("params") or {}
    if not target.endswith(".VQModel"):
        raise UsageError(f"{path}: model.target is {target[:80]!r}; only taming's VQModel is taken")
    if params.get("remap"):
        raise UsageError(f"{path}: model.params.remap: only models that use their whole codebook are taken")
    described = {"n_embed": params.get("n_embed"), "embed_dim": params.get("embed_dim")}
    held = dict(zip(("n_embed", "embed_dim"), weights.shapes[CODES], strict=True))
    for key, value in held.items():
        if described[key] != value:
            raise UsageError(f"{path}: model.params.{key} is {described[key]}, the checkpoint has {value}")
