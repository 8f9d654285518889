"""The second half of the road: tokens -> a small model -> what it predicts, what it knows, what it imagines.

Like the first half it is a list of commands that anyone could type; each leaves its files in the report's folder.
"""

from dataclasses import dataclass
from pathlib import Path

from toto.config import load

SIZE, RECIPE = "tiny", "demo"
PROMPT = 4  # frames given of a clip that the model goes on with
ALL_STEPS = 5  # times as many steps with --all
ALL_FRAMES = 24  # of a continuation with --all: three times the context


@dataclass(frozen=True)
class Places:
    """Where the second half leaves its files."""

    run: Path
    loss: Path
    probe: Path
    made: Path
    imagined: Path

    @classmethod
    def under(cls, folder: Path, everything: bool) -> "Places":
        """Below the report's folder; the longer run has places of its own."""
        base = folder / "all" if everything else folder
        return cls(base / "model", base / "loss", base / "probe", base / "continued", base / "imagined")


def commands(places: Places, data: str | None, everything: bool) -> dict[str, list[str]]:
    """Title -> words. `data` is where the shards are, None where the commands find them by themselves."""
    source = ["--data", data] if data else []
    ckpt = ["--ckpt", str(places.run)]
    longer = ["--set", f"recipes.{RECIPE}.steps={demo_steps() * ALL_STEPS}"] if everything else []
    what = ["--size", SIZE, "--recipe", RECIPE, *source, *longer]
    poolings = [] if everything else ["--poolings", "average,frames"]
    probe = str(places.probe)
    middle = ["--layer-a", str(middle_layer()), "--pooling-a", "frames"]  # fixed before anything was seen
    compare = ["toto-eval", "compare", probe, probe, *middle]
    steps = {
        "What will training take?": ["toto-train", "plan", *what],
        "Tokens to a model": ["toto-train", "pretrain", *what, "--out", str(places.run)],
        "Does it predict better than by copying the frame before?": [
            *("toto-train", "loss-by-position", *ckpt, "--baselines", "--out", str(places.loss))
        ],
        "What do its layers know of motion?": ["toto-eval", "probe", *ckpt, *source, *poolings, "--out", probe],
        "Does the middle layer know more than the embedding?": [*compare, "--layer-b", "0", "--pooling-b", "frames"],
        "Does it know more than one frame tells?": [*compare, "--pooling-b", "one-frame"],
        "How does it go on?": [
            *("toto-train", "generate", *ckpt, "--frames-prompt", str(PROMPT), "--samples", "6", "--greedy"),
            *(["--frames", str(ALL_FRAMES)] if everything else []),
            *("--out", str(places.made)),
        ],
    }
    if everything:
        words = ["toto-train", "generate", *ckpt, "--frames-prompt", "0", "--samples", "8"]
        steps["What does it imagine?"] = [*words, "--out", str(places.imagined)]
    return steps


def demo_steps() -> int:
    """Steps of the demo's recipe in pipelines.yaml."""
    return load().recipe(RECIPE).steps


def middle_layer() -> int:
    """The layer at half the depth of the demo's model, where the paper finds the best features (§5.1)."""
    return (load().model(SIZE).layers + 1) // 2
