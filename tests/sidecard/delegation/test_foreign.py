"""Foreign agents: proven by their card, reached where they are enrolled, with a token for them and nobody else's."""

import asyncio
import json

import httpx
import pytest
from a2a.types import TaskState
from jwcrypto.jwk import JWK
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel
from starlette.responses import JSONResponse, RedirectResponse, Response

from sidecard import Agent, Task, telemetry
from sidecard.callers import Presented
from sidecard.credentials import OAuthClient, Tokens
from sidecard.delegation import ForeignAgent, ForeignFile, Mesh, Outside
from sidecard.delegation import handshake as handshake_module
from sidecard.egress import Destinations
from sidecard.errors import AgentUnavailable, ConfigurationError
from sidecard.extension import URI, Sent
from sidecard.outbound import Outbound
from sidecard.registry import Enrolment
from sidecard.signature import digest
from sidecard.tasks.binding import text_of
from sidecard.tasks.watch import NotTaken, TokenMissing
from sidecard.telemetry import Telemetry, continue_trace
from sidecard.testing import MemoryStore, caller, message, started
from sidecard.trust import TrustStore
from tests.sidecard.delegation.stranger import Stranger
from tests.sidecard.issuer import Issuer
from tests.waiting import until

S = TaskState
RAIL = JWK.generate(kty="EC", crv="P-256", kid="rail", alg="ES256")
OTHER = JWK.generate(kty="EC", crv="P-256", kid="rail", alg="ES256")
TRUST = {"publishers": {"Rail": {"keys": [RAIL.export_public(as_dict=True)]}}}
TRACE = "0af7651916cd43dd8448eb211c80319c"


class NoRegistry:
    """Lists nobody."""

    async def agent(self, app_id) -> Enrolment:
        raise AgentUnavailable(f"'{app_id}' is not in the registry: start it, it enrols itself.")


class Bench:
    """The railways, their issuer, and a mesh that knows both."""

    def __init__(self, stranger, issuer) -> None:
        self.stranger, self.issuer = stranger, issuer
        self.accepted: list[str] = []
        self.http = httpx.AsyncClient()
        self.pauses = 0

    def mesh(self, *, allowed=None, scopes=None, exchange=False, recording=None, **enrolled) -> Mesh:
        credentials = {
            "issuer": self.issuer.url, "audience": "https://rail.example.org", "scopes": scopes or {},
            "exchange": exchange,
        }  # fmt: skip
        enrolled = {"url": self.stranger.url, "publisher": "Rail", "credentials": credentials} | enrolled
        places = f"{self.stranger.url} {self.issuer.url}" if allowed is None else allowed
        self.outbound = Outbound(Destinations.parse(places))
        tokens = Tokens(self.outbound, {self.issuer.url: OAuthClient(client_id="shop", client_secret="s")})
        agents = {"railways": ForeignAgent.model_validate(enrolled)}
        outside = Outside(agents, self.outbound, tokens, (recording or Telemetry()).instrument_client)
        return Mesh(self.http, NoRegistry(), TrustStore.parse(json.dumps(TRUST)), outside, pause=self._pause)

    async def _pause(self, _seconds):
        self.pauses += 1
        await asyncio.sleep(0.005)

    async def follow(self, mesh, text="A to B", **more):
        sent = Sent(skill="connect", subject="ada").attach(message(text, message_id="m1"))
        return await mesh.follow("railways", sent, "", self.accepted.append, **more)


@pytest.fixture
async def bench(listen):
    stranger, issuer = Stranger(), Issuer()
    stranger.url = f"http://127.0.0.1:{await listen(stranger.app())}"
    issuer.url = f"http://127.0.0.1:{await listen(issuer.app())}"
    stranger.show(stranger.card(), RAIL)
    stranger.tokens = {"t1"}
    bench = Bench(stranger, issuer)
    yield bench
    stranger.gate.set()
    await bench.http.aclose()
    await bench.outbound.aclose()


# -- the five steps --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.0", "0.3"])
@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON"])
async def test_a_foreign_agent_is_asked_in_what_it_speaks(bench, binding, version):
    """The binding and the protocol's version are its verified card's."""
    bench.stranger.show(bench.stranger.card(bindings=[binding], version=version), RAIL)
    task = await bench.follow(bench.mesh())
    assert task.status.state == S.TASK_STATE_COMPLETED
    assert task.artifacts[0].parts[0].text == "did A to B"
    assert {one["path"].split("/")[1] for one in bench.stranger.seen} == {"rpc" if binding == "JSONRPC" else "rest"}
    assert {one.get("a2a-version", "0.3") for one in bench.stranger.seen} == {version}


