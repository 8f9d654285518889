"""`dvae`: the discrete VAE of DALL·E, 8,192 codes of 8×8 pixels; the tokenizer of the paper (§3.4).

Its code is the largest of the encoder's logits. Weights: OpenAI's encoder.pkl (and decoder.pkl for pictures back), a
state dict of it, or either as safetensors. The package dall_e is not needed.
"""

from typing import Any

import numpy as np

from toto.errors import UsageError
from toto.tokenize.tokenizers.identity import recorded
from toto.tokenize.tokenizers.net_tokenizer import NetTokenizer, refuse_other_size
from toto.tokenize.weights_convert import Stored, stored

PATCH = 8


def make(spec: dict[str, Any], device: str = "cpu") -> "DVAE":
    """The tokenizer of a spec; UserError when the weights are not there or not those of the spec."""
    weights = stored("dvae-encoder", spec.get("weights"), spec.get("weights_sha256"))
    return DVAE(spec, weights, device)


class DVAE(NetTokenizer):
    """Argmax over the logits of DALL·E's encoder."""

    def __init__(self, spec: dict[str, Any], weights: Stored, device: str) -> None:
        vocab_size = weights.shapes["blocks.output.conv.weight"][0]
        refuse_other_size(spec, vocab_size)
        facts = {"name": "dvae", "vocab_size": vocab_size, "patch": PATCH, "weights_sha256": weights.sha256}
        super().__init__({**recorded(spec), **facts}, device)
        self._weights = weights

    def _load_encoder(self) -> Any:
        from toto.tokenize.tokenizers.dvae_net import load_dvae_encoder

        return load_dvae_encoder(self._weights.tensors("blocks."))

    def _load_decoder(self) -> Any:
        from toto.tokenize.tokenizers.dvae_net import load_dvae_decoder

        if "decoder" not in self.spec and "decoder_sha256" not in self.spec:
            raise UsageError("tokenizer dvae: no decoder is named; set decoder (OpenAI's decoder.pkl) in its entry")
        weights = stored("dvae-decoder", self.spec.get("decoder"), self.spec.get("decoder_sha256"))
        return load_dvae_decoder(weights.tensors("blocks."))

    def _codes(self, head: Any) -> np.ndarray:
        from toto.tokenize.tokenizers.dvae_trunk import best_codes

        return best_codes(head).cpu().numpy()

    def _pixels(self, codes: Any) -> Any:
        return self._decoder(codes)
