"""A real agent over a store in memory, behind what looks like the user's sidecar, and the project that names both."""

import contextlib
import hashlib
import json
import socket
import threading
import time

import pytest
import uvicorn
import yaml
from fastapi import FastAPI
from jwcrypto.jwk import JWK
from pydantic import BaseModel
from starlette.responses import JSONResponse, PlainTextResponse

from sidecard import Agent, File, Task
from sidecard.agent_card import describe
from sidecard.app import serve_on
from sidecard.callers import Callers, CallersFile
from sidecard.card import SignedCard
from sidecard.cli.project import Project
from sidecard.door import Door
from sidecard.extended_card import ExtendedCards
from sidecard.screening.local import LocalScreen
from sidecard.settings import Settings
from sidecard.signature import sign
from sidecard.tasks.handler import DurableRequestHandler
from sidecard.testing import MemoryStore, started

SCREEN = LocalScreen()
APP_TOKEN, DAPR_TOKEN = "only the shop's sidecar knows", "only desk's apps know"
CALLERS = {
    "callers": {
        "desk": {"sidecar": True, "tenants": ["north"], "grants": {"shop": ["buy"]}},
        "boss": {"api_key": True, "grants": {"shop": ["approve"]}},
        "guest": {"api_key": True, "grants": {"shop": ["look"]}},
    }
}


class Order(BaseModel):
    """What the skills take."""

    text: str = ""
    count: int = 1
    list: File | None = None


class Receipt(BaseModel):
    """What one of them gives."""

    said: str


def shop():
    """An agent with one skill per way that a task can go."""
    agent = Agent(name="shop", version="1.0.0", description="Sells.", publisher="Tests", asks=("approve", "look"))

    @agent.skill(scope="buy", idempotent=True)
    async def buy(order: Order, task: Task) -> Receipt:
        """Buy something."""
        given = f" and {order.list.name} of {len(order.list.content)} bytes" if order.list else ""
        return Receipt(said=f"{order.count} {order.text}{given}")

    @agent.skill(scope="buy", idempotent=False)
    async def choose(order: Order, task: Task) -> str:
        """Ask which one.

        Then say it.
        """
        answer = await task.ask("Which one?", options={"A": "the first", "B": "the second"})
        return f"{answer.choice} for {answer.by}"

    @agent.skill(scope="buy", idempotent=False)
    async def spend(order: Order, task: Task) -> str:
        """Ask somebody else."""
        answer = await task.ask("May they?", options={"yes": "Approve", "no": "Refuse"}, scope="approve", by_other=True)
        return f"{answer.choice} by {answer.by}"

    @agent.skill(scope="buy", idempotent=False)
    async def tell(order: Order, task: Task) -> None:
        """Tell how it goes."""
        await task.progress("half way")
        await task.artifact("report", "all [bold]well[/bold] \x1b[31m")

    @agent.skill(scope="buy", idempotent=False)
    async def charge(order: Order, task: Task) -> str:
        """Ask for a card."""
        granted = await task.authorize("May 9 EUR be charged?", authority="card:charge", details={"Amount": "9 EUR"})
        return f"{granted.authority} by {granted.by}"

    @agent.skill(scope="buy", idempotent=False)
    async def refuse(order: Order, task: Task) -> None:
        """Reject everything."""
        task.reject("sold out")

    return agent


class FakeSidecar:
    """In front of the agent: passes on what desk's sidecar would, answers in Dapr's words where that would not.

    Direct requests pass unchanged. `cut` is after how many pieces of a stream the next one is broken off. As daprd 1.18
    does it says 200 text/event-stream to every request for a stream, whatever the app answers.
    """

    def __init__(self, app):
        self.app = app
        self.cut = None
        self.opened = []

    async def __call__(self, scope, receive, send):
        prefix = "/v1.0/invoke/"
        if scope["type"] != "http" or not scope["path"].startswith(prefix):
            await self.app(scope, receive, send)
            return
        app_id, path = scope["path"].removeprefix(prefix).split("/method", 1)
        headers = dict(scope["headers"])
        if headers.get(b"dapr-api-token") != DAPR_TOKEN.encode():
            await PlainTextResponse("invalid api token", 401)(scope, receive, send)
        elif app_id == "guarded":
            await _dapr_error(403, "rpc error: code = PermissionDenied desc = access control policy has denied access")(
                scope, receive, send
            )
        elif app_id != "shop":
            await _dapr_error(500, f"couldn't find service: {app_id}")(scope, receive, send)
        else:
            headers |= {b"dapr-api-token": APP_TOKEN.encode(), b"dapr-caller-app-id": b"desk"}
            scope = {**scope, "path": path, "raw_path": path.encode(), "headers": list(headers.items())}
            streams = headers.get(b"accept", b"").startswith(b"text/event-stream")
            await self.app(scope, receive, self._cutting(_as_stream(send) if streams else send))

    def _cutting(self, send):
        sent = 0

        async def forward(message):
            nonlocal sent
            if message["type"] == "http.response.start":
                self.opened.append(dict(message["headers"]).get(b"content-type", b"").decode())
            elif self.cut is not None and "event-stream" in self.opened[-1]:
                sent += 1
                if sent > self.cut:
                    self.cut = None
                    raise ConnectionAbortedError
            await send(message)

        return forward