async def test_the_token_is_for_this_agent_and_this_skill(bench):
    """The scope is the verified card's, where the operator names none; the issuer is never the card's."""
    await bench.follow(bench.mesh())
    [(_, form)] = bench.issuer.asked
    assert (form["scope"], form["resource"]) == (["rail:search"], ["https://rail.example.org"])
    assert {one["authorization"] for one in bench.stranger.seen} == {"Bearer t1"}
    assert all("authorization" not in one for one in bench.stranger.asked)


@pytest.mark.parametrize(
    ("scopes", "skill", "asked"),
    [
        ({"connect": ["a", "b"]}, "connect", "a b"),
        ({"": ["c"]}, "connect", "c"),
        ({"connect": []}, "connect", ""),
        ({"book": ["d"]}, "connect", "rail:search"),
        ({"connect": ["a"], "book": ["d"]}, "", "a d"),
        ({}, "", "rail:search"),
        ({}, "unknown", ""),
    ],
)
def test_the_operators_scopes_outrank_the_cards(scopes, skill, asked):
    """By skill; a cancel, which names none, needs what the operator has named."""
    agent = ForeignAgent.model_validate(
        {
            "url": "https://rail.example.org",
            "publisher": "Rail",
            "credentials": {"issuer": "https://i", "scopes": scopes},
        }
    )
    assert agent.scope(Stranger().card(base="https://rail.example.org"), skill) == asked


async def test_each_step_is_a_span_and_the_trace_goes_along(bench, monkeypatch):
    """Under the caller's trace id; tokens and texts are in none of them."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "_tracer", provider.get_tracer("sidecard"))
    with continue_trace(f"00-{TRACE}-b7ad6b7169203331-01"):
        await bench.follow(bench.mesh(recording=Telemetry(provider)))
    spans = exporter.get_finished_spans()
    steps = [one.name.split()[1] for one in spans if one.name.startswith("handshake")]
    assert steps == ["discover", "verify", "credentials", "send", "track"]
    assert {f"{one.context.trace_id:032x}" for one in spans} == {TRACE}
    assert {one["traceparent"].split("-")[1] for one in [*bench.stranger.seen, *bench.stranger.asked]} == {TRACE}
    told = "".join(one.to_json() for one in spans)
    assert "Bearer" not in told
    assert "t1" not in {value for one in spans for value in one.attributes.values()}


async def test_what_came_in_chunks_is_taken_as_its_agent_has_it(bench):
    """Where they begin and end says nothing: the agent's own word for its artifacts counts, however it was followed."""
    task = await bench.follow(bench.mesh(), "chunks A to B")
    asked = [one["path"] for one in bench.stranger.seen]
    assert len(asked) == 2, "the message, and the task once it has ended"
    assert [part.text for part in task.artifacts[0].parts] == ["chunks", "A", "to", "B"]


async def test_who_does_not_know_our_extension_is_told_nothing_of_it(bench):
    """Least of all for whom we ask."""
    await bench.follow(bench.mesh())
    [sent] = bench.stranger.messages
    assert URI not in sent.metadata.fields
    assert not sent.extensions
    assert (sent.message_id, sent.parts[0].text) == ("m1", "A to B")


# -- whom it believes ------------------------------------------------------------------------------------------------


def elsewhere(bench):
    bench.stranger.show(bench.stranger.card(base="https://collects.example.org"), RAIL)
    return {}


def other_publisher(bench):
    card = bench.stranger.card()
    card.provider.organization = "Bus"
    bench.stranger.show(card, RAIL)
    return {}


def other_name(bench):
    card = bench.stranger.card()
    card.name = "canals"
    bench.stranger.show(card, RAIL)
    return {}


def forged(bench):
    bench.stranger.show(bench.stranger.card(), OTHER)
    return {}


def unsigned(bench):
    bench.stranger.show(bench.stranger.card())
    return {}


def other_digest(bench):
    return {"publisher": "", "card_digest": "0" * 64}


def both_proofs(bench):
    return {"card_digest": "0" * 64}


