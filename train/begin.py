"""How a run begins, by turns: whoever comes first decides, the others read what it wrote down.

first process    holds the folder (and the URI) ─▶ run.json, recipe.json
other machines   fetch them, where the run is kept under a URI
all              the same job
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from toto.config import Pipelines
from toto.errors import UsageError, UserError
from toto.train.alone import alone
from toto.train.loop import Job
from toto.train.parallel import Team
from toto.train.run import KEPT, Asked, folder_of, mirror_of, prepare
from toto.train.watch.sinks import check_sinks


@contextmanager
def begun(asked: Asked, pipelines: Pipelines, team: Team) -> Iterator[Job]:
    """The job of a command line, held by this run alone until the end. UsageError, UserError on all processes."""
    mirror = mirror_of(asked)
    folder = folder_of(asked, mirror)
    with ExitStack() as held:

        def first() -> None:
            held.enter_context(alone(folder))
            if mirror:
                held.enter_context(mirror.held())
                mirror.pull(KEPT)
            check_sinks(prepare(asked, pipelines, team, mirror=mirror).recipe.wandb)
            if mirror:
                mirror.push()

        def others() -> None:
            if mirror:
                mirror.pull(KEPT)

        _turn(team, first if team.is_first else None)
        _turn(team, others if team.leads and not team.is_first else None)
        yield prepare(asked, pipelines, team, writes=False, mirror=mirror)


def _turn(team: Team, act: Callable[[], None] | None) -> None:
    """What some processes do while the others wait; an error of one stops them all."""
    refused: UserError | None = None
    try:
        if act:
            act()
    except UserError as error:
        refused = error
    code = team.agree(refused.exit_code if refused else 0)
    if code:
        raise refused or (UsageError if code == 2 else UserError)("the first process refused to start; it says why")
