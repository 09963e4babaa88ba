"""The processes of a run besides our own system: the SDK's servers, and the load tool."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from bench.load import Order, Seen
from chaos.servers import Server, free_ports, running

SPANS = "OTEL_INSTRUMENTATION_A2A_SDK_ENABLED"


@contextlib.contextmanager
def theirs(kind: str, folder: Path, *, spans: bool = True) -> Iterator[int]:
    """The SDK's own engine; gives its port. Its spans are on by default, as whoever installs it gets it.

    They are switched explicitly, since importing sidecard switches them off for this process and its children.
    """
    [port] = free_ports(1)
    command = [sys.executable, "-m", "bench.theirs", kind, str(port), str(folder / f"theirs-{kind}.db")]
    environment = {SPANS: "true" if spans else "false"}
    with running(Server(command, port, environment=environment, log=folder / f"theirs-{kind}.log")):
        yield port


@contextlib.contextmanager
def noise(order: Order) -> Iterator[None]:
    """The same beside what is done inside, for as long as that takes."""
    command = [sys.executable, "-m", "bench.load"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stdin is not None  # noqa: S101 -- asked for
    process.stdin.write(json.dumps(asdict(order)))
    process.stdin.close()
    try:
        yield
        if process.poll() is not None:
            raise RuntimeError("the load tool that makes noise ended too early: what was measured means nothing")
    finally:
        process.terminate()
        process.wait()


def load(order: Order) -> Seen:
    """Run the load tool in a process of its own. Raises RuntimeError when an answer was not as expected."""
    command = [sys.executable, "-m", "bench.load"]
    done = subprocess.run(command, input=json.dumps(asdict(order)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the load tool failed: {done.stderr[-2_000:]}")
    return Seen(**json.loads(done.stdout))
