"""Tests of `sidecard.cli.processes`."""

import socket
import threading
import time

import pytest

from sidecard.cli import processes
from sidecard.errors import ConfigurationError


def test_a_port_about_to_be_free_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process may hold its ports a moment longer than it counts as living: that refuses nothing."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        looked = threading.Event()
        holders = processes.holders

        def look(ports: set[int]) -> dict[int, str]:
            found = holders(ports)
            looked.set()
            return found

        def let_go() -> None:
            looked.wait(10)
            held.close()

        monkeypatch.setattr(processes, "holders", look)
        last = threading.Thread(target=let_go)
        last.start()
        processes.refuse_taken({port: "the app"})
        last.join()


def test_a_port_that_stays_taken_is_refused() -> None:
    """A holder that does not go is named, within seconds."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        began = time.monotonic()
        with pytest.raises(ConfigurationError, match=r"which the app needs, is taken by process \d+ \("):
            processes.refuse_taken({held.getsockname()[1]: "the app"})
        assert time.monotonic() - began < 10
