"""What GPUs can do at best, from NVIDIA's data sheets (SXM where a card has several forms)."""

from toto.errors import UsageError

PEAK_BF16 = {  # dense FLOP/s
    "B200": 2.25e15,
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
}
BANDWIDTH = {  # of the memory, bytes/s; A100 with 80 GB
    "B200": 8e12,
    "H200": 4.8e12,
    "H100": 3.35e12,
    "A100": 2.039e12,
    "L40S": 864e9,
    "L4": 300e9,
    "A10": 600e9,
}


def peak_bf16(card: str) -> float:
    """FLOP/s of a card; UsageError for one that is not in the table."""
    if card not in PEAK_BF16:
        raise UsageError(f"--gpu {card}: not in the table of peaks; known: {', '.join(PEAK_BF16)}")
    return PEAK_BF16[card]


def bandwidth(card: str) -> float:
    """Bytes/s of a card of the table."""
    peak_bf16(card)
    return BANDWIDTH[card]
