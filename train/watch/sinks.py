"""Where the log of a run goes: every sink takes the same values, a step's or a validation's, and the same pictures.

    values ─▶ Sinks ─┬▶ Lines               metrics.jsonl, always: the one that resumes and proofs read
                     ├▶ TensorBoard         tensorboard/
                     └▶ WeightsAndBiases    wandb/, where the recipe names a project

Values are flat but for one level: {"step": 7, "loss": 2.3, "losses": {"k600": 2.2}} is the scalars `loss` and
`losses/k600` of step 7. Texts, lists and null are in metrics.jsonl alone.
"""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from toto.errors import UsageError, UserError
from toto.train.watch.metrics import Lines

BOARD = "tensorboard"
WANDB = "wandb"  # the folder, in which W&B itself keeps one for each call; and its package
NO_WANDB = "recipe: wandb names a project, but the package is not there: pip install wandb, or leave the key out"


class Sink(Protocol):
    """Something that keeps what a run tells of itself."""

    def write(self, values: dict[str, Any]) -> None:
        """Numbers of `values["step"]`."""

    def picture(self, step: int, name: str, path: Path) -> None:
        """A PNG file."""

    def close(self) -> None:
        """Nothing is lost after this."""


class TensorBoard:
    """Event files that TensorBoard draws; those of steps that happen again are dropped by it."""

    def __init__(self, run: Path, resumed_at: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter  # takes a second to import

        self._writer = SummaryWriter(str(run / BOARD), purge_step=resumed_at + 1, flush_secs=30)

    def write(self, values: dict[str, Any]) -> None:
        """Scalars."""
        for name, number in scalars(values):
            self._writer.add_scalar(name, number, values["step"])

    def picture(self, step: int, name: str, path: Path) -> None:
        """An image."""
        from numpy import asarray
        from PIL import Image

        with Image.open(path) as image:
            self._writer.add_image(name, asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        """Writes what waits."""
        self._writer.close()


class WeightsAndBiases:
    """One run of Weights & Biases for one run's folder, however often it is resumed; WANDB_MODE=offline needs no net.

    Steps that happen again after a kill keep what W&B was told of them at first. UserError where W&B cannot begin.
    """

    def __init__(self, run: Path, project: str, facts: dict[str, Any]) -> None:
        wandb = import_module(WANDB)
        name = run / WANDB / "id"
        if not name.is_file():
            name.parent.mkdir(parents=True, exist_ok=True)
            name.write_text(uuid4().hex[:12])
        quiet = wandb.Settings(console="off", silent=True)  # stdout is ours: its last line may be JSON
        known = {"project": project, "name": run.name, "id": name.read_text(), "dir": str(run), "config": facts}
        try:
            self._run = wandb.init(**known, resume="allow", settings=quiet)
        except wandb.errors.Error as error:
            raise UserError(
                f"W&B: {str(error).splitlines()[0]}\n"
                "WANDB_MODE=offline keeps all in the run's folder, for `wandb sync`; or leave the recipe's key out"
            ) from None
        self._image = wandb.Image

    def write(self, values: dict[str, Any]) -> None:
        """Scalars."""
        self._run.log(dict(scalars(values)), step=values["step"])

    def picture(self, step: int, name: str, path: Path) -> None:
        """An image."""
        self._run.log({name: self._image(str(path))}, step=step)

    def close(self) -> None:
        """Waits until all is sent, or written."""
        self._run.finish()


class Sinks:
    """All of a run's."""

    def __init__(self, sinks: list[Sink]) -> None:
        self._sinks = sinks

    def write(self, values: dict[str, Any]) -> None:
        """To every one."""
        for sink in self._sinks:
            sink.write(values)

    def picture(self, step: int, name: str, path: Path) -> None:
        """To every one."""
        for sink in self._sinks:
            sink.picture(step, name, path)

    def close(self) -> None:
        """Every one."""
        for sink in self._sinks:
            sink.close()


def open_sinks(run: Path, resumed_at: int, project: str | None, facts: dict[str, Any]) -> Sinks:
    """The sinks of a run that goes on after step `resumed_at`; `facts` are what W&B shows as its configuration."""
    sinks: list[Sink] = [Lines(run, resumed_at), TensorBoard(run, resumed_at)]
    return Sinks([*sinks, WeightsAndBiases(run, project, facts)] if project else sinks)


def check_sinks(project: str | None) -> None:
    """UsageError where a project of W&B is named and its package is not installed."""
    try:
        if project:
            import_module(WANDB)
    except ImportError:
        raise UsageError(NO_WANDB) from None


def scalars(values: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Every number but the step, with those of a dict as `name/part`."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from ((f"{name}/{part}", number) for part, number in value.items() if number is not None)
        elif name != "step" and isinstance(value, int | float):
            yield name, value
