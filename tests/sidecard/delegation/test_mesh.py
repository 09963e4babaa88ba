"""Delegation to real agents over real HTTP: whom it believes, what it survives, when it gives up, what travels."""

import asyncio
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain, repeat

import httpx
import pytest
from a2a.types import AgentCard, Message, TaskState
from jwcrypto.jwk import JWK
from pydantic import BaseModel

from sidecard import Agent, Task
from sidecard.card import SignedCard
from sidecard.delegation import ACCEPTED_PATIENCE, UNACCEPTED_PATIENCE, VERIFIED_SECONDS, Mesh
from sidecard.errors import AgentUnavailable, CardRejected
from sidecard.extension import Asked, Sent
from sidecard.registry import Enrolment, Registry
from sidecard.settings import Settings
from sidecard.sidecar import MeshTransport
from sidecard.signature import digest, sign
from sidecard.tasks.binding import text_of
from sidecard.tasks.watch import NotTaken, Refused
from sidecard.telemetry import Telemetry, continue_trace, current_traceparent
from sidecard.testing import APP_TOKEN, MemoryStore, caller, message, served, started
from sidecard.trust import TrustStore
from tests.waiting import until

S = TaskState
NOW = datetime(2026, 3, 3, 12, tzinfo=UTC)
TRACE = "0af7651916cd43dd8448eb211c80319c"
CARD, A2A = "/.well-known/agent-card.json", "/a2a"


def key_for(kid):
    return JWK.generate(kty="EC", crv="P-256", kid=kid, alg="ES256")


OURS, THEIRS, UNKNOWN, FOR_OTHERS = key_for("ours"), key_for("theirs"), key_for("ours"), key_for("for-others")


def pinned(key, **more):
    return key.export_public(as_dict=True) | more


def trust():
    ours = [pinned(OURS, agents=["mill", "baker"]), pinned(FOR_OTHERS, agents=["baker"])]
    return TrustStore.parse(json.dumps({"publishers": {"Mill": {"keys": ours}, "Rival": {"keys": [pinned(THEIRS)]}}}))


class Order(BaseModel):
    """What the skills take."""

    what: str = "rye"


class Flour(BaseModel):
    """What they give."""

    said: str


class Mill:
    """A specialist, which counts what it does."""

    def __init__(self) -> None:
        self.agent = Agent(name="mill", version="1", description="Grinds.", publisher="Mill")
        self.gate = asyncio.Event()
        self.ground: list[str] = []
        self.seen: dict[str, str] = {}
        agent = self.agent

        @agent.skill(scope="grind", idempotent=False)
        async def grind(order: Order, task: Task) -> Flour:
            """Grind, once, when the gate is open."""
            self.seen = {"caller": task.caller.name, "subject": task.subject, "trace": current_traceparent()}
            await task.progress("grinding")
            await self.gate.wait()

            async def turn() -> str:
                self.ground.append(order.what)
                return order.what

            return Flour(said=await task.once("turn", turn))

        @agent.skill(scope="choose", idempotent=False)
        async def choose(order: Order, task: Task) -> Flour:
            """Ask how fine."""
            answer = await task.ask("How fine?", options={"c": "coarse", "f": "fine"})
            again = await task.ask(f"{answer.choice}, really?")
            return Flour(said=f"{answer.choice} by {answer.by}, {again.text}")

        @agent.skill(scope="refuse", idempotent=False)
        async def refuse(order: Order, task: Task) -> Flour:
            """Refuse."""
            task.reject("not today")

        @agent.skill(scope="private", idempotent=False)
        async def private(order: Order, task: Task) -> Flour:
            """Not for the shop."""
            raise AssertionError


GRANTS = {"shop": {"sidecar": True, "speaks_for_others": True, "grants": {"mill": ["grind", "choose", "refuse"]}}}


