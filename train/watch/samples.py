"""What the model imagines while it is trained: the same held-out prompts go on, every `sample_every` steps.

    weights ─gathered, a copy in eval mode─▶ generate ─▶ RUN/samples/step-000005000/   tokens, facts, GIF, PNG
                                                        └▶ the PNG to TensorBoard and W&B

Training does not notice: the copy is another model, prompts and random numbers are the same each time and the sampler's
own, torch's generators are put back, and the seconds count as a pause. The first process does it while the others wait;
weights that are cut among processes are gathered one after the other. What goes wrong is told, and the run goes on.
"""

from typing import TYPE_CHECKING

import torch

from toto.errors import UserError
from toto.shards.ids import CODE_OFFSET, id_dtype
from toto.shards.recipe import Kind
from toto.train import checkpoint
from toto.train.generation import generated
from toto.train.generation.generate import Generation, by_frame, make
from toto.train.generation.prompts import Asked, Prompts, prompts
from toto.train.generation.sampling import Sampling
from toto.train.load import Loaded, described
from toto.train.models import LanguageModel, make_model
from toto.train.parallel import Team, whole
from toto.train.watch.log import RunLog

if TYPE_CHECKING:
    from toto.train.loop import Job

FOLDER = "samples"
CLIPS = 4


class Samples:
    """Draws them for one run."""

    def __init__(self, job: "Job", team: Team) -> None:
        self._job, self._team = job, team
        self._prompts: Prompts | None = None

    def draw(self, step: int, model: LanguageModel, log: RunLog) -> None:
        """Clips of the model after `step` steps; all processes call it."""
        copy: LanguageModel | None = None
        problem: Exception | None = None
        try:
            copy = self._room() if self._team.is_first else None
        except torch.OutOfMemoryError as error:
            problem = error
        if not self._team.agree(int(problem is not None)):
            for name, weight in model.named_parameters():
                told = whole(weight.detach())
                if copy is not None:
                    copy.get_parameter(name).copy_(told)
            try:
                if copy is not None:
                    self._make(step, copy, log)
            except (UserError, OSError, torch.OutOfMemoryError) as error:
                problem = error
        if problem is not None:
            log.say(f"step {step:,}  no samples: {str(problem).splitlines()[0]}")
        self._team.wait()  # a barrier of gloo: kernels of NCCL would give up on a process that is late

    def _room(self) -> LanguageModel:
        """A model that the weights fit into; on a GPU in the precision of the compute."""
        copy = make_model(self._job.model, self._job.facts["used_ids"], seed=None)
        if self._job.recipe.precision == "bf16" and self._team.device.type == "cuda":
            copy.halve()
        return copy.to(self._team.device).requires_grad_(False).eval()

    def _make(self, step: int, copy: LanguageModel, log: RunLog) -> None:
        device = self._team.device
        folder = self._job.folder / FOLDER / checkpoint.name_of(step)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            loaded = described(copy, self._job.model, self._job.facts, self._job.folder, step)
            known, asked = self._known(loaded), self._asked()
            made = make(loaded, known, asked)
            generated.write_tokens(folder, made.codes, known, id_dtype(loaded.used_ids - CODE_OFFSET))
            pictures, remark = generated.write_pictures(folder, made.codes, known, loaded.tokenizer, known.fps)
        value = {
            "step": step,
            "kind": asked.kind,
            "regime": asked.regime,
            "frames": asked.frames,
            "frames_prompt": known.prompt,
            "samples": len(known),
            "seed": asked.seed,
            "tokenizer": loaded.tokenizer,
            "dataset_ids": list(known.dataset_ids),
            "prompts": known.sources,
            **by_frame(made, known, asked),
        }
        generated.write_facts(folder, value)
        log.samples(step, folder, next((path for path in pictures if path.suffix == ".png"), None), remark)

    def _known(self, loaded: Loaded) -> Prompts:
        """The first held-out sequences, half of each; looked up once."""
        if self._prompts is None:
            asked = self._asked()
            wanted = Asked(asked.kind, asked.frames // 2, asked.frames, CLIPS)
            self._prompts = prompts(loaded, wanted, needs_truth=False)
        return self._prompts

    def _asked(self) -> Generation:
        parts = self._job.stream.parts
        kind: Kind = "video" if any(part.kind == "video" for part in parts) else "image"
        facts = self._job.facts
        frames = facts["context"] // (facts["grid"][0] * facts["grid"][1])
        return Generation(kind, frames, "free", Sampling(), batch=CLIPS)