def _as_stream(send):
    async def forward(message):
        if message["type"] == "http.response.start":
            message = {**message, "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
        await send(message)

    return forward


def _dapr_error(status, reason):
    return JSONResponse(
        {"errorCode": "ERR_DIRECT_INVOKE", "message": f"failed to invoke, id: x, err: {reason}"}, status
    )


@pytest.fixture
def key():
    """What signs the shop's card."""
    return JWK.generate(kty="EC", crv="P-256", kid="shop-1", alg="ES256")


@pytest.fixture
def port():
    """A free one, ours."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        yield bound


@pytest.fixture
def project(tmp_path, monkeypatch, key, port):
    """A project whose dapr.yaml names the shop, another agent that lets nobody in, and desk; the working directory."""
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "DAPR_HTTP_PORT", "DAPR_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    number = port.getsockname()[1]
    ports = {"daprGRPCPort": 2, "daprInternalGRPCPort": 3, "metricsPort": 4, "configFilePath": "x"}
    agent = {**ports, "daprHTTPPort": 1, "appPort": number, "env": {"SIDECARD_GRPC_PORT": "5"}}
    apps = [
        {**agent, "appID": "shop"},
        {**agent, "appID": "guarded"},
        {**agent, "appID": "gone"},
        {**ports, "appID": "desk", "daprHTTPPort": number},
    ]
    (tmp_path / "dapr.yaml").write_text(yaml.safe_dump({"name": "Tests", "apps": apps}))
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "callers.yaml").write_text(yaml.safe_dump(CALLERS))
    local = tmp_path / ".sidecard"
    (local / "tokens").mkdir(parents=True)
    (local / "tokens" / "desk.env").write_text(f"APP_API_TOKEN=x\nDAPR_API_TOKEN={DAPR_TOKEN}\n")
    (local / "keys").mkdir()
    for caller in ("boss", "guest"):
        (local / "keys" / f"{caller}.key").write_text(f"the key of {caller}\n")
    public = {**key.export_public(as_dict=True), "agents": ["shop"]}
    (local / "trust.json").write_text(json.dumps({"publishers": {"Tests": {"keys": [public]}}}))
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


@pytest.fixture
def sidecar(project, key, port):
    """The running shop behind its sidecar."""
    agent = shop()
    card = describe(agent, Settings(APP_ID="shop"))
    signed = SignedCard(sign(card, key))
    keys = {hashlib.sha256(f"the key of {name}".encode()).hexdigest(): name for name in ("boss", "guest")}
    callers = Callers("shop", CallersFile.model_validate(CALLERS), app_token=APP_TOKEN, api_keys=keys)
    cards = ExtendedCards(lambda: card, agent, lambda unsigned: sign(unsigned, key))
    engines = []

    @contextlib.asynccontextmanager
    async def lifespan(_):
        await SCREEN.start()
        async with started(agent, MemoryStore(), screen=SCREEN) as engine:
            engines.append(engine)
            yield

    handler = DurableRequestHandler(lambda: engines[0], scopes_of=callers.scopes_of, extended_card=cards.of)
    app = FastAPI(lifespan=lifespan)
    serve_on(app, handler, Door(callers.identify), lambda: signed, 1_000_000)
    front = FakeSidecar(app)
    server = uvicorn.Server(uvicorn.Config(front, log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [port]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    yield front
    server.should_exit = True
    thread.join(5)