class Daprd(httpx.AsyncBaseTransport):
    """What daprd does for an app's calls: carries them to other apps' servers in its name, or fails as told.

    `faults` gives, per path, what becomes of the next requests to it; `sent` is what was asked for there.
    """

    def __init__(self, port) -> None:
        self.port = port
        self.enrolled = ""
        self.faults: dict[str, Iterator] = {}
        self.sent: list[tuple[str, dict, httpx.Headers]] = []
        self._http = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request):
        app, path = request.url.path.removeprefix("/v1.0/invoke/").split("/method", 1)
        if app == "registry":
            return self._registry(path)
        assert app == "mill"
        body = await request.aread()
        self.sent.append((path, json.loads(body) if body else {}, request.headers))
        fault = next(self.faults.get(path, iter(())), None)
        if fault is None:
            return await self._carry(request, path, body)
        if isinstance(fault, Exception):
            raise fault
        if isinstance(fault, httpx.Response):
            return httpx.Response(fault.status_code, content=fault.content, headers=fault.headers)
        return fault(await self._carry(request, path, body))

    async def _carry(self, request, path, body):
        headers = [*request.headers.multi_items(), ("dapr-caller-app-id", "shop")]
        headers = [(name, APP_TOKEN if name == "dapr-api-token" else value) for name, value in headers]
        url = f"http://127.0.0.1:{self.port}{path}"
        response = await self._http.handle_async_request(
            httpx.Request(request.method, url, headers=headers, content=body, extensions=request.extensions)
        )
        if request.headers["accept"].startswith("text/event-stream"):  # as daprd 1.18 does, whatever the app answers
            response.status_code, response.headers["content-type"] = 200, "text/event-stream"
        return response

    def _registry(self, path):
        if not self.enrolled:
            return httpx.Response(404, json={"error": "No such app"})
        enrolment = Enrolment(
            app_id="mill", kind="a2a", name="mill", card_digest=self.enrolled, card_url="http://mill",
            enrolled_at=NOW, last_seen=NOW, verified_at=NOW,
        )  # fmt: skip
        return httpx.Response(200, content=enrolment.model_dump_json())

    def messages(self):
        """The messages that were sent, in order."""
        return [body["params"]["message"] for _, body, _ in self.sent if body.get("method") == "SendStreamingMessage"]

    async def aclose(self):
        await self._http.aclose()


class Cut(httpx.AsyncByteStream):
    """A stream that ends after so many events: with an error, or as if that were all."""

    def __init__(self, stream, events, *, error):
        self._stream, self._events, self._error = stream, events, error

    async def __aiter__(self):
        seen = b""
        async for chunk in self._stream:
            seen += chunk
            yield chunk
            if seen.replace(b"\r", b"").count(b"\n\n") >= self._events:
                break
        if self._error:
            raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")

    async def aclose(self):
        await self._stream.aclose()


def cut(events, *, error=True):
    def fault(response):
        return httpx.Response(
            response.status_code, headers=response.headers, stream=Cut(response.stream, events, error=error)
        )

    return fault


def refusal(status, **content):
    return httpx.Response(status, json=content)


class Clock:
    """Time that passes only when somebody pauses; `pace` times faster than they think."""

    def __init__(self) -> None:
        self.now, self.pace = 1_000.0, 1

    def __call__(self) -> float:
        return self.now

    async def pause(self, seconds):
        self.now += seconds * self.pace
        await asyncio.sleep(0)


class Bench:
    """The mill behind its server, and a mesh that reaches it through `daprd`."""

    def __init__(self, mill, served, daprd, clock, mesh) -> None:
        self.mill, self.served, self.daprd, self.clock, self.mesh = mill, served, daprd, clock, mesh
        self.accepted: list[str] = []

    def show(self, *keys, enrol=True, **changes):
        """Have the mill show this card: its own with changes, signed by keys."""
        card = AgentCard()
        card.CopyFrom(self.served.card)
        publisher = changes.pop("publisher", None)
        if publisher:
            card.provider.organization = publisher
        for name, value in changes.items():
            setattr(card, name, value)
        signed = sign(card, *keys) if keys else card
        self.served.signed = SignedCard(signed)
        if enrol:
            self.daprd.enrolled = digest(signed)

    async def follow(self, what="rye", skill="grind", message_id="m1"):
        sent = Sent(skill=skill).attach(message(data={"what": what}, message_id=message_id))
        return await self.mesh.follow("mill", sent, "", self.accepted.append)


@pytest.fixture
async def bench(listen):
    mill, clock = Mill(), Clock()
    async with served(mill.agent, MemoryStore(), GRANTS) as up:
        Telemetry().instrument_app(up.app)
        daprd = Daprd(await listen(up.app))
        settings = Settings(app_id="shop", dapr_api_token="the shop's sidecar's")
        async with httpx.AsyncClient(transport=MeshTransport(settings, daprd), timeout=10) as http:
            Telemetry().instrument_client(http)
            mesh = Mesh(http, Registry(http), trust(), clock=clock, pause=clock.pause)
            bench = Bench(mill, up, daprd, clock, mesh)
            bench.show(OURS)
            mill.gate.set()
            yield bench
            mill.gate.set()


