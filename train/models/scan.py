"""The selective scan of Mamba in plain torch: h_t = exp(delta_t A) h_{t-1} + delta_t B_t x_t, y_t = C_t h_t + D x_t.

    positions in chunks ─ within one: doubling steps (h over 1, 2, 4 … positions) ─▶ y, last h ─▶ the next chunk

A chunk is computed again in the backward pass: what is kept is its input and the state before it, not a state for each
position. Everything is fp32. Source: Gu and Dao, "Mamba" (arXiv 2312.00752), sections 3.2 and 3.3; doubling steps:
Hillis and Steele, 1986.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK = 32  # positions: 5 doublings; longer ones do more work, shorter ones take more steps of Python


def selective_scan(
    x_BTI: Tensor, delta_BTI: Tensor, A_IN: Tensor, B_BTN: Tensor, C_BTN: Tensor, D_I: Tensor, state_BIN: Tensor
) -> tuple[Tensor, Tensor]:
    """y fp32 [B, T, I] and the state fp32 [B, I, N] after the last position; `state_BIN` is the one before the first.

    I inner channels, N states of each; `delta` is positive, `A` negative.
    """
    parts = []
    for start in range(0, x_BTI.shape[1], CHUNK):
        x, delta, B, C = (t[:, start : start + CHUNK].float() for t in (x_BTI, delta_BTI, B_BTN, C_BTN))
        inputs = (x, delta, B, C, A_IN, state_BIN)
        if torch.is_grad_enabled():
            y, state_BIN = checkpoint(_scan_chunk, *inputs, use_reentrant=False, preserve_rng_state=False)
        else:
            y, state_BIN = _scan_chunk(*inputs)
        parts.append(y)
    return torch.cat(parts, dim=1) + D_I * x_BTI.float(), state_BIN


def _scan_chunk(
    x_BLI: Tensor, delta_BLI: Tensor, B_BLN: Tensor, C_BLN: Tensor, A_IN: Tensor, state_BIN: Tensor
) -> tuple[Tensor, Tensor]:
    decay = torch.exp(delta_BLI[..., None] * A_IN)  # [B, L, I, N]: of the state from the position before
    state = (delta_BLI * x_BLI)[..., None] * B_BLN[:, :, None, :]
    reach = 1
    while reach < x_BLI.shape[1]:  # after each turn `state` holds the sum over twice as many positions
        state = state + decay * _back(state, reach, 0.0)
        decay = decay * _back(decay, reach, 1.0)
        reach *= 2
    state = state + decay * state_BIN[:, None]
    return (state * C_BLN[:, :, None]).sum(-1), state[:, -1].clone()  # a view would keep the whole chunk


def _back(values_BLIN: Tensor, positions: int, before: float) -> Tensor:
    """What stood so many positions earlier; `before` where there was none."""
    return F.pad(values_BLIN[:, :-positions], (0, 0, 0, 0, positions, 0), value=before)
