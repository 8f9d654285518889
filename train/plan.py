"""What a run will cost, from pipelines.yaml and, where they are there already, from the sealed shards.

    model + recipe + datasets ─▶ parameters, MACs, memory, GPU-days, epochs of each dataset

Datasets that are not tokenized yet are counted as the paper publishes them (Table 2), which is every frame at 30 a
second; at the stride that they are stored with they hold that much less, and both are told.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from toto.config import Pipelines
from toto.errors import UserError
from toto.gpus import peak_bf16
from toto.plain import counted, ordinal
from toto.shards.ids import CODE_OFFSET
from toto.shards.store import open_store
from toto.shards.stream import Stream
from toto.shards.streaming.shares import Later, Weights, total
from toto.train.cost import Cost, memory_of
from toto.train.generation.cost import GenerationCost, lines_of
from toto.train.sources import Source, batch_sequences, later_of, make_stream, name_sources
from toto.train.watch.progress import amount, duration

DAY = 86_400  # seconds
PATCH = 8  # pixels of a code's side: of dct, dVAE and SD-VAE; used only while there are no shards
GPU_BYTES = 80e9
MEMORY = {  # parts that do not grow with the micro-batch
    "weights": "weights",
    "gradients": "gradients",
    "moments": "moments",
    "compute_weights": "bf16 copy",
    "logits": "logits",
}


@dataclass(frozen=True)
class Machine:
    """What GPU-days are counted on."""

    card: str
    gpus: int
    mfu: float  # share of the peak, with causal attention counted
    clips: int = 2048  # whose generation is told; FVD is taken over so many
    price: float | None = None  # of a card for an hour, in any currency

    @property
    def peak(self) -> float:
        """Dense bf16 FLOP/s of one card; UsageError for an unknown one."""
        return peak_bf16(self.card)


def make_plan(
    size: str, recipe_name: str, data: Sequence[str], pipelines: Pipelines, machine: Machine
) -> dict[str, Any]:
    """All figures, as JSON values. UsageError for unknown names; nothing is written."""
    model, recipe = pipelines.model(size), pipelines.recipe(recipe_name)
    sources = name_sources(data, recipe.mixture, pipelines)
    there = [source for source in sources if open_store(source.uri).exists("dataset.json")]
    alike = [replace(source, weight=1) for source in there]  # how much each holds does not hang on weights
    stream = Stream(make_stream(alike, recipe, None)) if there else None
    used_ids, cells = _shape(stream, sources, pipelines)
    context = recipe.frames * cells
    cost = Cost(model, used_ids, context)
    per_step = batch_sequences(recipe.batch_tokens, context) * context
    tokens = recipe.steps * per_step
    shares = _shares(sources, later_of(data, recipe.mixture, pipelines), recipe.steps, per_step // context, context)
    flops = tokens * cost.training_flops_per_token
    gpu_days = flops / (machine.peak * machine.mfu) / DAY
    one, two = (memory_of(cost, recipe, n) for n in (1, 2))
    return {
        "size": size,
        "recipe": recipe_name,
        "parameters": cost.parameters,
        "parameters_by_group": cost.parameters_by_group,
        "used_ids": used_ids,
        "context": context,
        "macs": cost.macs_per_token,
        "macs_palm": cost.palm_macs_per_token,
        "macs_paper": cost.paper_macs(tokens // cells),
        "training_flops_per_token": cost.training_flops_per_token,
        "training_flops_per_token_palm": cost.palm_training_flops_per_token,
        "steps": recipe.steps,
        "tokens_per_step": per_step,
        "tokens": tokens,
        "training_flops": flops,
        "memory_bytes": one.total,
        "memory": {**vars(one), "each_further_sequence": two.total - one.total},
        "checkpoint_bytes": one.weights + one.moments,
        "checkpoint_copy_bytes": 0 if recipe.checkpoint_async == "off" else one.weights + one.moments,
        "gpu": {
            "card": machine.card,
            "gpus": machine.gpus,
            "mfu": machine.mfu,
            "peak_flops": machine.peak,
            "price": machine.price,
        },
        "generation": GenerationCost(cost, machine.card).value(machine.clips),
        "gpu_days": gpu_days,
        "seconds": gpu_days / machine.gpus * DAY,
        "cost": None if machine.price is None else 24 * gpu_days * machine.price,
        "sources": [
            _source(source, shares[source.name], stream, source in there, tokens, pipelines) for source in sources
        ],
    }


def plan_text(plan: dict[str, Any]) -> str:
    """The plan for a person."""
    groups = ", ".join(f"{name} {amount(count)}" for name, count in plan["parameters_by_group"].items())
    memory, gpu = plan["memory"], plan["gpu"]
    fits = max(0, int((GPU_BYTES - plan["memory_bytes"]) // memory["each_further_sequence"]) + 1)
    flops, tokens = f"{plan['training_flops']:.2e} FLOPs", f"{amount(plan['tokens'])} tokens"
    fitting = f"an 80 GB card holds micro-batches of {fits:,}" if fits else "too large for a card of 80 GB"
    copied = plan["checkpoint_copy_bytes"]
    copy = f", and {amount(copied)}B of host memory, over all processes, to write it beside training" if copied else ""
    rows = [
        ("parameters", f"{plan['parameters']:,}  ({groups}; {plan['used_ids']:,} ids, tied)"),
        ("context", f"{plan['context']:,} tokens a sequence"),
        ("MACs", f"{amount(plan['macs'])} a token forward with causal attention"),
        ("", f"{amount(plan['macs_palm'])} with the whole square of attention (PaLM's way)"),
        ("", f"{plan['macs_paper']:.3g} in all as Table 4 counts: parameters × frames, forward, no attention"),
        ("training", f"{counted(plan['steps'], 'step')} × {plan['tokens_per_step']:,} tokens = {tokens}"),
        ("", f"{flops}, {amount(plan['training_flops_per_token'])} a token"),
        ("memory", ", ".join(f"{name} {amount(memory[key])}B" for key, name in MEMORY.items() if memory[key])),
        ("", f"{amount(memory['each_further_sequence'])}B for each sequence of a micro-batch; {fitting}"),
        ("checkpoint", f"{amount(plan['checkpoint_bytes'])}B" + copy),
        *zip(("time", ""), _time_lines(plan), strict=False),
        *([] if plan["cost"] is None else [("cost", f"{plan['cost']:,.2f} at {gpu['price']:g} for a card and hour")]),
        *zip(("generation", "", "", ""), lines_of(plan["generation"], gpu["card"]), strict=True),
    ]
    table = [f"  {name:<12} {text}" for name, text in rows]
    return "\n".join(
        [f"{plan['size']} by recipe {plan['recipe']}", *table, "  epochs", *map(_source_line, plan["sources"])]
    )


def _time_lines(plan: dict[str, Any]) -> list[str]:
    gpu = plan["gpu"]
    share = f"at {gpu['mfu']:.0%} of {amount(gpu['peak_flops'])}FLOP/s"
    if plan["seconds"] < 1:  # days of it would be a string of zeros
        return [f"less than a second on {gpu['gpus']} × {gpu['card']} {share}; a CPU needs far longer"]
    return [f"{plan['gpu_days']:.3g} {gpu['card']}-days {share}", f"{duration(plan['seconds'])} on {gpu['gpus']}"]


def _source_line(source: dict[str, Any]) -> str:
    head = f"    {source['name']:<12} {source['share']:>4.0%}  {amount(source['tokens'])} tokens"
    if source["epochs"] is not None:
        return f"{head} = {source['epochs']:.3g} epochs of what is sealed in {source['uri']}"
    if source["published_tokens"] is None:
        return f"{head}; no shards in {source['uri']} yet, and no published size"
    every, strided = source["epochs_published"], source["epochs_published_strided"]
    both = f"{every:.3g}"
    if every != strided:
        both += f" (every frame), {strided:.3g} (every {ordinal(source['stride'])})"
    return f"{head} = {both} epochs of the published {amount(source['published_tokens'])}; no shards yet"


def _source(
    source: Source,
    share: float,
    stream: Stream | None,
    there: bool,
    tokens: int,
    pipelines: Pipelines,
) -> dict[str, Any]:
    epochs = None
    if stream is not None and there:
        each = stream.sequences_per_epoch()
        own = sum(count for name, count in each.items() if name.split(":")[0] == source.name)
        epochs = tokens * share / (own * stream.context)
    config = pipelines.datasets.get(source.name)
    published = config.published_tokens if config else None
    stride = (config.stride or 1) if config else 1
    value = {
        "name": source.name,
        "uri": source.uri,
        "share": share,
        "tokens": tokens * share,
        "epochs": epochs,
        "published_tokens": published,
        "stride": stride,
    }
    if published:
        value["epochs_published"] = tokens * share / published
        value["epochs_published_strided"] = tokens * share / published * stride
    return value


def _shares(
    sources: Sequence[Source], later: Sequence[Later], steps: int, batch_sequences: int, context: int
) -> dict[str, float]:
    """The share that each dataset has in all sequences of the run, over all phases."""
    weights: list[Weights] = [{source.name: source.weight for source in sources}, *(phase.weights for phase in later)]
    starts = [0, *(phase.from_sequence(batch_sequences, context) for phase in later)]
    last = steps * batch_sequences
    ends = [*starts[1:], last]
    shares = {source.name: 0.0 for source in sources}
    for phase, start, end in zip(weights, starts, ends, strict=True):
        length, whole = max(0, min(end, last) - start), sum(map(total, phase.values()))
        for name, weight in phase.items():
            shares[name] += total(weight) / whole * length / last
    return shares


def _shape(stream: Stream | None, sources: Sequence[Source], pipelines: Pipelines) -> tuple[int, int]:
    """(used ids, codes of a frame): of the shards, else of the first dataset's configuration."""
    if stream is not None:
        return stream.used_ids, stream.cells
    configs = [pipelines.datasets[source.name] for source in sources if source.name in pipelines.datasets]
    if not configs:
        raise UserError(f"no shards in {', '.join(source.uri for source in sources)}; give a dataset of pipelines.yaml")
    side, tokenizer = configs[0].resolution // PATCH, pipelines.tokenizer(configs[0].tokenizer)
    if tokenizer.vocab_size is None:
        where = f"tokenizers.{tokenizer.name}.vocab_size"
        raise UserError(f"{where} is not set; set it, or tokenize {configs[0].name} first")
    return tokenizer.vocab_size + CODE_OFFSET, side * side
