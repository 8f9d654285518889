"""Networks of the official sizes with random weights: to plan with before anybody's weights are here.

They take as long and as much arithmetic as the official ones; their codes mean nothing, and no run uses them.
Sizes: DALL·E's encoder (arXiv 2102.12092), taming's vqgan_imagenet_f16, Stable Diffusion's VAE.
"""

from dataclasses import dataclass
from typing import Any

from toto.lazy import cached_property

VOCABULARIES = {"dvae-encoder": 8192, "vqgan": 16_384}


@dataclass(frozen=True)
class Drawn:
    """Stands for a file of weights (weights_convert.Stored)."""

    kind: str
    vocab_size: int
    sha256: str = "untrained"

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of all tensors."""
        return {name: tuple(tensor.shape) for name, tensor in self._state.items()}

    def tensor(self, name: str) -> Any:
        """One tensor as float32 array."""
        return self._state[name].numpy()

    def tensors(self, *prefixes: str) -> dict[str, Any]:
        """The torch tensors of these prefixes."""
        return {name: tensor for name, tensor in self._state.items() if name.startswith(prefixes)}

    @cached_property
    def _state(self) -> dict[str, Any]:
        import torch

        from toto.tokenize.tokenizers.autoencoder_net import AutoencoderEncoder, AutoencoderSize
        from toto.tokenize.tokenizers.dvae_net import DVAEEncoder, DVAESize

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            if self.kind == "dvae-encoder":
                return DVAEEncoder(DVAESize(vocab_size=self.vocab_size)).state_dict()
            if self.kind == "vqgan":
                size = AutoencoderSize(128, (128, 128, 256, 256, 512), 2, frozenset({4}), 256, 256, 256)
            else:
                size = AutoencoderSize(128, (128, 256, 512, 512), 2, frozenset(), 8, 4, 4)
            state = dict(AutoencoderEncoder(size).state_dict())
            state["post_quant_conv.weight"] = torch.zeros(size.latent, size.code, 1, 1)
            if self.kind == "vqgan":
                state["quantize.embedding.weight"] = torch.randn(self.vocab_size, size.code)
            return state


def drawn(kind: str, spec: dict[str, Any]) -> Drawn:
    """Random weights for a spec: of its vocabulary, else of the official one."""
    return Drawn(kind, int(spec.get("vocab_size") or VOCABULARIES.get(kind, 0)))
