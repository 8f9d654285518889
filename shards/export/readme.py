"""The README.md of an export: where it comes from, what lies in it, how its library reads it.

Its front matter is what `datasets.load_dataset` needs to find the files of each split.
"""

import json
from typing import Any

from toto.plain import counted
from toto.shards.export.hub import hub_split

READING = {
    "webdataset": """import webdataset as wds

pieces = wds.WebDataset({first!r}, shardshuffle=False).decode()
piece = next(iter(pieces))
print(piece["{array}.npy"].shape, piece["json"]["source"])""",
    "hf": """from datasets import load_dataset

pieces = load_dataset("path/of/this/folder", split={split!r})
pieces = pieces.with_format("numpy", columns=["{array}"], dtype="{dtype}", output_all_columns=True)
print(pieces[0]["{array}"].shape, pieces[0]["source"])""",
    "litdata": """from litdata import StreamingDataset

pieces = StreamingDataset({first!r}, shuffle=True)
print(pieces[0]["{array}"].shape, pieces[0]["source"])""",
    "npy": """import numpy as np
import pyarrow.parquet as pq

{array} = np.load({first!r}, mmap_mode="r")
pieces = pq.read_table({table!r})
print({array}.shape, pieces["source"][0])""",
    "bin": """import numpy as np
import pyarrow.parquet as pq

{array} = np.memmap({first!r}, dtype="{dtype}", mode="r")
pieces = pq.read_table({table!r})
print({array}.shape, pieces["source"][0])""",
}
FIRST = {"webdataset": "{}-000000.tar", "hf": "", "litdata": "{}", "npy": "{}.npy", "bin": "{}.bin"}


def readme(facts: dict[str, Any]) -> str:
    """Markdown with Hub front matter."""
    pieces = "whole rows" if facts["frames"] is None else f"windows of {counted(facts['frames'], 'frame')}"
    ids = "[start] + codes + [end]" if facts["array"] == "ids" else "codes [frames, height, width], frame after frame"
    layout = facts["id_layout"]
    lines = [
        _front_matter(facts),
        f"# {facts['dataset']}: {pieces} as {facts['array']}\n",
        f"Exported by `toto-shards export` from the token dataset `{facts['dataset_id']}`. Each piece is {ids}, "
        f"{facts['dtype']}, with the source, the frame numbers, the times and the crop that it shows.\n",
        "| split | pieces |\n|---|---:|",
        *(f"| {split} | {count:,} |" for split, count in facts["pieces"].items()),
        f"\nTokenizer: `{facts['tokenizer']['name']}`, {facts['tokenizer']['vocab_size']:,} codes, id "
        f"`{facts['tokenizer']['id']}`. Ids: {layout['pad']} pad, {layout['video_start']} video start, "
        f"{layout['end']} end, {layout['image_start']} image start, code c is {layout['code_offset']} + c."
        + (" This export holds codes, not ids." if facts["array"] == "codes" else "")
        + "\n",
        f"```python\n{_reading(facts)}\n```",
    ]
    return "\n".join(lines) + "\n"


def _front_matter(facts: dict[str, Any]) -> str:
    lines = ["---", f"pretty_name: {json.dumps(facts['dataset'])}", "license: other"]
    if facts["to"] == "hf":
        lines += ["configs:", "- config_name: default", "  data_files:"]
        for split in facts["pieces"]:
            name = hub_split(split)
            lines += [f"  - split: {name}", f"    path: data/{name}-*.parquet"]
    return "\n".join([*lines, "tags:", "- video", "- tokens", "- toto", "---\n"])


def _reading(facts: dict[str, Any]) -> str:
    split = next(iter(facts["pieces"]))
    shown = hub_split(split) if facts["to"] == "hf" else split
    return READING[facts["to"]].format(
        array=facts["array"],
        dtype=facts["dtype"],
        split=shown,
        first=FIRST[facts["to"]].format(split),
        table=f"{split}.pieces.parquet",
    )
