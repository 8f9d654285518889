"""Models: ids -> logits, losses and features. `make_model` builds the one that a configuration names."""

from toto.config import ModelConfig
from toto.train.models.gpt2 import GPT2
from toto.train.models.language_model import LanguageModel
from toto.train.models.llama import Llama
from toto.train.models.mamba import Mamba

ARCHITECTURES: dict[str, type[LanguageModel]] = {"llama": Llama, "gpt2": GPT2, "mamba": Mamba}  # Table 6

__all__ = ["ARCHITECTURES", "LanguageModel", "make_model"]


def make_model(
    config: ModelConfig, used_ids: int, seed: int | None = 0, checkpoint_blocks: bool = False
) -> LanguageModel:
    """The model of `config.arch`; weights are drawn from the seed, or left undefined where it is None."""
    return ARCHITECTURES[config.arch](config, used_ids, seed, checkpoint_blocks)
