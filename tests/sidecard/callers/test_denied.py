"""What is revoked stops working: every way of being known, new requests and those that are being served."""

import asyncio
import contextlib
import hashlib
import ssl

import grpc.aio
import httpx
import pytest
from a2a.client.errors import A2AClientError
from a2a.types import ListTasksRequest, SendMessageRequest
from a2a.types.a2a_pb2_grpc import A2AServiceStub
from a2a.utils.errors import A2AError

from sidecard import Agent, Task
from sidecard.callers import BearerTokens, Callers, CallersFile, Claims, Denied
from sidecard.callers.denied import mark_of
from sidecard.testing import APP_TOKEN, FakeWebhooks, MemoryStore, message, served
from sidecard.testing.fake_issuer import AUDIENCE, FakeIssuer
from tests.sidecard.authority import Authority
from tests.waiting import until

BINDINGS = ("JSONRPC", "HTTP+JSON", "GRPC")
CALLERS = {
    "ada": {"api_key": True, "grants": {"shop": ["look"]}},
    "bob": {"api_key": True, "grants": {"shop": ["look"]}},
}
agent = Agent(name="shop", version="1", description="Sells.", publisher="Tests", asks=("look",))
going_on = asyncio.Event()


@agent.skill(scope="look", idempotent=True)
async def look(text: str, task: Task) -> str:
    """Look, and go on looking."""
    await going_on.wait()
    return text


@pytest.fixture
async def desk():
    going_on.clear()
    async with served(agent, MemoryStore(), CALLERS) as desk:
        yield desk
        going_on.set()


def digest(key):
    return hashlib.sha256(key.encode()).hexdigest()


@pytest.mark.parametrize(
    "mark",
    ["caller:desk", "app:desk", "caller:ada", f"key:{digest('old')[:16]}", "caller:buyer", "certificate"],
)
async def test_each_way_of_being_known_can_be_revoked_alone(tmp_path, mark):
    """And restored; others go on as before. With an empty list everybody is let in."""
    shown = Authority(tmp_path).client("buyer", "dns:buyer.example")
    mark = mark if ":" in mark else f"certificate:{shown.thumbprint}"
    look = {"grants": {"shop": ["look"]}}
    file = CallersFile.model_validate(
        {
            "callers": {
                "desk": {"sidecar": True} | look,
                "ada": {"api_key": True} | look,
                "buyer": {"certificates": ["dns:buyer.example"]} | look,
            }
        }
    )
    denied, keys = Denied(), {digest("old"): "ada", digest("new"): "ada"}
    known = Callers("shop", file, app_token=APP_TOKEN, api_keys=keys, denied=denied)
    requests = {
        "desk": Claims({"dapr-api-token": APP_TOKEN, "dapr-caller-app-id": "desk"}),
        "old": Claims({"x-api-key": "old"}),
        "new": Claims({"x-api-key": "new"}),
        "buyer": Claims(certificate=ssl.PEM_cert_to_DER_cert(shown.certificate.read_text())),
    }

    async def let_in():
        return {who for who, claims in requests.items() if await known.identify(claims)}

    hit = {"caller:desk": {"desk"}, "app:desk": {"desk"}, "caller:ada": {"old", "new"}, "caller:buyer": {"buyer"}}
    assert await let_in() == requests.keys()
    denied.become([mark, "caller:somebody else"])
    assert await let_in() == requests.keys() - hit.get(mark, {"old"} if mark.startswith("key") else {"buyer"})
    denied.become([])
    assert await let_in() == requests.keys()


@pytest.mark.parametrize("mark", ["caller:anna", "client:desktop", "client:planner", "token:t-1"])
async def test_tokens_can_be_revoked_by_whose_they_are_or_one_by_one(mark):
    """The person or client that has a token, the program that got it, who exchanged it, and its own id (jti).

    Also when the token was verified before and is remembered: that saves its signature, and nothing else.
    """
    issuer = FakeIssuer()
    file = CallersFile.model_validate(
        {
            "issuers": {"company": {"url": issuer.url}},
            "callers": {
                "anna": {"token": {"issuer": "company", "subject": "ada"}, "grants": {"shop": ["look"]}},
                "bert": {"token": {"issuer": "company", "subject": "bob"}, "grants": {"shop": ["look"]}},
            },
        }
    )
    tokens, denied = BearerTokens(file.issuers, AUDIENCE, issuer.http()), Denied()
    known = Callers("shop", file, app_token="t", api_keys={}, tokens=tokens, denied=denied)
    adas = issuer.token("ada", jti="t-1", act={"sub": "planner"})
    bobs = issuer.token("bob", jti="t-2", client_id="phone")

    async def let_in():
        claims = (Claims({"authorization": f"Bearer {token}"}) for token in (adas, bobs))
        return [caller and caller.name for caller in [await known.identify(one) for one in claims]]

    assert await let_in() == ["anna", "bert"]
    assert len(tokens._verified) == 2
    denied.become([mark])
    assert await let_in() == [None, "bert"]
    assert len(tokens._verified) == 2
    denied.become([])
    assert await let_in() == ["anna", "bert"]
    await tokens.aclose()


