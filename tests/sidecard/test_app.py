"""An agent's process: what it answers while it starts, what an operator reads when it can't, how it ends."""

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from typing import ClassVar

import httpx
import pytest
from jwcrypto.jwk import JWK
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

import sidecard.service
from sidecard import Agent, Task, create_app, revocations, serve
from sidecard.callers import KEY_HEADER
from sidecard.card import fetch_card
from sidecard.errors import ConfigurationError
from sidecard.refusals import JSON_RPC_CODES, Unavailable
from sidecard.settings import Settings
from sidecard.signature import digest
from sidecard.tasks.store import KINDS
from sidecard.telemetry import Telemetry
from sidecard.testing import FakeIssuer, MemoryStore
from sidecard.topic import TopicName
from sidecard.trust import TrustStore
from tests.foreign.test_openid import signed_in
from tests.sidecard.authority import Authority
from tests.waiting import until

SIGNING = JWK.generate(kty="EC", crv="P-256", kid="shop-1", alg="ES256")
TRUST = json.dumps({"publishers": {"Tests": {"keys": [SIGNING.export_public(as_dict=True)]}}})
CALLERS = """
callers:
  ada: {api_key: true, grants: {shop: [look]}}
  desk: {sidecar: true, grants: {shop: [look]}}
"""
SEND = {
    "jsonrpc": "2.0", "id": 1, "method": "SendMessage",
    "params": {"message": {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": "hat"}]}},
}  # fmt: skip
REVOKED = {"mark": "caller:ada", "since": "2026-11-21T12:00:00Z", "by": "desk"}
agent = Agent(name="shop", version="1", description="Sells.", publisher="Tests")


@agent.skill(scope="look", idempotent=True)
async def look(text: str, task: Task) -> str:
    """Look."""
    return text


class Store(MemoryStore):
    """The state store, which notes that it was closed."""

    closed = False

    async def recognise(self):
        self.shared, self.atomic = KINDS["state.sqlite"]

    async def close(self):
        self.closed = True


class Sidecar:
    """An own sidecar's HTTP API: the agent's secrets, and a registry that notes who enrols, and who is `revoked`."""

    def __init__(self) -> None:
        keys = {hashlib.sha256(b"ada's key").hexdigest(): "ada"}
        self.secrets = {
            "shop": {"signing-key": SIGNING.export(), "api-keys": json.dumps(keys), "task-id-key": "ab" * 32},
            "trust": {"publishers": TRUST},
        }
        self.enrolled: list[dict] = []
        self.tokens: set[str] = set()
        self.revoked: list[dict] = []
        self.registry = True
        self.app = Starlette(
            routes=[
                Route("/v1.0/secrets/secrets/{name}", self._secret),
                Route("/v1.0/invoke/registry/method/agents", self._enrol, methods=["PUT"]),
                Route("/v1.0/invoke/registry/method/revoked", self._revoked),
            ]
        )

    async def _secret(self, request):
        self.tokens.add(request.headers["dapr-api-token"])
        secret = self.secrets.get(request.path_params["name"])
        return JSONResponse(secret, 200 if secret else 403)

    async def _revoked(self, request):
        return JSONResponse({"revoked": self.revoked}, 200 if self.registry else 503)

    async def _enrol(self, request):
        self.enrolled.append(await request.json())
        return JSONResponse({"error": "not today"}, 503)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project's folder with its callers, as the working directory; the environment says nothing of settings."""
    monkeypatch.chdir(tmp_path)
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.validation_alias), raising=False)
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "callers.yaml").write_text(CALLERS)
    return tmp_path


@pytest.fixture
def store(monkeypatch):
    """The state store of agents that are served here."""
    store = Store()
    monkeypatch.setattr(sidecard.service, "DaprStateStore", lambda **_: store)
    for name in ("SIDECAR_RETRY_SECONDS", "STORE_RETRY_SECONDS"):
        monkeypatch.setattr(sidecard.service, name, 0.01)
    return store


@contextlib.asynccontextmanager
async def running(dapr_http_port=1, **settings):
    """The agent's app while it lives, and a client of it."""
    settings = {"app_api_token": "app's", "dapr_api_token": "sidecar's"} | settings
    app = create_app(agent, Settings(app_id="shop", dapr_http_port=dapr_http_port, **settings), Telemetry())
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as http,
    ):
        yield app.state.service, http


def adas(**headers):
    return {KEY_HEADER: "ada's key", "A2A-Version": "1.0"} | headers