# -- whom it believes ------------------------------------------------------------------------------------------------


async def test_an_agent_with_a_verified_card_is_asked(bench):
    """The task as it rests, with its artifacts; its id is told at once."""
    task = await bench.follow()
    assert task.status.state == S.TASK_STATE_COMPLETED
    assert task.artifacts[0].parts[0].data.struct_value["said"] == "rye"
    assert set(bench.accepted) == {task.id}
    assert bench.mill.ground == ["rye"]


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (lambda bench: bench.show(), "is not signed"),
        (lambda bench: bench.show(UNKNOWN), "altered, or not signed with key 'ours'"),
        (lambda bench: bench.show(THEIRS), "Key 'theirs' is not pinned"),
        (lambda bench: bench.show(THEIRS, publisher="Rival"), "Publisher 'Rival' has no say about the app 'mill'"),
        (lambda bench: bench.show(OURS, publisher="Nobody"), "Publisher 'Nobody' has no say"),
        (lambda bench: bench.show(FOR_OTHERS), "may sign only for baker"),
        (lambda bench: bench.show(OURS, name="baker"), "card of 'baker', not 'mill'"),
    ],
)
async def test_a_card_that_does_not_verify_is_refused_at_once(bench, shown, words):
    """Unsigned, forged, of a stranger or of another agent: nothing is sent, and nothing is tried again."""
    shown(bench)
    with pytest.raises(AgentUnavailable, match=f"mill is not called: .*{words}") as caught:
        await bench.follow()
    assert isinstance(caught.value.__cause__, CardRejected)
    assert [path for path, _, _ in bench.daprd.sent] == [CARD]
    assert bench.clock.now == 1_000
    with pytest.raises(AgentUnavailable):
        await bench.mesh.cancel("mill", "f" * 32, "")
    assert bench.mill.ground == []


async def test_an_altered_card_is_refused_when_it_is_looked_at_again(bench):
    """A card is believed for VERIFIED_SECONDS, no longer; then one altered byte is enough."""
    await bench.follow()
    altered = AgentCard()
    altered.CopyFrom(bench.served.signed.card)
    altered.description = "Grinds bones."
    bench.served.signed = SignedCard(altered)
    await bench.follow("oats", message_id="m2")
    bench.clock.now += VERIFIED_SECONDS + 1
    with pytest.raises(AgentUnavailable, match=r"mill is not called: .*It was altered"):
        await bench.follow("wheat", message_id="m3")
    assert bench.mill.ground == ["rye", "oats"]


async def test_a_card_that_the_registry_does_not_list_is_not_used(bench):
    """Its own valid card is not enough: it must be the enrolled one, at once or after a while."""
    bench.show(OURS, description="Grinds finer.", enrol=False)
    with pytest.raises(AgentUnavailable, match="shows another card than the registry lists"):
        await bench.follow()
    assert bench.daprd.messages() == []
    assert UNACCEPTED_PATIENCE < bench.clock.now - 1_000 < UNACCEPTED_PATIENCE + 5


async def test_an_agent_that_is_not_enrolled_is_not_called(bench):
    """The message says how it gets enrolled."""
    bench.daprd.enrolled = ""
    with pytest.raises(AgentUnavailable, match="'mill' is not in the registry: start it"):
        await bench.follow()
    assert bench.daprd.sent == []


@pytest.mark.parametrize("binding", ["GRPC", "HTTP+JSON"])
async def test_an_agent_without_json_rpc_is_named(bench, binding):
    """The mesh speaks no other binding."""
    card = AgentCard()
    card.CopyFrom(bench.served.card)
    del card.supported_interfaces[:]
    card.supported_interfaces.extend(i for i in bench.served.card.supported_interfaces if i.protocol_binding == binding)
    signed = sign(card, OURS)
    bench.served.signed, bench.daprd.enrolled = SignedCard(signed), digest(signed)
    with pytest.raises(AgentUnavailable, match="serves no JSON-RPC"):
        await bench.follow()


