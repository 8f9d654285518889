"""The card of an exported model: README.md with the Hub's front matter."""

from typing import Any

from toto.train.cost import Cost
from toto.train.export.parity import Parity
from toto.train.load import Loaded

CARD = """---
library_name: transformers
pipeline_tag: other
tags:
- toto
- video
- autoregressive
- {arch}
---

# {name}: an autoregressive model of visual tokens

{parameters:,} parameters, {layers} layers of width {dim} (`{arch}`), {step:,} training steps. It predicts the next of
{codes:,} codes of the tokenizer `{tokenizer}` (id `{tokenizer_id}`), frame after frame in raster order: {frames} frames
of {height}×{width} codes, {context:,} in all.

Pictures need that tokenizer: `toto.json` holds what made the codes (key `tokenizer`), and `toto.tokenizers.load` turns
it into one. Code c is id c + 4; a sequence begins with id 1 (video) or 3 (images). The end id 2 {end}.

```python
import torch
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained(".")
start = torch.tensor([[1]])  # a video from nothing
ids = model.generate(start, do_sample=True, max_new_tokens={cells}, eos_token_id=None, suppress_tokens=[0, 1, 2, 3])
codes = ids[0, 1:].reshape(1, {height}, {width}) - 4  # its first frame
```

Trained by toto on {sources}. Checkpoint `{checkpoint}`. {checked}
"""


def card(loaded: Loaded, facts: dict[str, Any], parity: Parity | None) -> str:
    """The text of README.md."""
    height, width = loaded.grid
    parts = sorted({part["name"].split(":")[0] for part in loaded.recipe["parts"]})
    checked = "It was not compared with the checkpoint."
    if parity is not None:
        checked = (
            f"Its logits differ from the checkpoint's by at most {parity.max_logit_difference:.1e} (fp32, "
            f"{parity.ids:,} ids, transformers {parity.transformers}); {parity.greedy_tokens} greedy tokens are equal."
        )
    return CARD.format(
        arch=loaded.config.arch,
        name=loaded.config.name,
        parameters=Cost(loaded.config, loaded.used_ids, loaded.context).parameters,
        layers=loaded.config.layers,
        dim=loaded.config.dim,
        step=loaded.step,
        codes=facts["tokenizer"]["vocab_size"],
        tokenizer=facts["tokenizer"]["name"],
        tokenizer_id=facts["tokenizer"]["id"],
        frames=loaded.frames,
        height=height,
        width=width,
        cells=height * width,
        context=loaded.context,
        end="stands after the last code of a sequence; whether the model learned it depends on `predict_end`",
        sources=", ".join(parts),
        checkpoint=facts["checkpoint"],
        checked=checked,
    )
