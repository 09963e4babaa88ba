"""Programs of other firms as processes beside this one: the agent made with Google's ADK, and clients of ours."""

import asyncio
import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from foreign import program

FOREIGN = Path(__file__).parent
ADK = FOREIGN / "adk" / ".venv" / "bin" / "python"
TRAVELLER = (str(ADK), str(FOREIGN / "adk" / "traveller.py"))
"""The client made with ADK: see there for what its configuration has, and what it prints."""
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"


@dataclass
class Railways:
    """The running agent of adk/railways.py: its base URL, and the public JWK that its card is signed with."""

    url: str
    key: dict[str, str]
    counted: int = 0

    def seen(self) -> list[dict[str, Any]]:
        """The requests that came since this was last asked, as its doorman noted them."""
        every: list[dict[str, Any]] = httpx.get(f"{self.url}/seen").json()
        fresh, self.counted = every[self.counted :], len(every)
        return fresh


def client(name: str, **more: object) -> dict[str, object]:
    """A program as the OpenID provider's client, which gets tokens for itself and may exchange those made out to it."""
    return {
        "client_id": name, "client_secret": secret_of(name), "grant_types": ["client_credentials", EXCHANGE],
        "response_types": [], "redirect_uris": [],
    } | more  # fmt: skip


def secret_of(name: str) -> str:
    """What that client authenticates with: at a provider that lives for one test or one tour, on this machine."""
    return f"the secret of {name}"


@contextlib.contextmanager
def railways(issuer: str) -> Iterator[Railways]:
    """The agent made with ADK, which takes tokens of this issuer, during the block.

    Raises RuntimeError, with what it said, when it does not start.
    """
    command = [str(ADK), str(FOREIGN / "adk" / "railways.py")]
    with program.running("the agent made with ADK", command, {"issuer": issuer}) as said:
        yield Railways(**said)


async def run(
    command: Sequence[str], config: Mapping[str, Any], *, seconds: float = 90
) -> tuple[int | None, dict[str, Any]]:
    """Run a foreign client to its end; the exit code, and the JSON that it printed. Raises TimeoutError."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.json")
        file.write_text(json.dumps(config))  # noqa: ASYNC240 -- a few lines
        process = await asyncio.create_subprocess_exec(
            *command, str(file), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        try:
            async with asyncio.timeout(seconds):
                said, complaints = await process.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    lines = said.decode().strip().splitlines()
    if not lines:
        raise RuntimeError(f"{command[-1]} said nothing: {complaints.decode()[-2000:]}")
    return process.returncode, json.loads(lines[-1])
