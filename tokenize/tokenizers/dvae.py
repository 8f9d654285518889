"""`dvae`: the discrete VAE of DALL·E, 8,192 codes of 8×8 pixels; the tokenizer of the paper (§3.4).

Its code is the largest of the encoder's logits. Weights: OpenAI's encoder.pkl (and decoder.pkl for pictures back), a
state dict of it, or either as safetensors. The package dall_e is not needed.
"""

from typing import Any

import numpy as np

from toto.errors import UsageError
from toto.tokenize.tokenizer_spec import decoder_of
from toto.tokenize.tokenizers.identity import place, recorded
from toto.tokenize.tokenizers.net_tokenizer import NetTokenizer, refuse_other_size
from toto.tokenize.tokenizers.untrained import drawn
from toto.tokenize.weights_convert import WeightsFile, is_here, stored

PATCH = 8


def make(spec: dict[str, Any], device: str = "cpu") -> "DVAE":
    """The tokenizer of a spec; UserError when the weights are not there or not those of the spec."""
    if spec.get("untrained"):
        return DVAE(spec, drawn("dvae-encoder", spec), device)
    weights = stored("dvae-encoder", place(spec, "weights"), spec.get("weights_sha256"))
    if "id" not in spec:
        spec = spec | _decoder_facts(spec)
    return DVAE(spec, weights, device)


def _decoder_facts(spec: dict[str, Any]) -> dict[str, Any]:
    """The decoder's hash, for whoever wants pictures elsewhere; nothing when it is not here, for codes need none."""
    uri, digest = spec.get("decoder"), spec.get("decoder_sha256")
    if uri is None or not is_here("dvae-decoder", uri, digest):
        return {}
    return {"decoder_sha256": stored("dvae-decoder", uri, digest).sha256}


class DVAE(NetTokenizer):
    """Argmax over the logits of DALL·E's encoder."""

    def __init__(self, spec: dict[str, Any], weights: WeightsFile, device: str) -> None:
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

        uri, digest = place(self.spec, "decoder"), self.spec.get("decoder_sha256")
        if uri is None and digest is None:
            uri, digest = decoder_of(self.spec["weights_sha256"])
        if uri is None and digest is None:
            raise UsageError(
                "tokenizer dvae: its decoder is not known here; name it (OpenAI's decoder.pkl) as decoder of the "
                "tokenizer's entry in pipelines.yaml, beside the encoder of these codes"
            )
        weights = stored("dvae-decoder", uri, digest)
        return load_dvae_decoder(weights.tensors("blocks."))

    def _codes(self, head: Any) -> np.ndarray:
        from toto.tokenize.tokenizers.dvae_trunk import best_codes

        return best_codes(head).cpu().numpy()

    def _pixels(self, codes: Any) -> Any:
        return self._decoder(codes)
