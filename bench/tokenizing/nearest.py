"""Vectors per second of the codebooks' exact look-up on one core, against torch.cdist and argmin on the same core."""

import time

import click
import numpy as np
import torch
from sides import Line, compare

from toto.tokenize.tokenizers.codebook import ProductCodebook, TreeCodebook, gaussian_codes

PICTURES = 4


def measure(repeats: int) -> list[Line]:
    """SD-VAE's 32,768 codes of 4 dimensions (1,024 vectors a picture) and VQGAN's 16,384 of 256 (256 a picture)."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            return [
                _compared("32,768 codes of 4 dimensions (SD-VAE)", 32_768, 4, PICTURES * 1024, 20, repeats),
                _compared("16,384 codes of 256 dimensions (VQGAN)", 16_384, 256, PICTURES * 256, None, repeats),
            ]
    finally:
        torch.set_num_threads(before)


def _compared(what: str, codes: int, dimensions: int, count: int, bar: float | None, repeats: int) -> Line:
    table = torch.from_numpy(gaussian_codes(codes, dimensions, 0)).float()
    vectors = torch.from_numpy(np.random.RandomState(1).standard_normal((count, dimensions))).float()
    ours = _tree(table) if dimensions < 16 else ProductCodebook(table).nearest
    exact = torch.cdist(vectors.double(), table.double()).argmin(1)
    for name, found in (("ours", ours(vectors)), ("cdist", torch.cdist(vectors, table).argmin(1))):
        click.echo(f"  {name}: {(found != exact).sum()} of {count:,} are not the nearest in float64")

    def rate(search) -> float:
        started = time.perf_counter()
        search(vectors)
        return count / (time.perf_counter() - started)

    what = f"nearest of {what}, one core, against cdist and argmin"
    return compare(
        what, "vectors/s", lambda: rate(ours), lambda: rate(lambda v: torch.cdist(v, table).argmin(1)), bar, repeats
    )


def _tree(table: torch.Tensor):
    book = TreeCodebook(table.numpy())
    return lambda vectors: torch.from_numpy(book.nearest(vectors.numpy()))
