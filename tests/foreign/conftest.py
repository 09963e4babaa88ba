"""Parties of other makes as processes of their own, and an agent of ours that they call, in this process."""

import asyncio
import contextlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from jwcrypto.jwk import JWK

from foreign.openid import running
from sidecard import Agent, Task
from sidecard.card import SignedCard
from sidecard.credentials import EXCHANGE
from sidecard.signature import sign
from sidecard.telemetry import Telemetry, current_traceparent
from sidecard.testing import MemoryStore, served

FOREIGN = Path(__file__).parents[2] / "foreign"
ADK = FOREIGN / "adk" / ".venv" / "bin" / "python"
KEY = JWK.generate(kty="EC", crv="P-256", kid="shop-1", alg="ES256")


AUDIENCE = "http://127.0.0.1:8080"
TRAVELLER = {"issuer": "company", "client": "traveller"}
RAIL = "rail:search"


def client(name, **more):
    grants = ["client_credentials", EXCHANGE]
    return {
        "client_id": name, "client_secret": f"the secret of {name}", "grant_types": grants, "response_types": [],
        "redirect_uris": [],
    } | more  # fmt: skip


@pytest.fixture(scope="session")
def openid():
    """The provider that both sides trust."""
    clients = [client("traveller"), client("shop"), client("planner", agent_url=AUDIENCE)]
    with running({"clients": clients, "scopes": f"look {RAIL}"}) as provider:
        yield provider


@pytest.fixture(scope="session")
def railways(openid, tmp_path_factory):
    """The agent made with ADK, as a process: its `url`, and the public `key` of its card."""
    file = tmp_path_factory.mktemp("railways") / "config.json"
    file.write_text(json.dumps({"issuer": openid.issuer}))
    program = [str(ADK), str(FOREIGN / "adk" / "railways.py"), str(file)]
    with (file.parent / "log").open("w") as log:
        process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        said = process.stdout.readline()
        assert said, (file.parent / "log").read_text()[-2000:]
        yield SimpleNamespace(**json.loads(said))
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


class Shop:
    """An agent of ours: finds at once, or waits until it is canceled."""

    def __init__(self):
        self.runs: list[str] = []
        self.seen: dict[str, str] = {}
        self.agent = agent = Agent(name="shop", version="1", description="Finds things.", publisher="Tests")

        @agent.skill(scope="look", idempotent=False)
        async def look(text: str, task: Task) -> str:
            """Look for something, named in a text."""
            self.runs.append(text)
            self.seen = {"caller": task.caller.name, "subject": task.subject, "trace": current_traceparent()}
            if "slowly" in text:
                await task.progress("looking everywhere")
                await asyncio.Event().wait()
            return f"found {text}"


@pytest.fixture
async def shop(listen, openid):
    """Our agent on a free port: its URL is in its card, signed with KEY; tokens for it are made out to AUDIENCE."""
    shop = Shop()
    rights = {"grants": {"shop": ["look"]}}
    callers = {"guest": {"api_key": True, **rights}, "traveller": {"token": TRAVELLER, **rights}}
    async with served(shop.agent, MemoryStore(), callers, issuers={"company": {"url": openid.issuer}}) as up:
        Telemetry().instrument_app(up.app)
        shop.url = f"http://127.0.0.1:{await listen(up.app)}"
        for interface in up.card.supported_interfaces:
            if interface.protocol_binding != "GRPC":
                interface.url = shop.url + "/" + interface.url.rpartition("/")[2]
        up.signed = SignedCard(sign(up.card, KEY))
        shop.served = up
        yield shop


def public(key=KEY):
    return key.export_public(as_dict=True)


async def run(program, config, folder, *, seconds=90):
    """Run a foreign client to its end; the exit code, and the JSON that it printed."""
    file = folder / "config.json"
    file.write_text(json.dumps(config))
    process = await asyncio.create_subprocess_exec(
        *program, str(file), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(seconds):
            said, complaints = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    sys.stderr.write(complaints.decode()[-3000:])
    return process.returncode, json.loads(said.decode().strip().splitlines()[-1])