async def test_only_the_path_of_a_card_is_believed(bench):
    """Whatever host a card names, the message goes to the app-id."""
    card = AgentCard()
    card.CopyFrom(bench.served.card)
    card.supported_interfaces[0].url = "https://elsewhere.example.org/a2a"
    signed = sign(card, OURS)
    bench.served.signed, bench.daprd.enrolled = SignedCard(signed), digest(signed)
    assert (await bench.follow()).status.state == S.TASK_STATE_COMPLETED


# -- what it survives ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [True, False])
async def test_a_stream_that_is_cut_is_resumed_and_nothing_is_done_twice(bench, error):
    """The same message goes out again, under its id, however the stream was cut."""
    bench.mill.gate.clear()
    bench.daprd.faults[A2A] = iter([cut(1, error=error), cut(1, error=error)])
    following = asyncio.create_task(bench.follow())
    await until(lambda: len(bench.daprd.messages()) == 3)
    bench.mill.gate.set()
    task = await following
    assert task.status.state == S.TASK_STATE_COMPLETED
    assert [m["messageId"] for m in bench.daprd.messages()] == ["m1"] * 3
    assert bench.mill.ground == ["rye"]
    assert set(bench.accepted) == {task.id}


@pytest.mark.parametrize(
    "fault",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout(""),
        httpx.ReadError("reset"),
        refusal(500, errorCode="ERR_DIRECT_INVOKE", message="failed to invoke"),
        refusal(503),
        refusal(429),
        refusal(200, jsonrpc="2.0", id=1, error={"code": -31503, "message": "starting"}),
    ],
)
async def test_what_may_pass_is_tried_again(bench, fault):
    """The other side is not up, busy, or starts: the message is sent until it is taken."""
    bench.daprd.faults[A2A] = iter([fault, fault])
    assert (await bench.follow()).status.state == S.TASK_STATE_COMPLETED
    assert len(bench.daprd.messages()) == 3
    assert bench.mill.ground == ["rye"]


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        (httpx.Response(429, headers={"retry-after": "7"}, json={}), 7),
        (httpx.Response(503, headers={"retry-after": "7"}, json={}), 7),
        (refusal(200, jsonrpc="2.0", id=1, error={"code": -31429, "message": "too many; try again in 9 s"}), 9),
        (httpx.Response(429, headers={"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT"}, json={}), 0.2),
        (refusal(429), 0.2),
    ],
)
async def test_it_comes_again_when_it_is_told_to(bench, fault, seconds):
    """Retry-After, or the words of a refusal in the mesh; otherwise soon."""
    began = bench.clock.now
    bench.daprd.faults[A2A] = iter([fault])
    assert (await bench.follow()).status.state == S.TASK_STATE_COMPLETED
    assert bench.clock.now - began == pytest.approx(seconds)


async def test_a_stream_tells_the_whole_result(bench):
    """One request, and what comes back is the task as the mill holds it."""
    task = await bench.follow()
    async with bench.served.engine.borrow(task.id) as live:
        held = live.folded.public()
    assert (task.status, task.artifacts) == (held.status, held.artifacts)
    assert [body["method"] for path, body, _ in bench.daprd.sent if path == A2A] == ["SendStreamingMessage"]


async def test_a_stream_that_does_not_begin_with_the_task_is_no_result(bench):
    """Another framework's may begin with what happens next; then the task is asked for."""
    task = await bench.follow()
    ended = {"statusUpdate": {"taskId": task.id, "contextId": "c", "status": {"state": "TASK_STATE_COMPLETED"}}}
    event = {"jsonrpc": "2.0", "id": 1, "result": ended}
    stream = httpx.Response(200, text=f"data: {json.dumps(event)}\n\n", headers={"content-type": "text/event-stream"})
    bench.daprd.faults[A2A] = iter([stream])
    again = await bench.follow()
    assert again.artifacts == task.artifacts
    assert bench.daprd.sent[-1][1]["method"] == "GetTask"


async def test_a_question_that_can_not_be_got_is_asked_for_again(bench):
    """The task waits, and the answer to GetTask is lost: the message goes out again, and finds it."""
    bench.daprd.faults[A2A] = iter([None, httpx.ReadError("reset")])
    assert (await bench.follow(skill="choose")).status.state == S.TASK_STATE_INPUT_REQUIRED
    assert len(bench.daprd.messages()) == 2


