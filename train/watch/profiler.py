"""What the first process spends a few steps on, when somebody asks: `--profile STEPS`, or a file in the run's folder.

    echo 5 > RUN/profile-now ─seen at the next log line─▶ one step to warm up, then 5 ─▶ RUN/profiles/step-000001205/
                                trace.json.gz   every operator and kernel: ui.perfetto.dev, chrome://tracing
                                operators.txt   where most time went        memory.txt   what was held, and the most

Steps are slower while they are recorded, and the seconds of writing it down are no training time. Losses stay as they
are. What cannot be written is told, and the run goes on.
"""

import os
import resource
import shutil
import sys
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from toto.train.checkpoint import name_of
from toto.train.parallel import Team
from toto.train.watch.log import RunLog

REQUEST = "profile-now"  # in the run's folder; holds the number of steps, or nothing
FOLDER = "profiles"
STEPS = 5  # where the file does not say
LONGEST = 20  # characters that are read of it
MOST_STEPS = 100  # a step of a large model leaves some megabytes of trace
BEGINNING = 3  # steps of a call that are not looked at: torch compiles, and memory is claimed
OPERATORS = 40  # in the table


class Profiler:
    """Idle until it is asked; of many processes only the first ever is."""

    def __init__(self, run: Path, team: Team, steps: int, log_every: int) -> None:
        self._run, self._team, self._log_every = run, team, log_every
        self._done = 0
        self._log: RunLog | None = None
        self._profile: profile | None = None
        if team.is_first:
            for left in (run / FOLDER).glob(".step-*.partial"):  # by a process that was killed while it wrote
                shutil.rmtree(left, ignore_errors=True)
        if steps and team.is_first:
            self._start(steps, BEGINNING)

    def after(self, done: int, log: RunLog) -> None:
        """A step is over, the `done`-th of the run."""
        if self._profile is not None:
            with log.pause("profile"):
                self._done, self._log = done, log
                self._profile.step()
        elif self._team.is_first and done % self._log_every == 0 and (self._run / REQUEST).is_file():
            try:
                self._start(self._asked(), 0)
            except OSError as error:
                log.say(f"no profile: {self._run / REQUEST}: {error.strerror}")

    def close(self, log: RunLog) -> None:
        """Writes what there is; says so where a run ended before its steps were recorded."""
        if self._profile is not None:
            self._log = log
            self._profile.stop()
        if self._profile is not None:
            log.say("no profile: the run ended before a step was recorded")

    def _start(self, steps: int, wait: int) -> None:
        cuda = self._team.device.type == "cuda"
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
        os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # else it talks on stderr
        plan = schedule(wait=wait, warmup=1, active=steps, repeat=1)
        self._profile = profile(
            activities=activities,
            schedule=plan,
            on_trace_ready=self._write,
            record_shapes=True,
            profile_memory=cuda,  # on a CPU it warns of memory that was claimed before
            acc_events=True,
        )
        self._profile.start()

    def _asked(self) -> int:
        """The steps that the file asks for; it is gone then."""
        request = self._run / REQUEST
        with open(request, encoding="utf-8", errors="replace") as file:
            text = file.read(LONGEST).strip()
        request.unlink(missing_ok=True)
        return min(max(1, int(text)), MOST_STEPS) if text.isdecimal() else STEPS

    def _write(self, found: profile) -> None:
        self._profile = None
        assert self._log is not None
        target = self._run / FOLDER / name_of(self._done)
        partial = target.with_name(f".{target.name}.partial")
        try:
            for folder in (partial, target):  # of an earlier try of the same run
                shutil.rmtree(folder, ignore_errors=True)
            partial.mkdir(parents=True)
            found.export_chrome_trace(str(partial / "trace.json.gz"))
            (partial / "operators.txt").write_text(self._operators(found))
            (partial / "memory.txt").write_text(self._memory())
            os.replace(partial, target)
            self._log.say(f"step {self._done:,}  profile in {target}")
        except (OSError, RuntimeError) as error:
            self._log.say(f"no profile: {target} could not be written ({str(error).splitlines()[0]})")
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _operators(self, found: profile) -> str:
        by = "self_device_time_total" if self._team.device.type == "cuda" else "self_cpu_time_total"
        return found.key_averages().table(sort_by=by, row_limit=OPERATORS, max_name_column_width=60) + "\n"

    def _memory(self) -> str:
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        text = f"most memory of the process so far: {peak / 1e6:,.0f} MB\n"
        device = self._team.device
        return text + (torch.cuda.memory_summary(device) + "\n" if device.type == "cuda" else "")