# -- while it starts -------------------------------------------------------------------------------------------------


async def test_without_its_sidecar_it_lives_and_is_not_ready(project, store, caplog, monkeypatch):
    """Probes tell the two apart, everything else answers 503, and the log says every few seconds what it waits for."""
    monkeypatch.setattr(sidecard.service, "SIDECAR_REMINDER_SECONDS", 0.05)
    with caplog.at_level(logging.WARNING, "sidecard"):
        async with running() as (service, http):
            assert (await http.get("/healthz")).json() == {"alive": True}
            ready = await http.get("/readyz")
            assert (ready.status_code, ready.json()) == (503, {"ready": False, "detail": ""})
            card = await http.get("/.well-known/agent-card.json")
            assert (card.status_code, card.headers["cache-control"]) == (503, "no-store")
            for path in ("/a2a", "/rest/message:send"):
                answer = await http.post(path, json=SEND, headers=adas())
                assert answer.status_code == 503
                assert "its sidecar is not up yet; try again" in answer.text
            await until(lambda: len(caplog.records) > 1)
            assert service.failure is None
    assert {record.getMessage() for record in caplog.records} == {
        "shop waits for its sidecar: The secret 'shop' (signing-key) of component 'secrets' can't be read: "
        "the own sidecar does not answer; start it."
    }


async def test_it_is_ready_once_sidecar_and_store_answer(project, store, listen, caplog):
    """It shows its signed card, serves both bindings, and enrols itself; a store that is late is waited for."""
    sidecar = Sidecar()
    store.down = True
    async with running(await listen(sidecar.app)) as (service, http):
        await until(lambda: "waits for its state store: the store is down" in caplog.text)
        card = await fetch_card(http, "http://shop", TrustStore.parse(TRUST), agent="shop")
        answer = await http.post("/a2a", json=SEND, headers=adas())
        assert answer.json()["error"]["code"] == JSON_RPC_CODES[Unavailable]
        assert (await http.get("/readyz")).status_code == 503
        store.down = False
        await until(lambda: service.ready)
        assert (await http.get("/readyz")).json() == {"ready": True, "detail": ""}
        answer = await http.post("/a2a", json=SEND, headers=adas())
        assert answer.json()["result"]["task"]["artifacts"][0]["parts"][0]["text"] == "hat"
        assert (await http.post("/rest/message:send", json=SEND["params"], headers=adas())).status_code == 200
        await until(lambda: sidecar.enrolled)
    assert card.digest == digest(service.signed_card().card)
    lets = {"ada": ["look"], "desk": ["look"]}
    assert sidecar.enrolled[0] == {"app_id": "shop", "kind": "a2a", "url": "http://127.0.0.1:8080", "lets": lets}
    assert sidecar.tokens == {"sidecar's"}


@pytest.fixture
def people(project):
    """Adds an issuer to the callers, whose people may look."""

    def add(url):
        everyone = f"{{company: {{url: '{url}', everyone: {{grants: {{shop: [look]}}}}}}}}"
        (project / "agents" / "callers.yaml").write_text(f"issuers: {everyone}\n{CALLERS}")

    return add


async def test_the_card_says_how_tokens_are_got_and_they_are_taken(project, store, listen, people, provider):
    """As soon as their issuer has said it; a token is for the configured audience."""
    people(provider.issuer)
    async with running(await listen(Sidecar().app), audience="http://127.0.0.1:9999") as (service, http):
        await until(lambda: service.ready and "company" in service.signed_card().card.security_schemes)
        card = await fetch_card(http, "http://shop", TrustStore.parse(TRUST), agent="shop")
        assert {"apiKey", "sidecar", "bearer", "company-code", "company-device"} < set(card.card.security_schemes)
        token = signed_in(provider, resource="http://127.0.0.1:9999")["access_token"]
        headers = {"Authorization": f"Bearer {token}", "A2A-Version": "1.0"}
        assert (await http.post("/a2a", json=SEND, headers=headers)).status_code == 200
        told = (await http.get("/.well-known/oauth-protected-resource")).json()
        assert (told["resource"], told["authorization_servers"]) == ("http://127.0.0.1:9999", [provider.issuer])


