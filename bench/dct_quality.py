"""How well the embedded tokenizer draws photographs, and the spread of its coefficients on them.

    python bench/dct_quality.py FOLDER [--json]      FOLDER holds photographs, however nested

The spread is what LUMA_STD and CHROMA_STD in tokenize/tokenizers/dct.py were rounded from.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != HERE]  # which would hide Python's tokenize

import json  # noqa: E402

import click  # noqa: E402
import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from toto.tokenize.tokenizers.dct import CHROMA_STD, DCT, LUMA_ORDER, LUMA_STD  # noqa: E402

SIDE = 128


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), required=False)
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def main(folder: Path | None, as_json: bool) -> None:
    """Prints spread and PSNR for 512 and 8,192 codes."""
    pictures = np.stack(photographs(folder)) if folder else None
    if pictures is None:
        click.echo("dct_quality: give it a folder of photographs: python bench/dct_quality.py FOLDER")
        return
    tokenizer = DCT(8, len(LUMA_ORDER))
    patches = pictures.reshape(-1, 3, SIDE // 8, 8, SIDE // 8, 8).transpose(0, 2, 4, 3, 5, 1).reshape(-1, 192)
    spread = ((patches.astype(float) - 128) @ tokenizer._basis).std(0)
    click.echo(f"{len(pictures)} photographs at {SIDE} px")
    for name, found, used in zip([*map(str, LUMA_ORDER), "Cb", "Cr"], spread, [*LUMA_STD, *CHROMA_STD], strict=True):
        click.echo(f"  coefficient {name:<8} spread {found:7.1f}   in the code {used:7.1f}")
    lines = [measure(pictures, size, luma) for size in (512, 8192) for luma in (1, 3, 6)]
    for line in lines:
        click.echo(f"  {line['what']:<40} {line['ours']:.2f} dB")
    if as_json:
        click.echo(json.dumps(lines))


def photographs(folder: Path) -> list[np.ndarray]:
    """Centre squares, uint8 [3, 128, 128]."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            image = Image.open(path).convert("RGB")
        except (OSError, ValueError):
            continue
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        found.append(np.asarray(square).transpose(2, 0, 1))
    if not found:
        raise click.UsageError(f"no photographs in {folder}")
    return found


def measure(pictures: np.ndarray, vocab_size: int, luma: int) -> dict:
    """Mean PSNR of decode(encode(picture))."""
    tokenizer = DCT(vocab_size, luma)
    decoded = np.concatenate([tokenizer.decode(tokenizer.encode(p[None])) for p in pictures])
    mse = ((decoded.astype(float) - pictures) ** 2).mean((1, 2, 3))
    psnr = float(np.mean(10 * np.log10(255**2 / mse)))
    what = f"{vocab_size:,} codes, {luma} luma coefficients"
    return {"what": what, "ours": psnr, "peer": None, "unit": "dB", "ratio": None, "bar": None}


if __name__ == "__main__":
    main()
