"""What follows from a job, told before the long work begins: sizes, tokens, epochs, bytes."""

import torch

from toto.plain import counted
from toto.shards.stream import Stream
from toto.train.checkpoint import found
from toto.train.cost import Cost
from toto.train.loop import Job, micro_sequences
from toto.train.parallel import Team
from toto.train.watch.progress import amount

CPU_TOKENS = 10**9  # a day or more for any model here


def summary_of(job: Job, team: Team) -> str:
    """A few lines for the person who starts a run."""
    recipe, facts = job.recipe, job.facts
    cost = Cost(job.model, facts["used_ids"], facts["context"])
    per_step = job.stream.batch_sequences * facts["context"]
    there = found(job.folder)
    begins = f"goes on after {job.place}/{there[-1].name}" if there else "starts anew"
    memory = cost.memory(1)
    height, width = facts["grid"]
    lines = [
        f"model     {job.model.name}: {cost.parameters:,} parameters, {facts['used_ids']:,} ids, context "
        f"{facts['context']:,} = {counted(recipe.frames, 'frame')} of {height}×{width} by {facts['tokenizer']['name']}",
        *_data_lines(job),
        f"steps     {recipe.steps:,} of {counted(job.stream.batch_sequences, 'sequence')} = {per_step:,} tokens: "
        f"{amount(recipe.steps * per_step)} tokens in all",
        f"compute   {amount(cost.training_flops_per_token)} FLOPs a token by causal attention, which MFU counts; "
        f"{amount(cost.palm_training_flops_per_token)} FLOPs by the whole square, as PaLM (12·L·d·T)",
        f"machine   {team.world} × {team.device}, {recipe.precision}, micro-batches of {micro_sequences(job, team)}"
        + (f", {counted(torch.get_num_threads(), 'thread')}" if team.device.type == "cpu" else ""),
        f"run       {job.place} {begins}; a checkpoint of {amount(memory.weights + memory.moments)}B every "
        + counted(recipe.checkpoint_every, "step"),
    ]
    if team.device.type == "cpu" and recipe.steps * per_step > CPU_TOKENS:
        lines.append("note      a CPU needs very long for that; --recipe demo, or fewer steps by --set, is for a try")
    return "\n".join(lines)


def _data_lines(job: Job) -> list[str]:
    stream = Stream(job.stream)
    epochs = stream.epochs(job.recipe.steps * job.stream.batch_sequences)
    lines = [
        f"data      {name}: {counted(count, 'sequence')} an epoch, {epochs[name]:.1f} epochs"
        for name, count in stream.sequences_per_epoch().items()
    ]
    if job.validation is None:
        held_out = "none: no dataset has a split `val`, or validate_every is 0"
    else:
        names = ", ".join(part.name for part in job.validation.parts)
        held_out = f"{names}, every {counted(job.recipe.validate_every, 'step')}"
    return [*lines, f"held-out  {held_out}"]
