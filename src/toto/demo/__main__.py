"""python -m toto.demo: see road.py."""

from toto.console import demo

demo()
