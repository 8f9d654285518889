"""The console scripts: nothing heavy before it is needed, and a signal while it is imported ends it in one line."""

import signal
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import click
import pytest
from clips import environment

from toto import console
from toto.command import CommandGroup, Later
from toto.errors import UsageError

STAGES = ("tokenize", "shards", "train", "evaluate")
LIBRARIES = ("numpy", "pyarrow", "torch", "ray", "av", "scipy", "fsspec", "yaml", "importlib.resources")
STUBBORN = """
import os, signal, sys, time
try:
    os.kill(os.getpid(), signal.{})
    time.sleep(60)
except BaseException:  # as libraries do that try what they can import
    pass
command = main = lambda: print("went on", file=sys.stderr)
"""
AT_ITS_TOP = "import click, toto.command as c\ndef x():\n import stubborn\nc.run(click.command()(x))"
LATER = (
    "import click, toto.command as c; g = c.CommandGroup('g'); g.add_command(c.Later('x', 'stubborn:command', '')); "
)


def python(statements: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", statements, *arguments]
    return subprocess.run(line, env=environment(PYTHONPATH=str(folder)), capture_output=True, text=True, timeout=200)


@pytest.mark.parametrize("begun", ["from toto.console import _main; _main('stubborn')", LATER + "c.run(g)", AT_ITS_TOP])
@pytest.mark.parametrize(("name", "code", "said"), [("SIGINT", 130, "Ctrl-C"), ("SIGTERM", 143, "SIGTERM")])
def test_a_signal_while_a_library_is_imported_ends_the_command_in_one_line(
    begun: str, name: str, code: int, said: str, tmp_path: Path
) -> None:
    (tmp_path / "stubborn.py").write_text(STUBBORN.format(name))
    done = python(begun, tmp_path, *(["x"] if begun.startswith(LATER) else []))
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"error: stopped by {said}\n")


def test_signals_while_a_command_imports_wait_for_the_import_and_then_stop_it_once(tmp_path: Path) -> None:
    """Its `finally` runs, to its end: what is begun can be saved."""
    twice = STUBBORN.format("SIGINT").replace("os.kill", "for _ in 'ab': os.kill").replace("60", "0.1")
    (tmp_path / "stubborn.py").write_text(twice)
    begun = "def f():\n try:\n  import stubborn, time; time.sleep(60)\n finally: time.sleep(0.2); print('saved')\n"
    done = python(f"import click, toto.command as c\n{begun}c.run(click.command()(lambda: f()))", tmp_path)
    assert (done.returncode, done.stdout) == (130, "saved\n")
    assert done.stderr.strip() == "error: stopped by Ctrl-C; run the same command again to go on"


@pytest.mark.parametrize(("name", "said"), [("SIGINT", "Ctrl-C"), ("SIGTERM", "SIGTERM")])
def test_what_leaves_nothing_to_go_on_from_says_so_when_it_is_stopped(name: str, said: str, tmp_path: Path) -> None:
    begun = f"def f():\n with c.starting_anew():\n  os.kill(os.getpid(), signal.{name}); time.sleep(60)\n"
    head = "import click, os, signal, time, toto.command as c\n"
    done = python(f"{head}{begun}c.run(click.command()(lambda: f()))", tmp_path)
    assert done.stderr.strip() == f"error: stopped by {said}; nothing was written; the same command starts anew"


def test_a_ctrl_c_that_is_ignored_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: dict[int, object] = {}
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_IGN)
    monkeypatch.setattr(signal, "signal", lambda number, handler: set_to.update({number: handler}))
    console.on_stop(console.leave)
    assert set_to == {signal.SIGTERM: console.leave}


def test_pyarrow_imports_pandas_for_others_only(tmp_path: Path) -> None:
    """To ask whether a value is a Series it would, where it is installed: 0.5 s of every command that opens shards."""
    pytest.importorskip("pandas")
    asked = "import pyarrow, pyarrow.compute as pc; a = pc.add(pyarrow.array([1]), 1); a.to_numpy()"
    found = "print('pandas' in sys.modules)"
    ours = f"import sys; from toto import console; console._without_pandas(); exec({asked!r}, {{'__name__': 'toto.x'}})"
    theirs = f"exec({asked.replace('to_numpy', 'to_pandas')!r}, {{'__name__': 'x'}})"
    done = python(f"{ours}; {found}; {theirs}; {found}", tmp_path)
    assert (done.stdout, done.stderr) == ("False\nTrue\n", "")


def test_lists_of_commands_wait_for_no_library(tmp_path: Path) -> None:
    listed = "; ".join(f"import toto.{stage}.cli as c; c.cli.get_help(click.Context(c.cli))" for stage in STAGES)
    done = python(f"import click, sys; {listed}; print(*sys.modules)", tmp_path)
    assert done.returncode == 0, done.stderr
    assert not {*done.stdout.split()}.intersection(LIBRARIES)


@pytest.mark.parametrize("stage", STAGES)
def test_what_stands_for_a_command_says_what_the_command_says(stage: str) -> None:
    cli = import_module(f"toto.{stage}.cli").cli
    assert isinstance(cli, CommandGroup)
    for name, stands in cli.commands.items():
        command = stands.load() if isinstance(stands, Later) else stands
        assert command.name == name
        assert (command.help or "").partition("\n")[0] == (stands.help or "").partition("\n")[0]
        assert [option.name for option in command.params].count("debug") == 1


def test_every_console_script_is_a_function_here(root: Path) -> None:
    scripts = tomllib.loads((root / "pyproject.toml").read_text())["project"]["scripts"]
    assert len(scripts) == len(STAGES)
    for place in scripts.values():
        module, _, function = place.partition(":")
        assert callable(getattr(import_module(module), function))


def test_a_group_lists_its_commands_in_the_order_of_their_use_and_whole() -> None:
    first_line = "What a command does, in more words than a terminal of eighty columns has room for in one line."
    group = CommandGroup("g", commands=None)
    for name in ("plan", "do", "again"):
        group.add_command(Later(name, "nowhere:nothing", first_line))
    text = " ".join(group.get_help(click.Context(group, terminal_width=80)).split())
    assert [text.index(f"{name} What") for name in ("plan", "do", "again")] == sorted(
        text.index(f"{name} What") for name in ("plan", "do", "again")
    )
    assert text.count(first_line) == 3


def test_a_command_that_is_none_is_told_with_those_that_are() -> None:
    group = CommandGroup("group")
    group.add_command(Later("info", "toto.shards.cli:info", ""))
    with pytest.raises(UsageError, match="unknown command 'inf'; did you mean 'info'\\?\nknown: info"):
        group.main(["inf"], standalone_mode=False)