async def test_people_who_are_not_listed_can_be_revoked():
    """By the issuer's name and theirs."""
    issuer = FakeIssuer()
    company = {"url": issuer.url, "everyone": {"grants": {"shop": ["look"]}}}
    file = CallersFile.model_validate({"issuers": {"company": company}, "callers": {}})
    tokens, denied = BearerTokens(file.issuers, AUDIENCE, issuer.http()), Denied()
    known = Callers("shop", file, app_token="t", api_keys={}, tokens=tokens, denied=denied)
    claims = Claims({"authorization": f"Bearer {issuer.token('ada')}"})
    assert (await known.identify(claims)).name == "company/ada"
    denied.become([mark_of("company/ada")])
    assert await known.identify(claims) is None
    await tokens.aclose()


async def test_a_revoked_certificate_spoils_the_key_beside_it(tmp_path):
    """Whoever holds it may hold the key by the same way."""
    shown = Authority(tmp_path).client("x")
    denied, file = Denied(), CallersFile.model_validate({"callers": CALLERS})
    known = Callers("shop", file, app_token="t", api_keys={digest("k"): "ada"}, denied=denied)
    claims = Claims({"x-api-key": "k"}, ssl.PEM_cert_to_DER_cert(shown.certificate.read_text()))
    assert (await known.identify(claims)).name == "ada"
    denied.become([f"certificate:{shown.thumbprint}"])
    assert await known.identify(claims) is None


async def test_who_is_revoked_holds_nothing(desk):
    """Not on behalf of others' calls either: an agent that passes a revoked person's answer on is refused it."""
    file = CallersFile.model_validate({"callers": CALLERS})
    known = Callers("shop", file, app_token="", api_keys={}, denied=desk.denied)
    assert known.scopes_of("ada") == {"look"}
    desk.denied.become(["caller:ada"])
    assert known.scopes_of("ada") == set()
    assert known.scopes_of("bob") == {"look"}


@pytest.mark.parametrize("binding", BINDINGS)
async def test_requests_are_refused_from_then_on(desk, binding):
    """On each binding; those of others are not."""
    for caller in ("ada", "bob"):
        await desk.client(binding, caller).list_tasks(ListTasksRequest())
    desk.denied.become(["caller:ada"])
    await desk.client(binding, "bob").list_tasks(ListTasksRequest())
    with pytest.raises(Exception, match=r"(?i)who you are|unauthenticated|401") as refused:
        await desk.client(binding, "ada").list_tasks(ListTasksRequest())
    assert "ada" not in str(refused.value)


@contextlib.asynccontextmanager
async def streaming(desk, base, binding, caller):
    """What a caller's SendStreamingMessage tells, as it comes: lines of its answer, or events."""
    sent = message("hat", f"{caller}'s")
    key = ("x-api-key", f"{caller}'s key")
    if binding == "GRPC":
        async with grpc.aio.insecure_channel(desk.grpc_target) as channel:
            call = A2AServiceStub(channel).SendStreamingMessage(
                SendMessageRequest(message=sent), metadata=(key, ("a2a-version", "1.0"))
            )
            yield (str(event) async for event in call)
        return
    params = {"message": {"messageId": sent.message_id, "role": "ROLE_USER", "parts": [{"text": "hat"}]}}
    path, body = {
        "JSONRPC": ("/a2a", {"jsonrpc": "2.0", "id": 1, "method": "SendStreamingMessage", "params": params}),
        "HTTP+JSON": ("/rest/message:stream", params),
    }[binding]
    headers = dict([key, ("a2a-version", "1.0")])
    async with (
        httpx.AsyncClient(base_url=base, headers=headers) as http,
        http.stream("POST", path, json=body) as answer,
    ):
        yield answer.aiter_lines()


