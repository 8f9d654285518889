"""What may change when a run goes on, and what runs of older versions did without saying so.

run.json or checkpoint.json, of any version ─▶ as this version would have written it ─▶ compared with what is asked
"""

from typing import Any

# These decide neither the data nor, but for rounding and skipped steps, the weights.
FREE = (
    "spike_sigmas",
    "micro_sequences",
    "compile",
    "sharding",
    "recompute",
    "loader_workers",
    "log_every",
    "validate_every",
    "validation_sequences",
    "sample_every",
    "checkpoint_every",
    "checkpoint_async",
    "keep_checkpoints",
    "keep_every",
    "wandb",
)
# Why a key that is often asked otherwise may not change.
WHY = {"steps": "the learning rate follows from it, so a run gets neither longer nor shorter; --stop-at ends it early"}
# Keys that were not there from the first version on, and what was done before they were.
BEFORE = {"arch": "llama", "schedule": "cosine", "hop": None}
BESIDE = ("expand", "states", "conv_window", "decay_share")  # as new; these have no part in what was done before


def as_now(said: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """A section that any version wrote, model or recipe, as this one writes it; without what may change."""
    unsaid = {key: BEFORE.get(key, value) for key, value in wanted.items() if key in (*BEFORE, *BESIDE)}
    return {key: value for key, value in {**unsaid, **said}.items() if key not in FREE}


def differing(said: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """The facts of a checkpoint in which it is not of the run that is wanted.

    The stream is told by its id; `recipe` holds places too, which may change.
    """
    found = []
    for key, value in wanted.items():
        there = said.get(key)
        if key in ("model", "training") and isinstance(there, dict):
            there = as_now(there, value)
        if key != "recipe" and there != value:
            found.append(key)
    return found
