"""The processes of a run besides our own system: the SDK's servers, and the load tool."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from bench.load import Order, Seen

START_SECONDS = 30
SPANS = "OTEL_INSTRUMENTATION_A2A_SDK_ENABLED"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@contextlib.contextmanager
def running(command: list[str], port: int, *, user: str = "", **environment: str) -> Iterator[None]:
    """A server that listens on a port inside, and is gone afterwards. Raises RuntimeError when it does not start."""
    process = subprocess.Popen(command, env={**os.environ, **environment}, user=user or None)
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"this did not start, see above: {' '.join(command)}")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait()


@contextlib.contextmanager
def theirs(kind: str, folder: Path, *, spans: bool = True) -> Iterator[int]:
    """The SDK's own engine; gives its port. Its spans are on by default, as whoever installs it gets it.

    They are switched explicitly, since importing sidecard switches them off for this process and its children.
    """
    [port] = free_ports(1)
    command = [sys.executable, "-m", "bench.theirs", kind, str(port), str(folder / f"theirs-{kind}.db")]
    with running(command, port, **{SPANS: "true" if spans else "false"}):
        yield port


def load(order: Order) -> Seen:
    """Run the load tool in a process of its own. Raises RuntimeError when an answer was not as expected."""
    command = [sys.executable, "-m", "bench.load"]
    done = subprocess.run(command, input=json.dumps(asdict(order)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the load tool failed: {done.stderr[-2_000:]}")
    return Seen(**json.loads(done.stdout))