async def rest_of(stream):
    """All that it still tells, and how it ended."""
    told = []
    try:
        async for line in stream:
            told.append(line)  # noqa: PERF401 -- what came before an error counts
    except grpc.aio.AioRpcError as error:
        told.append(f"{error.code().name} {error.details()}")
    return "\n".join(told)


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize("binding", BINDINGS)
async def test_streams_end_when_their_caller_is_revoked(desk, listen, binding, guarded, monkeypatch):
    """While nothing happens, with an error and not as if the task had ended. Others' go on, and so does the task."""
    base = f"http://127.0.0.1:{await listen(desk.app)}"
    if not guarded:
        monkeypatch.setattr(Denied, "covers", lambda *_: False)
    async with streaming(desk, base, binding, "ada") as adas, streaming(desk, base, binding, "bob") as bobs:
        await anext(adas)
        await anext(bobs)
        waiting = asyncio.ensure_future(rest_of(adas))
        desk.denied.become(["caller:ada"])
        done, _ = await asyncio.wait([waiting], timeout=5 if guarded else 0.3)
        assert bool(done) == guarded
        going_on.set()
        told = await asyncio.wait_for(waiting, 5)
        assert ("COMPLETED" in told) != guarded
        assert ("Say who you are" in told) == guarded
        assert "COMPLETED" in await rest_of(bobs)


@pytest.mark.parametrize("guarded", [True, False])
async def test_webhooks_of_who_is_revoked_are_told_nothing(guarded, monkeypatch, caplog):
    """Not of what they set up before; once restored, they are told what was due."""
    going_on.clear()
    webhooks, store = FakeWebhooks(), MemoryStore()
    if not guarded:
        monkeypatch.setattr(Denied, "covers", lambda *_: False)
    async with served(agent, store, CALLERS, webhooks=webhooks) as desk:
        request = SendMessageRequest(message=message("hat"))
        request.configuration.return_immediately = True
        request.configuration.task_push_notification_config.url = "https://hooks.example.org/adas"
        [event] = [event async for event in desk.client("JSONRPC", "ada").send_message(request)]
        assert event.task.id
        desk.denied.become(["caller:ada"])
        going_on.set()
        refused = "ada is revoked, and told nothing"
        await until(lambda: refused in caplog.text if guarded else "COMPLETED" in str(webhooks.received))
        assert ("COMPLETED" in str(webhooks.received)) != guarded
        desk.denied.become([])
        await until(lambda: "COMPLETED" in str(webhooks.received))


async def test_what_is_waited_for_is_not_told_to_who_is_revoked_meanwhile(desk):
    """A SendMessage that waits for its task ends with a refusal; the task is there for its owner, once restored."""
    waiting = asyncio.ensure_future(desk.send("ada", "hat", again="m1"))
    async with asyncio.timeout(10):
        while not (await desk.client("JSONRPC", "ada").list_tasks(ListTasksRequest())).tasks:  # noqa: ASYNC110 -- stored
            await asyncio.sleep(0.01)
    desk.denied.become(["caller:ada"])
    going_on.set()
    with pytest.raises((A2AClientError, A2AError), match=r"(?i)who you are|401"):
        await waiting
    desk.denied.become([])
    assert (await desk.send("ada", "hat", again="m1")).artifacts[0].parts[0].text == "hat"


@pytest.mark.parametrize(
    ("said", "mark"),
    [
        ("manager", "caller:manager"),
        ("caller:manager", "caller:manager"),
        ("app:flights", "app:flights"),
        (f"key:{'AB' * 32}", f"key:{'ab' * 8}"),
        (f"key:{'ab' * 8}", f"key:{'ab' * 8}"),
        ("client:https://issuer.example/c", "client:https://issuer.example/c"),
        ("certificate:" + ":".join(["AB"] * 32), "certificate:" + "ab" * 32),
        ("token:a.b-c", "token:a.b-c"),
    ],
)
def test_marks_are_named_as_people_name_them(said, mark):
    """A name alone is a caller's; digests as openssl writes them, too."""
    assert mark_of(said) == mark


@pytest.mark.parametrize(
    "said",
    ["", " ", ":", "key:12", "certificate:ab", "app:Flights", "user:ada", "a b", "client:", "client:a\x00", "caller:"],
)
def test_what_names_nobody_is_refused(said):
    """In words that say how somebody is named."""
    with pytest.raises(ValueError, match="a caller's name, app:<app-id>"):
        mark_of(said)