async def test_a_task_that_moved_on_meanwhile_is_followed_on(bench):
    """It asked, and was answered by somebody else before it was got: what comes back is at rest all the same."""
    working = {"id": "x", "status": {"state": "TASK_STATE_WORKING"}}
    bench.daprd.faults[A2A] = iter([None, refusal(200, jsonrpc="2.0", id=1, result=working)])
    assert (await bench.follow(skill="choose")).status.state == S.TASK_STATE_INPUT_REQUIRED
    assert len(bench.daprd.messages()) == 2


async def test_a_stream_that_was_silent_for_long_is_not_given_up_when_it_is_cut(bench):
    """Patience is for trying: a task that says nothing for an hour is no sign of a dead agent."""
    bench.mill.gate.clear()

    def late(response):
        return httpx.Response(response.status_code, headers=response.headers, stream=Later(response.stream))

    class Later(Cut):
        def __init__(self, stream):
            super().__init__(stream, 1, error=True)

        async def __aiter__(self):
            async for chunk in super().__aiter__():
                yield chunk
                bench.clock.now += ACCEPTED_PATIENCE + 1
                bench.mill.gate.set()

    bench.daprd.faults[A2A] = iter([late])
    assert (await bench.follow()).status.state == S.TASK_STATE_COMPLETED
    assert len(bench.daprd.messages()) == 2


async def test_an_answer_without_a_task_is_a_result(bench):
    """Agents of other frameworks may answer with a message alone."""
    said = {"messageId": "r", "role": "ROLE_AGENT", "parts": [{"text": "ground"}, {"data": {"said": "rye"}}]}
    event = {"jsonrpc": "2.0", "id": 1, "result": {"message": said}}
    stream = httpx.Response(200, text=f"data: {json.dumps(event)}\n\n", headers={"content-type": "text/event-stream"})
    bench.daprd.faults[A2A] = iter([stream])
    task = await bench.follow()
    assert task.status.state == S.TASK_STATE_COMPLETED
    assert text_of(Message(parts=task.artifacts[0].parts)) == "ground"
    assert bench.accepted == []


# -- when it gives up ------------------------------------------------------------------------------------------------


EMPTY_STREAM = httpx.Response(200, text="", headers={"content-type": "text/event-stream"})


@pytest.mark.parametrize(
    ("path", "fault", "words"),
    [
        (CARD, httpx.ConnectError("refused"), "No card from http://mill.*refused.*check"),
        (CARD, refusal(500, errorCode="ERR_DIRECT_INVOKE"), "No card from http://mill.*HTTP 500.*check"),
        (CARD, refusal(503, error="not signed yet"), "HTTP 503"),
        (A2A, httpx.ConnectError("refused"), "refused"),
        (A2A, refusal(500, errorCode="ERR_DIRECT_INVOKE", message="failed to invoke, id: mill"), "failed to invoke"),
        (A2A, refusal(503, jsonrpc="2.0", id=1, error={"code": -31503, "message": "it starts"}), "it starts"),
        (A2A, httpx.ReadTimeout(""), "timed out"),
        (A2A, EMPTY_STREAM, "its stream ends"),
    ],
)
async def test_a_dead_agent_is_given_up_after_a_while(bench, path, fault, words):
    """One line that names it and says what happened; not sooner than UNACCEPTED_PATIENCE, not much later."""
    bench.daprd.faults[path] = repeat(fault)
    with pytest.raises(AgentUnavailable, match=f"^mill can't be reached or does not take this: .*{words}") as caught:
        await bench.follow()
    assert "\n" not in str(caught.value)
    assert UNACCEPTED_PATIENCE < bench.clock.now - 1_000 < UNACCEPTED_PATIENCE + 5
    assert bench.accepted == []


async def test_an_agent_that_dies_with_a_task_is_waited_for_longer(bench):
    """What it has taken is not lost: it has ACCEPTED_PATIENCE to come back."""
    bench.mill.gate.clear()
    bench.clock.pace = 20
    bench.daprd.faults[A2A] = chain([cut(1)], repeat(httpx.ConnectError("refused")))
    with pytest.raises(AgentUnavailable, match="refused"):
        await bench.follow()
    assert ACCEPTED_PATIENCE < bench.clock.now - 1_000 < ACCEPTED_PATIENCE + 50