def grpc_only(bench):
    card = bench.stranger.card()
    for interface in card.supported_interfaces:
        interface.protocol_binding = "GRPC"
    bench.stranger.show(card, RAIL)
    return {}


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (elsewhere, "was moved: it names https://collects.example.org"),
        (other_publisher, "Publisher 'Bus' is unknown"),
        (other_name, "card of 'canals', not 'railways'"),
        (forged, "altered, or not signed"),
        (unsigned, "is not signed"),
        (other_digest, "another one than was pinned"),
        (both_proofs, "another one than was pinned"),
        (grpc_only, "offers none of"),
    ],
)
async def test_a_card_that_is_not_proven_gets_no_token_and_no_message(bench, shown, words):
    """At once, and it is certain that nothing came of the message."""
    enrolled = shown(bench)
    with pytest.raises(NotTaken, match=words):
        await bench.follow(bench.mesh(**enrolled))
    assert (bench.stranger.seen, bench.issuer.asked, bench.pauses) == ([], [], 0)


async def test_a_pinned_digest_proves_a_card_that_nobody_signed(bench):
    """Frameworks that do not sign are called all the same, as long as their card is the one that was looked at."""
    shown = bench.stranger.show(bench.stranger.card())
    task = await bench.follow(bench.mesh(publisher="", card_digest=digest(shown)))
    assert task.status.state == S.TASK_STATE_COMPLETED


async def test_an_agent_may_have_another_name_here(bench):
    """Two vendors' agents may be called the same."""
    card = bench.stranger.card()
    card.name = "Railways of the World"
    bench.stranger.show(card, RAIL)
    assert await bench.follow(bench.mesh(card_name="Railways of the World"))


async def tokens_sent_where_a_card_says(bench, thief):
    """Attack: a publisher's own signed card names somebody else's server. Returns the tokens that arrive there."""
    card = bench.stranger.card(bindings=["JSONRPC"], base=thief.url)
    bench.stranger.show(card, RAIL)
    mesh = bench.mesh(allowed=f"{bench.stranger.url} {bench.issuer.url} {thief.url}")
    with pytest.raises(AgentUnavailable):
        await bench.follow(mesh)
    return len([one for one in thief.seen if "authorization" in one])


@pytest.fixture
async def thief(listen):
    thief = Stranger()
    thief.url = f"http://127.0.0.1:{await listen(thief.app())}"
    thief.tokens = set()
    return thief


async def test_a_signed_card_can_not_send_our_token_elsewhere(bench, thief):
    """Also where the operator allows that place for another agent."""
    assert await tokens_sent_where_a_card_says(bench, thief) == 0
    assert thief.seen == []


async def test_without_the_checks_of_the_origin_it_could(bench, thief, monkeypatch):
    """The card's two, and the token's own."""

    class Everywhere(set):
        def __contains__(self, _):
            return True

    monkeypatch.setattr("sidecard.foreign._origins", lambda _: Everywhere())
    assert await tokens_sent_where_a_card_says(bench, thief) == 0  # each of the others holds alone
    monkeypatch.setattr(handshake_module, "_lies_at", lambda *_: True)
    assert await tokens_sent_where_a_card_says(bench, thief) == 0
    monkeypatch.setattr("sidecard.credentials.Origin.__eq__", lambda *_: True)
    assert await tokens_sent_where_a_card_says(bench, thief) > 0


@pytest.mark.parametrize("allowed", ["public", "https://example.org"])
async def test_a_foreign_agent_is_called_only_where_the_operator_allows(bench, allowed):
    """Not on this machine, nor in a private network, unless that is named."""
    with pytest.raises(NotTaken, match="SIDECARD_FOREIGN says where to"):
        await bench.follow(bench.mesh(allowed=allowed))
    assert bench.stranger.asked == bench.stranger.seen == []


async def test_a_redirect_is_not_followed(bench, thief):
    """Neither with a token nor without."""
    bench.stranger.faults = [RedirectResponse(f"{thief.url}/rpc", 307)]
    with pytest.raises(AgentUnavailable):
        await bench.follow(bench.mesh(allowed=f"{bench.stranger.url} {bench.issuer.url} {thief.url}"))
    assert thief.seen == []


# -- tokens ----------------------------------------------------------------------------------------------------------


