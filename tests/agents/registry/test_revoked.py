"""Who is revoked: written by operators alone, told to every app, kept, and heeded here as well."""

import asyncio

import httpx
import pytest

from agents.registry import revoked
from agents.registry.revoked import RevokedStore
from sidecard.callers import Denied
from sidecard.errors import StoreUnavailable
from sidecard.revocations import Revocation
from sidecard.tasks.act import Act
from sidecard.tasks.ledger import Ledger

OPERATOR = {"dapr-caller-app-id": "desk"}
APP = {"dapr-caller-app-id": "orchestrator"}


@pytest.fixture(autouse=True)
def _always_fresh(monkeypatch):
    monkeypatch.setattr(revoked, "FRESH_SECONDS", 0.0)


def marks(answer):
    assert answer.status_code == 200, answer.text
    return [one["mark"] for one in answer.json()["revoked"]]


async def test_operators_revoke_and_restore(client):
    """Everybody reads it: since when, by whom, why. Twice is once, and what is not revoked is restored already."""
    assert marks(await client.get("/revoked", headers=APP)) == []
    for _ in range(2):
        await client.put("/revoked", json={"mark": "manager", "reason": "left"}, headers=OPERATOR)
    answer = await client.put("/revoked", json={"mark": "app:flights"}, headers=OPERATOR)
    assert marks(answer) == ["app:flights", "caller:manager"]
    answer = await client.get("/revoked", headers=APP)
    told = answer.json()["revoked"][1]
    assert (told["mark"], told["by"], told["reason"]) == ("caller:manager", "desk", "left")
    assert told["since"]
    for _ in range(2):
        answer = await client.delete("/revoked", params={"mark": "manager"}, headers=OPERATOR)
        assert marks(answer) == ["app:flights"]


@pytest.mark.parametrize("caller", [APP, {"dapr-caller-app-id": "manager"}, {"dapr-caller-app-id": "nobody"}, {}])
async def test_nobody_else_revokes(client, sidecar, caller):
    """Whoever the access rules let through by mistake: not an app without the right, nor one that is no sidecar's."""
    for answer in (
        await client.put("/revoked", json={"mark": "desk"}, headers=caller),
        await client.delete("/revoked", params={"mark": "manager"}, headers=caller),
    ):
        assert answer.status_code == 403
        assert "is no operator" in answer.text
    assert not sidecar.state


async def test_nobody_revokes_themselves(client):
    """They could not take it back."""
    for mark in ("desk", "app:desk"):
        assert (await client.put("/revoked", json={"mark": mark}, headers=OPERATOR)).status_code == 409
    assert marks(await client.get("/revoked", headers=APP)) == []


async def test_what_is_known_is_not_told_again(client):
    """304 by its ETag, until it changes."""
    tag = (await client.get("/revoked", headers=APP)).headers["etag"]
    again = await client.get("/revoked", headers=APP | {"if-none-match": tag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    await client.put("/revoked", json={"mark": "manager"}, headers=OPERATOR)
    assert marks(await client.get("/revoked", headers=APP | {"if-none-match": tag})) == ["caller:manager"]


async def test_an_app_that_is_revoked_is_refused_here(client, monkeypatch):
    """By its app-id or as a caller; the probes answer anybody."""
    assert (await client.get("/agents", headers=APP)).status_code == 200
    for mark in ("app:orchestrator", "caller:orchestrator"):
        await client.put("/revoked", json={"mark": mark}, headers=OPERATOR)
        for method, path in (("GET", "/agents"), ("PUT", "/agents"), ("GET", "/revoked")):
            answer = await client.request(method, path, headers=APP)
            assert (answer.status_code, answer.json()) == (403, {"error": "'orchestrator' is revoked."})
        assert (await client.get("/healthz", headers=APP)).status_code == 200
        with monkeypatch.context() as unguarded:
            unguarded.setattr(Denied, "covers", lambda *_: False)
            assert (await client.get("/agents", headers=APP)).status_code == 200
        await client.delete("/revoked", params={"mark": mark}, headers=OPERATOR)
    assert (await client.get("/agents", headers=APP)).status_code == 200


async def test_while_the_list_can_not_be_read_nobody_is_let_in(client, sidecar):
    """Nor told that nobody is revoked."""
    sidecar.up = False
    for path in ("/revoked", "/agents"):
        answer = await client.get(path, headers=APP)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    sidecar.up = True
    sidecar.state["revoked"] = (b"[]", 1)
    assert (await client.get("/revoked", headers=APP)).status_code == 503


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"mark": "key:1"}',
        b'{"mark": "ada", "by": "me"}',
        b'{"mark": "ada", "reason": "%s"}' % (b"x" * 501),
    ],
)
async def test_what_is_no_revocation_is_refused(client, body):
    """In words; a mark that nobody has, on restoring as well."""
    answer = await client.put("/revoked", content=body, headers=OPERATOR)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("Not a revocation: ")
    answer = await client.delete("/revoked", params={"mark": "key:1"}, headers=OPERATOR)
    assert answer.status_code == 422


async def test_operators_at_once_lose_nothing(client):
    """Each change is made to the list as it is."""
    await asyncio.gather(
        *(client.put("/revoked", json={"mark": f"caller:c{n}"}, headers=OPERATOR) for n in range(8)),
    )
    assert marks(await client.get("/revoked", headers=APP)) == [f"caller:c{n}" for n in range(8)]


async def test_a_list_that_is_read_answers_everybody_for_a_moment(sidecar, store, monkeypatch):
    """Many apps ask each second: the store is asked once. What is revoked here is told at once."""
    monkeypatch.setattr(revoked, "FRESH_SECONDS", 3_600.0)
    reads = []

    async def counting(request):
        reads.append(request.method)
        return await sidecar(request)

    headers = {"dapr-api-token": "sidecars"}
    transport = httpx.MockTransport(counting)
    async with httpx.AsyncClient(transport=transport, base_url="http://s/v1.0", headers=headers) as client:
        kept = RevokedStore(client, Ledger(lambda: store))
        await asyncio.gather(*(kept.told() for _ in range(5)))
        assert reads == ["GET"]
        await kept.put(Revocation(mark="ada", since="2026-11-21T12:00:00Z", by="desk"), Act("Revoke"))
        assert [one.mark for one in (await kept.told()).revoked] == ["caller:ada"]
        sidecar.up = False
        kept._read_at = float("-inf")
        with pytest.raises(StoreUnavailable):
            await kept.told()
