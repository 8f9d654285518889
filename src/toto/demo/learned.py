"""What the model learned, as parts of the page: loss curve, loss by position, probe, continuations, model card."""

import json
from typing import Any

from toto.demo.learning import PROMPT, Places
from toto.evaluate.report import sections_of
from toto.evaluate.results import read_result
from toto.plain import counted
from toto.shards.look import page

OF_MAMBA, OF_ATTENTION = ("expand", "states", "conv_window"), ("heads", "mlp_hidden", "rope_theta")
OTHER_KEYS = {"llama": OF_MAMBA, "gpt2": (*OF_MAMBA, "rope_theta"), "mamba": OF_ATTENTION}  # of other architectures


def learned_html(places: Places) -> list[str]:
    """The parts in reading order."""
    loss = json.loads((places.loss / "loss_by_position.json").read_text())
    return [
        _prediction(places, loss),
        page.section(
            "What its layers know",
            "A linear classifier reads each layer's features, averaged over each frame, and names the motion. A single "
            "frame does not tell it, so the control on one frame should stay near chance.",
            *sections_of([read_result(places.probe)]),
        ),
        _continued(places),
        _card(places),
    ]


def figures(places: Places) -> list[tuple[str, str, str]]:
    """The numbers for the head of the page, as page.tiles takes them."""
    loss = json.loads((places.loss / "loss_by_position.json").read_text())
    result = read_result(places.probe)
    (low, high), chance = result.value["interval"], result.value["chance"]
    return [
        ("Model", f"{loss['model']:.2f}", f"nats a token; copying {loss['copy']:.2f}, unigram {loss['unigram']:.2f}"),
        ("Motion", _share(result.value["top1"]), f"{_share(low)} to {_share(high)}; chance {_share(chance)}"),
    ]


def _prediction(places: Places, loss: dict[str, Any]) -> str:
    from toto.train.watch.curves import read_curve  # here: a page without a model need not wait for torch
    from toto.train.watch.curves_picture import picture

    better = loss["better_than_copy"]
    low, high = better["interval"]
    rows = [
        ("unigram: how often each code comes", f"{loss['unigram']:.3f}"),
        (f"copy: the code of the frame before, λ = {loss['copy_share']:.3f}, else unigram", f"{loss['copy']:.3f}"),
        ("model", f"{loss['model']:.3f}"),
    ]
    lead = (
        f"Nats a token on {counted(loss['sequences'], 'held-out clip')}; lower is better. The model is "
        f"better than copying by {better['mean']:.3f} (95 % interval {low:.3f} to {high:.3f})."
    )
    curve = page.picture(picture([read_curve(places.run, places.run.name)], ["steps"]), "Loss by training step")
    along = page.picture((places.loss / "loss_by_position.png").read_bytes(), "Loss by position in a clip")
    return page.section(
        "What it predicts",
        lead,
        page.table(("prediction", "nats a token"), rows),
        "<h3>While it learned</h3>",
        page.figure(curve, ("training and held-out loss by step",), ""),
        "<h3>Where it is hard</h3><p>The first frame comes out of nothing; later ones can be read off the frames "
        "before. Within a frame, moving things make the difference (paper, Fig. 10).</p>",
        page.figure(along, ("along a clip, by frame, and within a frame",), ""),
    )


def _continued(places: Places) -> str:
    value = json.loads((places.made / "generated.json").read_text())
    made, copied = (_known(value[key]) for key in ("accuracy_by_frame", "copy_accuracy_by_frame"))
    sides = "; left the true clip, right the model's" if made else ""  # longer than every clip: there is no truth
    shots = [(places.made, f"{PROMPT} frames are given, the rest is made{sides}")]
    if (places.imagined / "generated.gif").is_file():
        shots.append((places.imagined, "nothing is given"))
    cards = []
    for folder, caption in shots:
        if not (folder / "generated.gif").is_file():
            cards.append(f'<p class="soft">No pictures: see {page.text(folder)}.</p>')
            continue
        still = (folder / "generated.png").read_bytes()
        moving = page.moving_picture((folder / "generated.gif").read_bytes(), still, caption)
        both = page.figure(moving, (caption,), "") + page.figure(page.picture(still, caption), ("as strips",), "")
        cards.append(f'<div class="columns">{both}</div>')
    lead = "Held-out clips: the model sees the first frames and goes on, code by code."
    if made:
        lead += f" It names {made[0]:.0%} of the codes of the first frame that it makes, {made[-1]:.0%} of the last."
    if copied:
        lead += f" Repeating the last given frame names {copied[0]:.0%} and {copied[-1]:.0%}."
    return page.section("How it goes on", lead, *cards)


def _known(shares: list[float | None] | None) -> list[float]:
    """Of the frames that were made."""
    return [share for share in shares or [] if share is not None]


def _share(share: float) -> str:
    return f"{100 * share:.1f} %"


def _card(places: Places) -> str:
    from toto.train.run import read_run  # here, as above

    run = read_run(places.run)
    others = OTHER_KEYS[run["model"].get("arch", "llama")]
    model = [(key, str(value)) for key, value in run["model"].items() if key not in others]
    recipe = [(key, str(value)) for key, value in run["recipe"].items() if value is not None]
    data = ", ".join(f"{source['name']} ({source['uri']})" for source in run["data"])
    columns = f"<div><h3>Model</h3>{page.facts(model)}</div><div><h3>Recipe</h3>{page.facts(recipe)}</div>"
    return page.section(
        "Model card",
        f"Trained on {page.text(data)} by <code>toto-train pretrain</code>; the run is in "
        f"<code>{page.text(places.run)}</code>, its sequences in <code>recipe.json</code>.",
        f'<div class="columns">{columns}</div>',
    )