async def test_a_token_that_was_revoked_is_replaced_once(bench):
    """The message arrives with the new one."""
    mesh = bench.mesh()
    await bench.follow(mesh)
    bench.stranger.tokens = {"t2"}
    await bench.follow(mesh, "B to C")
    assert bench.stranger.done == ["A to B", "B to C"]
    bench.stranger.tokens = set()
    with pytest.raises(NotTaken, match="HTTP 401"):
        await bench.follow(mesh, "C to D")


async def test_an_issuer_that_gives_no_token_is_a_refusal(bench):
    """Nothing was sent."""
    bench.issuer.answers = [Response('{"error": "invalid_scope"}', 400)]
    with pytest.raises(AgentUnavailable, match="gives no token for rail:search"):
        await bench.follow(bench.mesh())
    assert bench.stranger.seen == []


async def test_an_issuer_that_is_down_is_asked_again(bench):
    """As an agent would be."""
    bench.issuer.answers = [Response('{"error": "temporarily_unavailable"}', 503)] * 2
    bench.stranger.tokens = {"t3"}
    assert (await bench.follow(bench.mesh())).status.state == S.TASK_STATE_COMPLETED
    assert bench.pauses == 2


@pytest.mark.parametrize(("exchange", "carried"), [(True, ["ada's"]), (False, None)])
async def test_a_callers_token_is_exchanged_where_its_rights_shall_travel(bench, exchange, carried):
    """It goes to the issuer and never to the agent; where no exchange is agreed it goes nowhere."""
    await bench.follow(bench.mesh(exchange=exchange), bearing=lambda: Presented("ada's", bench.issuer.url))
    [(_, form)] = bench.issuer.asked
    assert form.get("subject_token") == carried
    assert {one["authorization"] for one in bench.stranger.seen} == {"Bearer t1"}


async def test_our_rights_are_no_substitute_for_a_callers(bench):
    """Where its rights shall travel and its token is not at hand, nothing is asked for and nothing sent."""
    with pytest.raises(TokenMissing, match="callers' own rights"):
        await bench.follow(bench.mesh(exchange=True))
    assert bench.stranger.seen == bench.issuer.asked == []


async def test_a_token_that_runs_out_on_the_way_is_missing_then(bench):
    """Its issuer takes it no more: whose it is can bring another, and what was taken is not given up."""
    bench.stranger.gate.clear()
    token = [Presented("ada's", bench.issuer.url)]
    following = asyncio.create_task(bench.follow(bench.mesh(exchange=True), bearing=lambda: token[0]))
    await until(lambda: bench.accepted)
    bench.issuer.answers = [JSONResponse({"error": "invalid_grant"}, 400)] * 9
    following.cancel()
    again = bench.mesh(exchange=True)
    token.append(None)
    called = []

    def bearing():
        called.append(1)
        return token[min(len(called), 2) - 1]

    with pytest.raises(TokenMissing) as caught:
        await bench.follow(again, known=bench.accepted[0], bearing=bearing)
    assert not caught.value.untaken
    assert len(bench.stranger.messages) == 1


# -- what it survives ------------------------------------------------------------------------------------------------