async def test_an_issuer_that_is_down_keeps_out_only_who_comes_with_its_tokens(project, store, listen, people):
    """The agent starts, and others are served; its card says how to get tokens when the issuer is there."""
    people("http://127.0.0.1:1")
    async with running(await listen(Sidecar().app)) as (service, http):
        await until(lambda: service.ready)
        assert (await http.post("/a2a", json=SEND, headers=adas())).status_code == 200
        assert "bearer" in service.signed_card().card.security_schemes
        assert "company" not in service.signed_card().card.security_schemes
        token = FakeIssuer("http://127.0.0.1:1").token()
        headers = {"Authorization": f"Bearer {token}", "A2A-Version": "1.0"}
        answer = await http.post("/a2a", json=SEND, headers=headers)
        assert (answer.status_code, "can't be checked now" in answer.text) == (503, True)


async def test_the_settings_reach_the_door(project, store, listen):
    """The app token is the configured one, and so is the body limit; the door itself is tested in test_edge."""
    async with running(await listen(Sidecar().app), max_body_bytes=2_000) as (service, http):
        await until(lambda: service.ready)
        for token, status in (("app's", 200), ("sidecar's", 401), ("", 401)):
            headers = {"dapr-api-token": token, "dapr-caller-app-id": "desk", "A2A-Version": "1.0"}
            assert (await http.post("/a2a", json=SEND, headers=headers)).status_code == status
        answer = await http.post("/a2a", json=SEND | {"padding": "x" * 2_000}, headers=adas())
        assert answer.status_code == 413


async def test_who_is_revoked_is_refused(project, store, listen, monkeypatch):
    """As soon as the registry says so, and let in again when it says that."""
    monkeypatch.setattr(revocations, "HEAR_SECONDS", 0.01)
    sidecar = Sidecar()
    async with running(await listen(sidecar.app)) as (service, http):
        await until(lambda: service.ready)

        async def becomes(status):
            async with asyncio.timeout(10):
                while (await http.post("/a2a", json=SEND, headers=adas())).status_code != status:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)

        await becomes(200)
        sidecar.revoked = [REVOKED]
        await becomes(401)
        assert service.scopes_of("ada") == set()
        sidecar.revoked = []
        await becomes(200)


async def test_without_a_word_of_who_is_revoked_it_is_not_ready(project, store, listen, caplog, monkeypatch):
    """Nobody is let in, not even to the extended card; what it heard once is enough to start."""
    monkeypatch.setattr(revocations, "REMINDER_SECONDS", 0.01)
    monkeypatch.setattr(revocations, "HEAR_SECONDS", 0.01)
    sidecar = Sidecar()
    sidecar.registry, sidecar.revoked = False, [REVOKED]
    port = await listen(sidecar.app)
    card = {"jsonrpc": "2.0", "id": 1, "method": "GetExtendedAgentCard"}
    async with running(port) as (service, http):
        await until(lambda: "shop waits for the registry, to learn who is revoked" in caplog.text)
        assert not service.ready
        assert (await http.post("/a2a", json=card, headers=adas())).status_code == 503
        sidecar.registry = True
        await until(lambda: service.ready)
        assert (await http.post("/a2a", json=SEND, headers=adas())).status_code == 401
    sidecar.registry = False
    async with running(port) as (service, http):
        await until(lambda: service.ready)
        assert (await http.post("/a2a", json=SEND, headers=adas())).status_code == 401


async def test_an_app_without_a_token_believes_no_sidecar(project, store, listen):
    """An empty token must not match an empty header."""
    async with running(await listen(Sidecar().app), app_api_token="") as (service, http):
        await until(lambda: service.ready)
        headers = {"dapr-api-token": "", "dapr-caller-app-id": "desk", "A2A-Version": "1.0"}
        assert (await http.post("/a2a", json=SEND, headers=headers)).status_code == 401


async def test_it_is_served_over_tls_beside_where_that_is_set_up(project, store, listen, tmp_path):
    """On a port of its own, to the same callers; a port that is taken, or a missing file, stops it with one line."""
    authority = Authority(tmp_path)
    server = authority.server()
    tls = {"tls_certificate": server.certificate, "tls_key": server.key}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with running(await listen(Sidecar().app), tls_port=port, **tls) as (service, _):
            await until(lambda: service.failure)
            assert f"SIDECARD_TLS_PORT {port} can't be served: " in str(service.failure)
    async with running(await listen(Sidecar().app), tls_port=port, **tls) as (service, _):
        await until(lambda: service.ready)
        async with httpx.AsyncClient(verify=ssl.create_default_context(cafile=str(authority.file))) as http:
            for headers, status in ((adas(), 200), ({}, 401)):
                url = f"https://127.0.0.1:{port}"
                assert (await http.post(f"{url}/a2a", json=SEND, headers=headers)).status_code == status
            assert (await http.get(f"{url}/readyz")).json()["ready"]
    server.key.unlink()
    async with running(await listen(Sidecar().app), tls_port=port, **tls) as (service, _):
        await until(lambda: service.failure)
        assert "TLS can't be served with certificate" in str(service.failure)


