"""The registry in this process, its sidecar replaced at the transport."""

import asyncio
import json

import httpx
import pytest
from a2a.types import AgentCard
from jwcrypto.jwk import JWK

from agents.registry.server import create_app
from sidecard.card import SignedCard
from sidecard.errors import StoreUnavailable, TaskConflict
from sidecard.settings import Settings

KEY = JWK.generate(kty="EC", crv="P-256", kid="flights-1", alg="ES256")
AGENTS = ["flights", "expenses", *(f"app-{number:02}" for number in range(30))]
TRUST = json.dumps({"publishers": {"Travel Desk": {"keys": [{**KEY.export_public(as_dict=True), "agents": AGENTS}]}}})
CALLERS = """
callers:
  desk: {sidecar: true, grants: {registry: ["estate:operate"], flights: ["flights:book"]}}
  orchestrator: {sidecar: true, grants: {flights: ["flights:book"]}}
  manager: {api_key: true, grants: {registry: ["estate:operate"]}}
"""


class FakeSidecar:
    """A sidecar's HTTP API: state with ETags and first-write, one secret, and apps that serve cards."""

    def __init__(self) -> None:
        self.up = True
        self.state: dict[str, tuple[bytes, int]] = {}
        self.conflicts = 0
        self.trust = TRUST
        self.cards: dict[str, AgentCard] = {}
        self.invoked: list[str] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        if not self.up:
            raise httpx.ConnectError("refused", request=request)
        assert request.headers["dapr-api-token"] == "sidecars"
        await asyncio.sleep(0)  # lets concurrent requests interleave, as a real sidecar does
        path = request.url.path.removeprefix("/v1.0")
        if path == "/healthz/outbound":
            return httpx.Response(204)
        if path == "/secrets/secrets/trust":
            return httpx.Response(200, json={"publishers": self.trust})
        if path.startswith("/invoke/"):
            return self._invoke(path.split("/")[2], path)
        if path == "/state/state/bulk":
            keys = json.loads(request.content)["keys"]
            return httpx.Response(200, json=[self._bulk_item(key) for key in keys])
        if request.method == "POST" and path == "/state/state":
            return self._write(json.loads(request.content)[0])
        return self._key(request.method, path.removeprefix("/state/state/"))

    def _key(self, method: str, key: str) -> httpx.Response:
        if method == "DELETE":
            self.state.pop(key, None)
            return httpx.Response(204)
        return self._read(key)

    def _read(self, key: str) -> httpx.Response:
        if key not in self.state:
            return httpx.Response(204)
        value, etag = self.state[key]
        return httpx.Response(200, content=value, headers={"etag": str(etag), "content-type": "application/json"})

    def _bulk_item(self, key: str) -> dict:
        if key not in self.state:
            return {"key": key}
        value, etag = self.state[key]
        return {"key": key, "data": json.loads(value), "etag": str(etag)}

    def _write(self, item: dict) -> httpx.Response:
        etag = self.state.get(item["key"], (b"", 0))[1]
        first_write = item.get("options", {}).get("concurrency") == "first-write"
        if first_write and item.get("etag", "0") != str(etag):
            self.conflicts += 1
            return httpx.Response(409 if self.conflicts % 2 else 500, json={"errorCode": "ERR_STATE_SAVE"})
        self.state[item["key"]] = (json.dumps(item["value"]).encode(), etag + 1)
        return httpx.Response(204)

    def _invoke(self, app_id: str, path: str) -> httpx.Response:
        self.invoked.append(path)
        if app_id not in self.cards:
            return httpx.Response(500, json={"errorCode": "ERR_DIRECT_INVOKE"})
        return httpx.Response(
            200, content=SignedCard(self.cards[app_id]).body, headers={"content-type": "application/json"}
        )


class FakeStore:
    """The same sidecar's state over gRPC: a write is all or nothing, unless it isn't `atomic`."""

    shared = False

    def __init__(self, sidecar: FakeSidecar, *, atomic: bool = True) -> None:
        self._sidecar, self.atomic = sidecar, atomic
        self.before_write = lambda: None

    async def recognise(self) -> None:
        await self.read([])

    async def write(self, creates, upserts, deletes=(), *, swaps=None) -> None:
        await asyncio.sleep(0)
        self._answer()
        self.before_write()
        state = self._sidecar.state
        swaps = swaps or {}
        taken = {key for key, _ in creates if key in state}
        taken |= {key for key, (_, etag) in swaps.items() if str(state.get(key, (b"", ""))[1]) != etag}
        values = {key: value for key, value in creates if key not in taken} | dict(upserts)
        values |= {key: value for key, (value, _) in swaps.items() if key not in taken}
        if taken and self.atomic:
            raise TaskConflict("a key is another's")
        for key, value in values.items():
            state[key] = (value, state.get(key, (b"", 0))[1] + 1)
        for key in deletes:
            state.pop(key, None)
        if taken:
            raise TaskConflict("a key is another's")

    async def read(self, keys) -> dict[str, bytes]:
        await asyncio.sleep(0)
        self._answer()
        return {key: self._sidecar.state[key][0] for key in keys if key in self._sidecar.state}

    async def delete(self, keys) -> None:
        await self.write([], {}, keys)

    async def close(self) -> None:
        pass

    def _answer(self) -> None:
        if not self._sidecar.up:
            raise StoreUnavailable("the sidecar is down")


@pytest.fixture
def store(sidecar) -> FakeStore:
    return FakeStore(sidecar)


@pytest.fixture
def sidecar() -> FakeSidecar:
    return FakeSidecar()


@pytest.fixture
async def client(sidecar, store, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("APP_API_TOKEN", "apps")
    monkeypatch.setenv("DAPR_API_TOKEN", "sidecars")
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "callers.yaml").write_text(CALLERS)
    async with _replica(sidecar, store) as opened:
        yield opened


@pytest.fixture
async def another(client, sidecar):
    """A second replica of the registry."""
    store = FakeStore(sidecar)
    async with _replica(sidecar, store) as opened:
        opened.store = store
        yield opened


def _replica(sidecar: FakeSidecar, store: FakeStore) -> httpx.AsyncClient:
    app = create_app(Settings.load("registry"), httpx.MockTransport(sidecar), store)
    headers = {"dapr-api-token": "apps"}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://registry", headers=headers)