def cut_off():
    """An answer of which nothing is heard: the connection ends."""

    async def fault(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return fault


async def test_a_message_that_may_have_arrived_is_not_sent_again(bench):
    """It would be a second order there: it is given up at once, and not as one of which nothing came."""
    bench.stranger.faults = [cut_off()]
    with pytest.raises(AgentUnavailable) as caught:
        await bench.follow(bench.mesh())
    assert not isinstance(caught.value, NotTaken)
    assert len(bench.stranger.seen) == 1


async def test_a_message_that_can_not_have_arrived_is_sent_again(bench):
    """Said to be too busy."""
    bench.stranger.faults = [Response("busy", 503)] * 2
    assert (await bench.follow(bench.mesh())).status.state == S.TASK_STATE_COMPLETED
    assert bench.stranger.done == ["A to B"]


async def test_a_task_that_was_taken_is_followed_by_its_id(bench):
    """After a cut stream and after a restart: one order there."""
    bench.stranger.tokens = {"t1", "t2"}
    bench.stranger.gate.clear()
    first, second = bench.mesh(), bench.mesh()
    following = asyncio.create_task(bench.follow(first))
    await until(lambda: bench.accepted)
    following.cancel()
    again = asyncio.create_task(bench.follow(second, known=bench.accepted[0]))
    await until(lambda: len(bench.stranger.seen) >= 3)
    bench.stranger.gate.set()
    assert (await again).artifacts[0].parts[0].text == "did A to B"
    assert bench.stranger.done == ["A to B"]
    assert len(bench.stranger.messages) == 1


async def test_a_foreign_task_is_canceled(bench):
    """With a token too."""
    bench.stranger.gate.clear()
    mesh = bench.mesh()
    following = asyncio.create_task(bench.follow(mesh))
    await until(lambda: bench.accepted)
    await mesh.cancel("railways", bench.accepted[0], "")
    assert (await following).status.state == S.TASK_STATE_CANCELED
    assert bench.stranger.done == []


# -- from a task of our own ------------------------------------------------------------------------------------------


class Trip(BaseModel):
    """What the shop's skill takes."""

    text: str


def shop():
    agent = Agent(name="shop", version="1", description="Sells.", publisher="Tests")

    @agent.skill(scope="run", idempotent=False)
    async def run(trip: Trip, task: Task) -> str:
        """Have the railways do it."""
        done = await task.delegate("railways", "connect", trip.text)
        return done.text or done.task.artifacts[0].parts[0].text

    return agent


async def settled(engine, task_id):
    async with engine.borrow(task_id) as live:
        await asyncio.wait_for(live.settled(), 10)
        return live.folded.public()


async def test_a_task_that_delegates_outside_goes_on_after_a_restart_without_asking_twice(bench):
    """The other agent recognises no message: its task is found by the id that was recorded."""
    store, agent = MemoryStore(), shop()
    bench.stranger.tokens = {"t1", "t2"}
    bench.stranger.gate.clear()
    async with started(agent, store, bench.mesh()) as engine:
        sent = message(data={"text": "A to B"})
        task_id = await engine.intake.create(caller(agent), "", agent.skills["run"], sent)
        await until(lambda: bench.stranger.messages)
        async with engine.borrow(task_id) as live:
            await until(lambda: live.folded.children)
            await live.stored()
    async with started(agent, store, bench.mesh()) as engine:
        bench.stranger.gate.set()
        assert (await settled(engine, task_id)).artifacts[0].parts[0].text == "did A to B"
    assert len(bench.stranger.messages) == 1


async def test_what_a_foreign_agent_asks_climbs(bench):
    """And the answer continues its task."""
    agent = shop()
    async with started(agent, MemoryStore(), bench.mesh()) as engine:
        task_id = await engine.intake.create(caller(agent), "", agent.skills["run"], message(data={"text": "ask"}))
        assert text_of((await settled(engine, task_id)).status.message) == "Which class?"
        async with engine.borrow(task_id) as live:
            await engine.intake.answer(live, caller(agent), message("second", "a1", task_id=task_id))
        assert (await settled(engine, task_id)).artifacts[0].parts[0].text == "did second"


# -- configuration ---------------------------------------------------------------------------------------------------


def test_the_file_of_foreign_agents_is_read(tmp_path):
    """None is no error; what is wrong is named."""
    path = tmp_path / "foreign.yaml"
    assert ForeignFile.read(path).agents == {}
    path.write_text("agents: {railways: {url: 'https://rail.example.org/', publisher: Rail}}")
    assert str(ForeignFile.read(path).agents["railways"].origin) == "https://rail.example.org"
    for wrong in (
        "agents: {railways: {url: 'https://rail.example.org'}}",
        "agents: {railways: {url: 'file:///x', publisher: Rail}}",
        "agents: {railways: {url: 'https://rail.example.org', card_digest: abc}}",
        "agents: {railways: {url: 'https://r.example.org', publisher: R, credentials: {issuer: 'nowhere'}}}",
        "[",
        "agents: {railways: {url: 'https://u:p@rail.example.org', publisher: Rail}}",
    ):
        path.write_text(wrong)
        with pytest.raises(ConfigurationError, match=r"foreign\.yaml is not a list of foreign agents"):
            ForeignFile.read(path)


async def test_without_a_way_outside_only_the_registry_is_asked(bench):
    """Nothing is called that the operator has not allowed."""
    bench.outbound = Outbound(Destinations())
    mesh = Mesh(bench.http, NoRegistry(), TrustStore.parse(json.dumps(TRUST)))
    with pytest.raises(AgentUnavailable, match="not in the registry"):
        await mesh.cancel("railways", "t", "")
