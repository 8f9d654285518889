"""python -m toto.demo: see road.py."""

from toto import command
from toto.demo.road import cli

command.run(cli)