# -- when it can't ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "key", "value", "words"),
    [
        ("shop", None, None, "secret 'shop' .signing-key. .*allowedSecrets"),
        ("trust", None, None, "secret 'trust' .publishers. .*allowedSecrets"),
        ("shop", "signing-key", None, "secret 'shop' .signing-key. .*does not exist: run `sidecard bootstrap`"),
        ("shop", "signing-key", "{}", "signing key.*run `sidecard bootstrap`"),
        ("shop", "api-keys", "[hush]", "secret api-keys is not a JSON object.*run `sidecard bootstrap`"),
        ("shop", "api-keys", '["hush"]', "secret api-keys is not a JSON object"),
        ("shop", "task-id-key", "0123hush", "secret task-id-key is not 16 bytes.*run `sidecard bootstrap`"),
        ("shop", "task-id-key", "", "secret task-id-key is not 16 bytes"),
        ("shop", "task-id-key", "ab" * 32 + " 0123", "secret task-id-key is not 16 bytes"),
        ("trust", "publishers", "[]", "trust file can't be read.*run `sidecard bootstrap`"),
    ],
)
async def test_a_wrong_secret_stops_it_with_one_line(project, store, listen, caplog, name, key, value, words):  # noqa: PLR0917
    """Named, with what to do and without its content; both probes say that it does not run, and it is told to end."""
    sidecar = Sidecar()
    if key is None:
        del sidecar.secrets[name]
    elif value is None:
        del sidecar.secrets[name][key]
    else:
        sidecar.secrets[name][key] = value
    async with running(await listen(sidecar.app)) as (service, http):
        ended = asyncio.Event()
        service.on_failure = ended.set
        await asyncio.wait_for(ended.wait(), 10)
        assert (await http.get("/healthz")).status_code == 503
        ready = await http.get("/readyz")
        assert (ready.status_code, ready.json()["detail"]) == (503, str(service.failure))
    (line,) = [record.getMessage() for record in caplog.records if record.name == "sidecard"]
    assert line == f"shop can't run: {service.failure}"
    assert "\n" not in line
    assert "hush" not in line
    assert re.search(words, line)


async def test_a_later_process_on_the_same_store_ends_the_earlier_one(project, store, listen):
    """Where a store is for one process; the earlier says what has happened, and serves no more."""
    async with running(await listen(Sidecar().app)) as (service, http):
        await until(lambda: service.ready)
        async with running(await listen(Sidecar().app)) as (later, _):
            await until(lambda: later.ready)
            await http.post("/a2a", json=SEND, headers=adas())
            await until(lambda: service.failure)
            assert "another process serves its tasks" in str(service.failure)
            assert later.ready


class Broker:
    """Stands for the topic; `missing` when its sidecar has no such component."""

    missing = False
    opened: ClassVar[list] = []

    def __init__(self, agent, name, *, port, token):
        self.name, self.token, self.closed = name, token, False
        self.opened.append(self)

    async def recognise(self):
        if self.missing:
            raise ConfigurationError("there is no such component")

    async def close(self):
        self.closed = True


async def test_what_leaves_it_is_as_its_settings_say(project, store, listen, monkeypatch):
    """How long deliveries are tried, and the topic, which must be there; nothing of that without them."""
    monkeypatch.setattr(sidecard.service, "Topic", Broker)
    async with running(await listen(Sidecar().app)) as (service, _):
        await until(lambda: service.ready)
        assert not service.engine().outbox._delivery.to_topic
        assert not service.engine().outbox._delivery.to_webhooks
        assert not service.engine().journal.publishes
        assert not Broker.opened
    async with running(await listen(Sidecar().app), topic="pubsub/tasks", delivery_days=0.5) as (service, _):
        await until(lambda: service.ready)
        assert service.engine().journal.publishes
        assert service.engine().outbox._delivery.to_topic
        assert service.engine().outbox._delivery._backoff.patience == 43_200
        (broker,) = Broker.opened
        assert (broker.name, broker.token) == (TopicName("pubsub", "tasks"), "sidecar's")
    assert broker.closed
    monkeypatch.setattr(Broker, "missing", True)
    async with running(await listen(Sidecar().app), topic="pubsub/tasks") as (service, _):
        await until(lambda: service.failure)
        assert "no such component" in str(service.failure)


