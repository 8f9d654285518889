"""How equal an exported folder and the checkpoint are: logits of the same ids, and what each goes on with greedily."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toto.errors import UserError
from toto.shards.ids import CODE_OFFSET, VIDEO_START
from toto.train.load import Loaded
from toto.train.models.decoder import Decoder

LOGIT_LIMIT = 1e-3  # fp32: sums in another order; checked with the same fp32 weights on both sides
NEAR_TIE = 2 * LOGIT_LIMIT  # between the two highest logits: rounding decides
MOST_IDS = 1024  # that are compared
ROWS = 2


@dataclass(frozen=True)
class Parity:
    """What was compared and found, in fp32."""

    transformers: str  # its version
    ids: int  # of each of the compared sequences
    max_logit_difference: float
    logit_spread: float  # standard deviation of our logits: what the difference has to be seen against
    greedy_tokens: int  # made by both, up to a near-tie: what comes after it says nothing
    greedy_equal: int  # of these, up to the first difference

    @property
    def holds(self) -> bool:
        """Whether nothing but rounding tells the two apart."""
        return self.max_logit_difference <= LOGIT_LIMIT and self.greedy_equal == self.greedy_tokens

    def value(self) -> dict[str, Any]:
        """For report.json."""
        return {**asdict(self), "holds": self.holds}


def check_parity(loaded: Loaded, folder: Path, greedy_tokens: int = 64) -> Parity:
    """Loads the folder with transformers and compares; UserError when transformers cannot be imported or read it."""
    ids = _prompts(loaded, min(loaded.context, MOST_IDS))
    begin = ids[:1, : max(2, min(ids.shape[1] // 2, loaded.context - greedy_tokens))]
    made = min(greedy_tokens, loaded.context + 1 - begin.shape[1])
    with _silent():
        theirs = _their_model(folder)
        with torch.inference_mode():
            ours, other = loaded.model(ids), theirs(ids).logits
        equal, compared = _greedy(loaded, theirs, begin, made)
    return Parity(
        transformers=_transformers().__version__,
        ids=ids.shape[1],
        max_logit_difference=float((ours - other).abs().max()),
        logit_spread=float(ours.std()),
        greedy_tokens=compared,
        greedy_equal=equal,
    )


def _greedy(loaded: Loaded, theirs: Any, begin: Tensor, tokens: int) -> tuple[int, int]:
    """How many ids both go on with, of how many that were compared: a difference at a near-tie ends the comparison."""
    found = theirs.generate(
        begin,
        attention_mask=torch.ones_like(begin),
        max_new_tokens=tokens,
        do_sample=False,
        eos_token_id=None,
        suppress_tokens=None,
    )[0, begin.shape[1] :]
    decoder = Decoder(loaded.model, 1, begin.shape[1] + tokens)
    logits = decoder.feed(begin)
    for i in range(tokens):
        first, second = logits[0].topk(2)[0].tolist()
        if int(logits[0].argmax()) != int(found[i]):
            return i, i if first - second < NEAR_TIE else tokens
        logits = decoder.feed(found[i].view(1, 1))
    return tokens, tokens


def _prompts(loaded: Loaded, length: int) -> Tensor:
    """int64 [ROWS, length]: the start id of videos, then codes of a fixed seed."""
    drawn = torch.Generator().manual_seed(0)
    ids = torch.randint(CODE_OFFSET, loaded.used_ids, (ROWS, length), generator=drawn)
    ids[:, 0] = VIDEO_START
    return ids


@contextmanager
def _silent() -> Iterator[None]:
    """transformers says nothing but errors: of Mamba it tells in four lines which kernels it lacks."""
    logging = _transformers().logging
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _their_model(folder: Path) -> Any:
    transformers = _transformers()
    try:
        made = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    except (ValueError, OSError, RuntimeError, TypeError) as error:
        raise UserError(f"transformers {transformers.__version__} cannot read {folder}: {error}") from None
    return made.eval()


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise UserError(
            "transformers is not installed, so the export cannot be checked: pip install 'transformers>=4.57', or "
            "--no-check to leave it unchecked"
        ) from None
    return transformers