@pytest.mark.parametrize(
    ("path", "fault", "words"),
    [
        (CARD, refusal(403, message="access control policy"), "refuses this caller.*rules"),
        (A2A, refusal(403, message="access control policy has denied access"), "HTTP 403: access control policy"),
        (A2A, refusal(403, jsonrpc="2.0", id=1, error={"code": -31403, "message": "no right"}), "HTTP 403: no right"),
        (A2A, refusal(401, jsonrpc="2.0", id=1, error={"code": -31401, "message": "say who"}), "HTTP 401: say who"),
        (A2A, refusal(413), "HTTP 413"),
        (A2A, refusal(200, jsonrpc="2.0", id=1, error={"code": -32602, "message": "no such skill"}), "no such skill"),
        (A2A, refusal(200, jsonrpc="2.0", id=1, error={"code": -32603, "message": "broken"}), "broken"),
        (A2A, refusal(200, what="else"), "neither"),
        (A2A, httpx.Response(200, text="<html>"), "JSON"),
        (A2A, refusal(200, jsonrpc="2.0", id=1, result=[7]), "not A2A 1.0"),
        (A2A, refusal(200, jsonrpc="2.0", id=1, result={"task": {"status": 7}}), "not A2A 1.0"),
    ],
)  # fmt: skip
async def test_a_refusal_is_not_argued_with(bench, path, fault, words):
    """Trying again would change nothing: one request, the reason in its own words, no waiting."""
    bench.daprd.faults[path] = repeat(fault)
    with pytest.raises(AgentUnavailable, match=f"^mill can't be reached or does not take this: .*{words}") as caught:
        await bench.follow()
    assert "\n" not in str(caught.value)
    assert [path for path, _, _ in bench.daprd.sent].count(path) == 1
    assert bench.clock.now == 1_000


async def test_a_skill_that_one_has_no_right_to_is_refused_by_the_agent_itself(bench):
    """The real agent's words, and no second try."""
    with pytest.raises(AgentUnavailable, match="shop holds none of the scopes that this needs: private"):
        await bench.follow(skill="private")
    assert len(bench.daprd.messages()) == 1


@pytest.mark.parametrize("fault", [None, refusal(200, jsonrpc="2.0", id=1, error={"code": -32002, "message": "ended"})])
async def test_canceling_what_has_ended_or_is_not_there_is_no_error(bench, fault):
    """Nothing is left to cancel, and that was wanted."""
    bench.daprd.faults[A2A] = iter([fault])
    await bench.mesh.cancel("mill", "f" * 32, "")


async def cancel_there(mesh):
    await mesh.cancel("mill", "f" * 32, "")


async def withdraw_there(mesh):
    await mesh.withdraw("mill", to_mill(), "")


@pytest.mark.parametrize("way", [cancel_there, withdraw_there])
@pytest.mark.parametrize(
    ("fault", "final"),
    [
        (refusal(403, message="denied"), False),
        (refusal(500, message="down"), False),
        (refusal(200, jsonrpc="2.0", id=1, error={"code": -32603, "message": "broken"}), False),
        (refusal(200, jsonrpc="2.0", id=1, error={"code": -32601, "message": "no such method"}), True),
        (refusal(200, jsonrpc="2.0", id=1, error={"code": -32004, "message": "not supported"}), True),
    ],
)
async def test_a_cancel_that_is_not_made_says_whether_it_may_be(bench, fault, final, way):
    """Whoever cancels must know that the task may still run, and whether to ask again: a right may come back."""
    bench.daprd.faults[A2A] = iter([fault])
    with pytest.raises(AgentUnavailable, match="mill does not cancel: ") as caught:
        await way(bench.mesh)
    assert isinstance(caught.value, Refused) == final


# -- messages that are withdrawn -------------------------------------------------------------------------------------


def to_mill(skill="grind", message_id="m1"):
    return Sent(skill=skill).attach(message(data={"what": "rye"}, message_id=message_id))


async def test_a_message_that_never_arrived_is_withdrawn_for_good(bench):
    """What comes of it late finds itself canceled."""
    await bench.mesh.withdraw("mill", to_mill(), "")
    late = await bench.follow()
    assert late.status.state == S.TASK_STATE_CANCELED
    assert bench.mill.ground == []


async def test_what_was_made_of_a_message_is_canceled_without_its_id(bench):
    """Its stream was cut before it could be heard."""
    bench.mill.gate.clear()
    following = asyncio.create_task(bench.follow())
    await until(lambda: bench.mill.seen)
    await bench.mesh.withdraw("mill", to_mill(), "")
    assert (await following).status.state == S.TASK_STATE_CANCELED
    await bench.mesh.withdraw("mill", to_mill(), "")
    assert bench.mill.ground == []