async def test_a_store_of_another_key_stops_it(project, store, listen):
    """The engine's own check ends the process, too."""
    store.data["task-id-key"] = b"another"
    async with running(await listen(Sidecar().app)) as (service, _):
        await until(lambda: service.failure)
        assert "task-id-key is not the one" in str(service.failure)
    assert store.closed


async def test_a_replaced_key_is_taken_with_the_former_one_behind_it(project, store, listen):
    """Two keys in the secret, the present one first; the store then knows the present one."""
    async with running(await listen(Sidecar().app)) as (service, _):
        await until(lambda: service.ready)
    before, sidecar = store.data["task-id-key"], Sidecar()
    sidecar.secrets["shop"]["task-id-key"] = f"{'cd' * 32} {'ab' * 32}"
    async with running(await listen(sidecar.app)) as (service, _):
        await until(lambda: service.ready or service.failure)
        assert service.ready
    assert store.data["task-id-key"] != before


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("APP_PORT", "eighty", "the environment is set up wrongly: APP_PORT: "),
        ("SIDECARD_TOPIC", "tasks", "SIDECARD_TOPIC is 'tasks': "),
        ("SIDECARD_CALLERS", "nowhere.yaml", "nowhere.yaml is not a list of callers: "),
    ],
)
def test_wrong_settings_end_it_with_2_and_one_line(project, monkeypatch, caplog, name, value, words):  # noqa: PLR0917
    """Before anything is served."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        serve(agent)
    assert ended.value.code == 2
    (line,) = [record.getMessage() for record in caplog.records if record.name == "sidecard"]
    assert line.startswith(f"shop can't start: {words}")
    assert "\n" not in line


# -- how it ends -----------------------------------------------------------------------------------------------------


async def test_ending_closes_what_it_opened(project, store, listen):
    """The engine is stopped, the store closed, and nothing is left in the background."""
    async with running(await listen(Sidecar().app)) as (service, _):
        await until(lambda: service.ready)
    assert store.closed
    assert service.failure is None
    with pytest.raises(Unavailable):
        service.engine()
    assert "service" not in {task.get_name() for task in asyncio.all_tasks()}


PROGRAM = """
from sidecard import Agent, Task, serve
agent = Agent(name="shop", version="1", description="Sells.", publisher="Tests")
@agent.skill(scope="look", idempotent=True)
async def look(text: str, task: Task) -> str:
    'Look.'
    return text
serve(agent)
"""


@contextlib.contextmanager
def process(**environment):
    """The agent as a process of its own, and its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    paths = os.pathsep.join(sys.path)
    environment = os.environ | {"APP_PORT": str(port), "PYTHONPATH": paths, "DAPR_HTTP_PORT": "1"} | environment
    started = subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        yield started, f"http://127.0.0.1:{port}"
    finally:
        started.kill()
        started.communicate()


async def test_it_listens_before_its_sidecar_is_up_and_ends_when_told(project):
    """Sidecar and app wait for one another otherwise; SIGTERM ends it at once, quietly."""
    with process() as (started, url):
        async with httpx.AsyncClient() as http, asyncio.timeout(30):
            while True:
                with contextlib.suppress(httpx.ConnectError):
                    assert (await http.get(f"{url}/healthz")).status_code == 200
                    break
                assert started.poll() is None
                await asyncio.sleep(0.05)
        started.send_signal(signal.SIGTERM)
        said = await asyncio.to_thread(started.communicate, timeout=10)
        assert started.returncode in (0, -signal.SIGTERM)
        assert said[1] == ""


async def test_a_process_that_can_not_run_ends_with_2(project, listen):
    """What only the sidecar can tell ends it as well: it does not linger without serving."""
    sidecar = Sidecar()
    del sidecar.secrets["shop"]
    with process(DAPR_HTTP_PORT=str(await listen(sidecar.app))) as (started, _):
        _, said = await asyncio.to_thread(started.communicate, timeout=30)
        assert started.returncode == 2
        assert "shop can't run: The secret 'shop'" in said
        assert len(said.splitlines()) == 1
