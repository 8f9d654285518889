"""Where a run is in an endless stream: the sequences `consumed` … `total` - 1, by number, and a state to save."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from toto.errors import UsageError, UserError
from toto.plain import counted


class Position:
    """A part of the stream of one recipe, with `len()`. State is {"consumed", "recipe"}."""

    def __init__(self, recipe_id: str, total: int, consumed: int = 0) -> None:
        if not 0 <= consumed <= total:
            raise UsageError(f"{consumed} of {counted(total, 'sequence')} consumed")
        self._recipe_id, self.total, self.consumed = recipe_id, total, consumed

    def __len__(self) -> int:
        return self.total - self.consumed

    def numbers(self, wanted: Sequence[int]) -> np.ndarray:
        """int64: the numbers in the stream of these of its sequences; IndexError where there is none."""
        for i in wanted:
            if not -len(self) <= i < len(self):
                raise IndexError(f"sequence {i} of {len(self)}")
        return np.array([self.consumed + i % len(self) for i in wanted], np.int64)

    def state_dict(self, done: int = 0) -> dict[str, Any]:
        """Where a run is that took `done` sequences. Loaders that count what they took
        themselves, as StatefulDataLoader and the Trainer do, need it without."""
        return {"consumed": self.consumed + done, "recipe": self._recipe_id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on there; UserError when the state is of another recipe."""
        if state.get("recipe") != self._recipe_id:
            raise UserError(
                f"this state is of recipe {state.get('recipe')}, the stream's is {self._recipe_id}: "
                "other datasets, weights, windows or seed; go on with the recipe.json of that run"
            )
        consumed = state.get("consumed")
        if not isinstance(consumed, int) or not 0 <= consumed <= self.total:
            raise UserError(f"this state has consumed {consumed} sequences; the run has {self.total}")
        self.consumed = consumed
