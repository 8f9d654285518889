"""What GPUs can do at best: dense bf16 FLOP/s from NVIDIA's data sheets (SXM where a card has several forms)."""

from toto.errors import UsageError

PEAK_BF16 = {
    "B200": 2.25e15,
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
}


def peak_bf16(card: str) -> float:
    """FLOP/s of a card; UsageError for one that is not in the table."""
    if card not in PEAK_BF16:
        raise UsageError(f"--gpu {card}: not in the table of peaks; known: {', '.join(PEAK_BF16)}")
    return PEAK_BF16[card]
