"""The training loop, read top to bottom: batch, forward, backward, step, log, validate, save.

    Job (what to train on what, for how long) + a team of processes ─▶ checkpoints and a log in the run's folder

Where a run stands is one number, the steps that are done; with the recipe it gives the next batch. Losses are sums over
the tokens of all processes divided by their number, so that they do not depend on how a batch was cut up.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import nn

from toto.config import ModelConfig, RecipeConfig
from toto.errors import UserError
from toto.shards.recipe import Recipe
from toto.shards.stream import Stream
from toto.train import checkpoint
from toto.train.changes import differing
from toto.train.checkpoint.mirror import Mirror
from toto.train.checkpoint.saver import FAILED, Saver
from toto.train.cost import Cost, memory_of
from toto.train.data import MicroBatch, loader, reading
from toto.train.hardware import autocast, memory_bytes, peak_flops
from toto.train.models import LanguageModel, make_model
from toto.train.optimizer import learning_rate, make_optimizer, set_learning_rate
from toto.train.parallel import Team, whole, without_averaging
from toto.train.position_loss import PositionLoss, position_loss
from toto.train.spikes import FOLDER as SPIKES
from toto.train.spikes import SpikeGuard, guard_of, write_spike
from toto.train.stopping import Stopping, stop
from toto.train.watch.log import RunLog
from toto.train.watch.profiler import Profiler
from toto.train.watch.samples import Samples
from toto.train.watch.sinks import open_sinks
from toto.train.watch.values import Done, StepSums, Yardstick

CPU_MICRO_TOKENS = 8192  # of one forward pass on a CPU: larger ones gain nothing there


@dataclass(frozen=True)
class Job:
    """All that decides a run."""

    folder: Path
    model: ModelConfig
    recipe: RecipeConfig
    stream: Recipe  # the sequences to train on
    validation: Recipe | None  # held-out sequences; None where the datasets have none
    facts: dict[str, Any]  # what every checkpoint says of itself
    stop_at: int | None = None  # the step after which this run pauses
    mirror: Mirror | None = None  # where the run is kept; None: in its folder

    @property
    def last(self) -> int:
        """The number of steps after which this call is done."""
        return min(self.recipe.steps, self.stop_at or self.recipe.steps)

    @property
    def place(self) -> str:
        """Where the run is kept: a folder or a URI."""
        return self.mirror.store.uri if self.mirror else str(self.folder)

    def checkpoint(self, step: int) -> str:
        """Where the checkpoint after so many steps is, or will be."""
        return f"{self.place}/{checkpoint.name_of(step)}"


def train(job: Job, team: Team, profile: int = 0) -> Done:
    """Trains from the newest checkpoint of the run's folder (or from the start) to `job.last`; the first process
    profiles `profile` steps of it.

    Ctrl-C and SIGTERM save first. UserError when a loss is not finite, a shard or a process that reads is gone, or a
    checkpoint cannot be read or written; the last good checkpoint stays.
    """
    recipe, stream = job.recipe, Stream(job.stream)
    model, optimizer = _made(job, stream.used_ids, team)
    guard = guard_of(recipe.spike_sigmas, team)
    start = _resume(job, model, optimizer, guard, team)
    if team.is_first:
        _drop_spikes(job.folder, start)
    spread = team.spread(model)
    held_out = Stream(job.validation) if job.validation and recipe.validate_every else None

    micro = micro_sequences(job, team)
    steps = range(start, job.last)
    pinned = team.device.type == "cuda"
    batches = loader(stream, steps, team.rank, team.world, micro, recipe.loader_workers, recipe.predict_end, pinned)
    log = _opened_log(job, stream, steps, team)
    profiler = Profiler(job.folder, team, profile, recipe.log_every)
    samples = Samples(job, team)
    try:
        with Stopping() as stopping, Saver(job.folder, recipe, job.facts, team, job.mirror) as saver, reading(batches):
            for step, parts in groupby(log.clock.each("data", batches), key=lambda batch: batch.step):
                rate = learning_rate(recipe, step)
                set_learning_rate(optimizer, rate)
                log.add(one_step(spread, optimizer, guard, parts, step, rate, job, team))
                with log.clock("agree"):
                    asked, done = team.agree(saver.failed or stopping.asked), step + 1
                if asked == FAILED:
                    saver.wait()  # it says why
                saves = asked or done == job.last or done % recipe.checkpoint_every == 0
                validates = held_out and (done % recipe.validate_every == 0 or done == recipe.steps)
                draws = recipe.sample_every and done % recipe.sample_every == 0
                if saves or validates or draws or done % recipe.log_every == 0:
                    log.flush()  # ends the run at a loss that is not finite: it must not be saved
                if held_out and validates:
                    with log.pause("validation"):
                        log.validation(done, validate(job, held_out, model, team, micro))
                if draws:
                    with log.pause("samples"):
                        samples.draw(done, model, log)
                profiler.after(done, log)
                if saves:
                    with log.pause("checkpoint"):
                        saver.save(done, checkpoint.tensors_of(model, optimizer, guard.state if guard else None))
                    log.saved = done
                if asked:
                    saver.wait()
                    log.say(f"saved {job.checkpoint(done)}")
                    stop(asked)
            with log.pause("checkpoint"):
                saver.wait()
    finally:
        profiler.close(log)
        log.close()
    return log.done(job.checkpoint(log.saved))


def _made(job: Job, used_ids: int, team: Team) -> tuple[LanguageModel, torch.optim.Optimizer]:
    """The model as it is before the first step, on its device, and its optimiser."""
    recipe = job.recipe
    model = make_model(job.model, used_ids, recipe.seed, recipe.recompute).to(team.device)
    if recipe.compile == "on" or (recipe.compile == "auto" and team.device.type == "cuda"):
        model.compile_blocks()
    if recipe.sharding == "fsdp":
        team.shard(model, recipe.precision)
    return model, make_optimizer(model, recipe)


def _opened_log(job: Job, stream: Stream, steps: range, team: Team) -> RunLog:
    """The log of these steps, which goes on where they begin."""
    recipe, names = job.recipe, [part.name for part in job.stream.parts]
    cost = Cost(job.model, stream.used_ids, job.facts["context"])
    yardstick = Yardstick(cost, peak_flops(team.device, recipe.precision)[0] * team.world)
    facts = {"model": asdict(job.model), "recipe": asdict(recipe)}
    sinks = open_sinks(job.folder, steps.start, recipe.wandb, facts) if team.is_first else None
    return RunLog(job.folder, names, yardstick, team, steps, sinks, partial(write_spike, job.folder, stream))


def one_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    guard: SpikeGuard | None,
    parts: Iterable[MicroBatch],
    step: int,
    rate: float,
    job: Job,
    team: Team,
) -> StepSums:
    """Forward and backward of every micro-batch of a step, then one update of the weights, but for a spike."""
    positions = job.stream.batch_sequences * (job.facts["context"] + job.recipe.predict_end)
    sums = torch.zeros(len(job.stream.parts), 2, dtype=torch.float64, device=team.device)
    ledger = 0
    for batch in parts:
        ids = batch.ids(team.device)
        with without_averaging(model, wanted=not batch.last):
            with autocast(team.device, job.recipe.precision):
                losses_BT = model(ids[:, :-1], ids[:, 1:])
            # DistributedDataParallel divides by the number of processes
            (losses_BT.sum() * (team.world / positions)).backward()
        by_sequence = losses_BT.detach().double().sum(1)
        counts = torch.full_like(by_sequence, losses_BT.shape[1])
        sums.index_add_(0, batch.parts_on(team.device), torch.stack([by_sequence, counts], 1))
        ledger += batch.hash
    limit = job.recipe.clip or float("inf")
    norm = whole(nn.utils.clip_grad_norm_(model.parameters(), limit))
    sums = team.sum(sums)
    skipped = None
    if guard is not None:
        loss = sums[:, 0].sum() / sums[:, 1].sum()
        skipped = guard.judge(loss, norm)
        optimizer.found_inf = team.beside(skipped, model)  # type: ignore[attr-defined]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    signed = (ledger + 2**63) % 2**64 - 2**63  # int64 holds it, and sums of processes wrap around as they should
    return StepSums(step, sums, norm.detach(), team.sum(torch.tensor([signed])), rate, skipped)


def validate(job: Job, stream: Stream, model: LanguageModel, team: Team, micro: int) -> PositionLoss:
    """The loss on the held-out sequences, by position; the same ones each time."""
    model.eval()
    count = min(job.recipe.validation_sequences, sum(stream.sequences_per_epoch().values()))
    found = position_loss(model, stream, range(count), micro, job.recipe.precision, team)
    model.train()
    team.cut_again(model)
    return found


def micro_sequences(job: Job, team: Team) -> int:
    """Sequences of one forward pass: what the recipe says, else what memory holds, at most a process's share."""
    share = -(-job.stream.batch_sequences // team.world)
    if job.recipe.micro_sequences:
        return min(job.recipe.micro_sequences, share)
    context = job.facts["context"]
    if team.device.type == "cpu":
        most = max(1, CPU_MICRO_TOKENS // context)
    else:
        cost = Cost(job.model, job.facts["used_ids"], context)
        one, two = (memory_of(cost, job.recipe, n).total for n in (1, 2))
        most = max(1, int((0.9 * memory_bytes(team.device) - one) // (two - one)) + 1)
    passes = -(-share // min(most, share))
    return -(-share // passes)  # as even as can be


def _resume(
    job: Job, model: LanguageModel, optimizer: torch.optim.Optimizer, guard: SpikeGuard | None, team: Team
) -> int:
    """Fills model, optimiser and guard from the newest checkpoint; the steps that are done."""
    if team.leads:
        checkpoint.clean(job.folder)
    team.wait()
    there = checkpoint.found(job.folder)
    if not there:
        return 0
    facts = checkpoint.read_facts(there[-1])
    different = differing(facts, job.facts)
    if different:
        raise UserError(
            f"{there[-1]} belongs to another run (it differs in {', '.join(different)}); choose another --out"
        )
    kept = guard.state if guard is not None and "guard.state" in facts["tensors"] else None
    checkpoint.load(there[-1], checkpoint.tensors_of(model, optimizer, kept), team)
    return int(facts["step"])


def _drop_spikes(run: Path, step: int) -> None:
    """Removes what is told of skipped steps after `step`, as the log's lines of them are: they happen again."""
    for path in (run / SPIKES).glob("step-*.json"):
        number = path.stem.removeprefix("step-")
        if number.isdecimal() and int(number) > step:
            path.unlink(missing_ok=True)
