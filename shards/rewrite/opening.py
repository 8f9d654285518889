"""The snapshots that a command works on, and what a dataset made of them says of itself.

A command that goes on takes the snapshots that it began with, also where a dataset has grown since.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from toto.errors import UserError
from toto.shards.dataset import Dataset
from toto.shards.rewrite.inputs import Input
from toto.shards.rewrite.plan import read_plan
from toto.shards.rewrite.target import refuse_target
from toto.shards.store import open_store
from toto.uris import shown


@dataclass(frozen=True)
class Opened:
    """Snapshots, and remarks about them for the user."""

    inputs: list[Input]
    remarks: list[str]

    def tell(self, say: Callable[[str], None]) -> None:
        """Says the remarks."""
        for remark in self.remarks:
            say(remark)


def open_inputs(out: str, uris: Sequence[str], how: str) -> Opened:
    """Opens the last snapshots, or those that the target's plan names; UserError where one cannot be read."""
    refuse_target(out, uris)
    plan = read_plan(open_store(out))
    derived = plan.settings["derived"] if plan is not None else {}
    known = [source["dataset_id"] for source in derived.get("from", ())] if derived.get("how") == how else []
    inputs, remarks = [], []
    for i, uri in enumerate(uris):
        dataset = Dataset(uri)
        if i < len(known) and dataset.dataset_id != known[i]:
            try:
                older = Dataset(uri, id=known[i])
            except UserError:
                older = dataset  # the plan is of something else, and says so
            if older is not dataset:
                remarks.append(f"{uri} has a newer snapshot; {out} is made of {known[i][:12]}, as it was begun")
            dataset = older
        inputs.append(Input(dataset))
    return Opened(inputs, remarks)


def derived_settings(settings: dict[str, Any], how: str, inputs: Sequence[Input], **values: Any) -> dict[str, Any]:
    """Settings with `derived`: how, from which datasets (and how those were derived), with which values."""
    return {**settings, "derived": {"how": how, "from": [_origin(taken) for taken in inputs], **values}}


def places(inputs: Sequence[Input]) -> list[str]:
    """Where the snapshots lie, without secrets."""
    return [shown(taken.uri) for taken in inputs]


def canary_of(inputs: Sequence[Input]) -> dict[str, Any]:
    """How far the tokenizers of the snapshots' workers agreed, at the worst, in the form of a commit's `canary`."""
    told = [taken.dataset.info["made_by"] for taken in inputs]
    precisions = sorted({precision for one in told for precision in one.get("precisions", ())})
    worst = {"differs": max(one.get("canary_differs", 0.0) for one in told)}
    if not precisions:
        return worst
    return {**worst, "precision": ", ".join(precisions), "flips": max(one.get("flips", 0.0) for one in told)}


def _origin(taken: Input) -> dict[str, Any]:
    before = taken.dataset.info["settings"].get("derived")
    return {"dataset_id": taken.dataset.dataset_id, **({} if before is None else {"derived": before})}
