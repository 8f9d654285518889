"""Values made when first asked for: once, and never behind a lock of another thread."""

import os
import signal
import threading

import pytest

from toto.lazy import cached_property


class Slow:
    """An object whose value is made when it is told to."""

    def __init__(self) -> None:
        self.begun, self.go_on, self.made = threading.Event(), threading.Event(), 0

    @cached_property
    def value(self) -> int:
        """How often it was made."""
        self.begun.set()
        assert self.go_on.wait(200)
        self.made += 1
        return self.made


def test_a_value_is_made_once() -> None:
    slow = Slow()
    slow.go_on.set()
    assert (slow.value, slow.value, slow.made) == (1, 1, 1)
    assert Slow.value.__doc__ == "How often it was made."


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_process_forked_while_a_thread_makes_a_value_makes_its_own() -> None:
    others, mine = Slow(), Slow()
    mine.go_on.set()
    thread = threading.Thread(target=lambda: others.value)
    thread.start()
    assert others.begun.wait(200)
    child = os.fork()
    if not child:
        signal.alarm(200)  # instead of waiting for ever
        os._exit(mine.value)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    others.go_on.set()
    thread.join()
    assert others.value == 1
