"""How tests share two workers: what starts real processes runs on one, file by file on the other all else.

And real servers on this machine.
"""

import contextlib
import signal

import pytest
import uvicorn
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.desk import key, project, system, tokens, webhook_port
from tests.listening import serving
from tests.provider import provider

__all__ = ["key", "project", "provider", "system", "tokens", "webhook_port"]

SYSTEM = tuple(
    f"tests/{part}"
    for part in (
        "bench/", "chaos/", "docs/", "e2e/", "k8s/", "security/test_mesh.py", "stores/", "sidecard/cli/test_system.py"
    )
)  # fmt: skip
"""They use the same ports, or the machine's whole attention."""


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a shell's background; what is started here would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Scheduling(LoadScopeScheduling):
    """Gives each worker whole files, and all of SYSTEM to one."""

    def _split_scope(self, nodeid: str) -> str:
        return "system" if nodeid.startswith(SYSTEM) else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    """Used where tests run on several workers."""
    return Scheduling(config, log)


@pytest.fixture
async def listen():
    """Serves an ASGI app on a free port of 127.0.0.1 until the test ends; returns the port."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(app) -> int:
            config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1)
            return await stack.enter_async_context(serving(uvicorn.Server(config)))

        yield start