async def test_an_agent_that_knows_nothing_of_withdrawals_starts_the_task_and_is_told_to_cancel_it(bench, monkeypatch):
    """An older one of ours takes the message for a repetition."""
    bench.mill.gate.clear()
    monkeypatch.setattr("sidecard.tasks.reception.Sent.of", lambda _: Sent(skill="grind"))
    await bench.mesh.withdraw("mill", to_mill(), "")
    assert (await bench.follow()).status.state == S.TASK_STATE_CANCELED
    assert bench.mill.ground == []


async def test_an_agent_without_our_extension_is_left_to_a_person(bench, caplog):
    """It would take the message for a new one: so it is not sent, and said at error level what to look after."""
    card = AgentCard()
    card.CopyFrom(bench.served.card)
    del card.capabilities.extensions[:]
    bench.served.card.CopyFrom(card)
    bench.show(OURS)
    await bench.mesh.withdraw("mill", to_mill(), "")
    assert bench.daprd.messages() == []
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "mill may have taken the message m1" in record.message
    assert "by hand" in record.message


async def test_a_message_whose_task_has_expired_needs_no_withdrawal(bench):
    """Nothing runs that was made of it."""
    gone = {"code": -32001, "message": "Task not found"}
    bench.daprd.faults[A2A] = iter([refusal(200, jsonrpc="2.0", id=1, error=gone)])
    await bench.mesh.withdraw("mill", to_mill(), "")


@pytest.mark.parametrize(
    ("path", "faults", "certain"),
    [
        (A2A, [refusal(413, error="too large")], True),
        (A2A, [refusal(200, jsonrpc="2.0", id=1, error={"code": -32602, "message": "wrong"})], True),
        (CARD, repeat(httpx.ConnectError("down")), True),
        (A2A, repeat(httpx.ConnectError("down")), False),
        (A2A, repeat(refusal(500, message="down")), False),
        (A2A, [httpx.ReadError("cut"), *[refusal(413, error="too large")] * 2], False),
    ],
)
async def test_whether_anything_may_come_of_a_message_that_was_given_up_is_said(bench, path, faults, certain):
    """Nothing can when each attempt was refused, or never sent; once one is in doubt the message is to be withdrawn."""
    bench.daprd.faults[path] = iter(faults)
    with pytest.raises(AgentUnavailable) as caught:
        await bench.follow()
    assert isinstance(caught.value, NotTaken) == certain


async def test_a_refused_withdrawal_says_so(bench):
    """A right may have been taken away since the message was sent: what was made of it may still run."""
    with pytest.raises(AgentUnavailable, match=r"mill does not cancel: .*holds none of the scopes"):
        await bench.mesh.withdraw("mill", to_mill("private"), "")


NOTHING = httpx.Response(200, content=b"", headers={"content-type": "text/event-stream"})


@pytest.mark.parametrize("fault", [httpx.ConnectError("gone"), NOTHING])
async def test_a_withdrawal_that_is_not_answered_says_so(bench, fault):
    """Whoever withdraws must know that something may still run."""
    bench.daprd.faults[A2A] = iter([fault])
    with pytest.raises(AgentUnavailable, match=r"mill (does not cancel|says nothing)"):
        await bench.mesh.withdraw("mill", to_mill(), "")


# -- what travels along, from a task of our own ----------------------------------------------------------------------


class Errand(BaseModel):
    """What the shop's skill takes."""

    skill: str
    what: str = "rye"


def shop():
    agent = Agent(name="shop", version="1", description="Sells.", publisher="Tests")

    @agent.skill(scope="run", idempotent=False)
    async def run(errand: Errand, task: Task) -> Flour:
        """Have the mill do it."""
        return await task.delegate("mill", errand.skill, Order(what=errand.what), output=Flour)

    return agent


async def begin(engine, skill, **fields):
    sent = message(data={"skill": skill, **fields})
    return await engine.intake.create(caller(engine.agent), "", engine.agent.skills["run"], sent)


async def settled(engine, task_id):
    async with engine.borrow(task_id) as live:
        await asyncio.wait_for(live.settled(), 10)
        return live.folded.public()


def said(task):
    return task.artifacts[-1].parts[0].data.struct_value["said"]


async def test_a_task_and_its_step_make_the_message_id(bench):
    """After a restart the same message is sent, and the mill's task is found again, not made again."""
    store, agent = MemoryStore(), shop()
    bench.mill.gate.clear()
    async with started(agent, store, bench.mesh) as engine:
        task_id = await begin(engine, "grind")
        await until(lambda: bench.mill.seen)
    async with started(agent, store, bench.mesh) as engine:
        await until(lambda: len(bench.daprd.messages()) == 2)
        bench.mill.gate.set()
        assert said(await settled(engine, task_id)) == "rye"
    first, second = bench.daprd.messages()
    assert first == second
    assert bench.mill.ground == ["rye"]
    async with started(agent, MemoryStore(), bench.mesh) as engine:
        other = await engine.intake.create(
            caller(agent), "", agent.skills["run"], message(message_id="m2", data={"skill": "grind"})
        )
        await settled(engine, other)
    assert bench.daprd.messages()[-1]["messageId"] != first["messageId"]


async def test_subject_and_trace_travel(bench):
    """The mill knows for whom the shop asks, and works in the same trace."""
    async with started(shop(), MemoryStore(), bench.mesh) as engine:
        with continue_trace(f"00-{TRACE}-b7ad6b7169203331-01"):
            task_id = await begin(engine, "grind")
        assert (await settled(engine, task_id)).status.state == S.TASK_STATE_COMPLETED
    assert (bench.mill.seen["caller"], bench.mill.seen["subject"]) == ("shop", "ada")
    assert bench.mill.seen["trace"].split("-")[1] == TRACE
    sent = [headers["traceparent"] for path, _, headers in bench.daprd.sent if path == A2A]
    assert {header.split("-")[1] for header in sent} == {TRACE}


async def test_questions_climb_and_answers_go_down_to_the_same_task(bench):
    """Asked on in the mill's words and choices, over a restart and a cut stream; one task at the mill in the end."""
    store, agent = MemoryStore(), shop()
    async with started(agent, store, bench.mesh) as engine:
        task_id = await begin(engine, "choose")
        task = await settled(engine, task_id)
        assert task.status.state == S.TASK_STATE_INPUT_REQUIRED
        assert text_of(task.status.message) == "How fine?"
        assert Asked.of(task.status.message).options == {"c": "coarse", "f": "fine"}
    bench.daprd.faults[A2A] = iter([cut(1)])
    async with started(agent, store, bench.mesh) as engine:
        for number, (text, asked) in enumerate([("fine", "f, really?"), ("yes", "")]):
            async with engine.borrow(task_id) as live:
                await engine.intake.answer(live, caller(agent, "boss"), message(text, f"a{number}", task_id=task_id))
            task = await settled(engine, task_id)
            assert text_of(task.status.message) == asked
        assert said(task) == "f by boss, yes"
    children = {m.get("taskId") for m in bench.daprd.messages()} - {None, ""}
    assert len(children) == 1


async def test_cancel_descends(bench):
    """The mill's task is canceled before the shop's is said to be."""
    bench.mill.gate.clear()
    async with started(shop(), MemoryStore(), bench.mesh) as engine:
        task_id = await begin(engine, "grind")
        await until(lambda: bench.mill.seen)
        async with engine.borrow(task_id) as live:
            await engine.cancel(live, caller(engine.agent))
            assert live.folded.state == S.TASK_STATE_CANCELED
            (child,) = live.folded.children.values()
        async with bench.served.engine.borrow(child.task_id) as there:
            assert there.folded.state == S.TASK_STATE_CANCELED
    assert bench.mill.ground == []


@pytest.mark.parametrize(
    ("skill", "fault", "words"),
    [
        ("refuse", None, "refuse of mill ended REJECTED: not today"),
        ("private", None, "mill can't be reached or does not take this: .*scopes.*private"),
        ("grind", httpx.ConnectError("refused"), "mill can't be reached or does not take this: .*refused"),
    ],
)
async def test_a_delegation_that_fails_fails_the_task_with_the_reason(bench, skill, fault, words):
    """Whoever asked reads which agent, and why."""
    if fault:
        bench.daprd.faults[A2A] = repeat(fault)
    async with started(shop(), MemoryStore(), bench.mesh) as engine:
        task = await settled(engine, await begin(engine, skill))
    assert task.status.state == S.TASK_STATE_FAILED
    assert re.match(words, text_of(task.status.message))
    assert not task.artifacts
