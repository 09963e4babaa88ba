"""Three agents in a row, as people meet them: they come in at the door, the vault asks them, and one stands between."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from a2a.types import CancelTaskRequest, SendMessageRequest
from a2a.utils.errors import A2AError
from pydantic import BaseModel

from sidecard import Agent, Task
from sidecard.extension import Asked, Granted, Sent
from sidecard.tasks.watch import NotTaken
from sidecard.testing import MemoryStore, Publisher, Served, message, served

ALL = ["errand"]
CALLERS = {
    "ada": {"api_key": True, "tenants": ["acme"], "grants": {"door": ALL}},
    "boss": {"api_key": True, "grants": {"door": ["approve"], "vault": ["approve"]}},
    "door": {"api_key": True, "speaks_for_others": True, "tenants": ["acme"], "grants": {"middle": ALL}},
    "middle": {"api_key": True, "speaks_for_others": True, "tenants": ["acme"], "grants": {"vault": ALL}},
}


class Errand(BaseModel):
    """What is to be done in the vault."""

    what: str = "release"


class Done(BaseModel):
    """What became of it."""

    said: str


class Wire:
    """Carries what an agent delegates to another one over its JSON-RPC; `tamper` may change what comes back."""

    def __init__(self, caller: str, to: Served) -> None:
        self._caller, self._to = caller, to
        self.tamper = lambda task: task

    async def follow(self, agent, sent, tenant, accepted, **_):
        """See tasks.watch.Delegator."""
        assert agent == self._to.agent.name
        client = self._to.client("JSONRPC", self._caller)
        sent.role = 1
        try:
            events = [event async for event in client.send_message(SendMessageRequest(message=sent, tenant=tenant))]
        except A2AError as error:
            raise NotTaken(str(error)) from error
        accepted(events[-1].task.id)
        return self.tamper(events[-1].task)

    async def cancel(self, agent, task_id, tenant):
        """See tasks.watch.Delegator."""
        await self._to.client("JSONRPC", self._caller).cancel_task(CancelTaskRequest(id=task_id, tenant=tenant))


def vault() -> Agent:
    """Asks another person for a release, and who it is for for a charge."""
    agent = Agent(name="vault", version="1", description="Keeps.", publisher="Tests", asks=("approve",))

    @agent.skill(scope="errand", idempotent=False)
    async def errand(errand: Errand, task: Task) -> Done:
        """Ask, then do it."""
        if errand.what == "release":
            options = {"yes": "Release", "no": "Keep"}
            answer = await task.ask("Release 10,000 EUR?", options=options, scope="approve", by_other=True)
            return Done(said=f"{answer.choice} by {answer.by}")
        details = {"Amount": "180.00 EUR", "For": "a flight"}
        granted = await task.authorize("Charge 180 EUR to your card?", authority="card:charge", details=details)
        return Done(said=f"{granted.authority} by {granted.by} at {granted.at.isoformat()}")

    return agent


def passing(name: str, to: str) -> Agent:
    """Has the next agent do it."""
    agent = Agent(name=name, version="1", description="Passes on.", publisher="Tests", asks=("approve",))

    @agent.skill(scope="errand", idempotent=False)
    async def errand(errand: Errand, task: Task) -> Done:
        """Pass it on."""
        return await task.delegate(to, "errand", errand, output=Done, rejected="reject")

    return agent


@dataclass
class Chain:
    """The three of them. `wires` are what the door and the middle delegate by."""

    publisher: Publisher
    door: Served
    middle: Served
    vault: Served
    wires: dict[str, Wire]

    async def begin(self, what="release", by="ada", at="door", again="m1", **sent):
        """The task of an errand, as it rests."""
        served = getattr(self, at)
        request = message(data={"what": what}, message_id=again)
        return await self.say(served, by, Sent(skill="errand", **sent).attach(request))

    async def answer(self, task, by, text, *, at="door", again="a1", **sent):
        """What a task becomes by an answer."""
        return await self.say(
            getattr(self, at), by, Sent(**sent).attach(message(text, again, task_id=task.id)), task.context_id
        )

    async def decide(self, task, by="ada", *, granted=True, authority="card:charge", at="door", again="a1", **sent):
        """What a task becomes by a grant or a refusal."""
        question = Asked.of(task.status.message).question
        decided = {"question": question, "grant": Granted(authority=authority, granted=granted)} | sent
        return await self.answer(task, by, "granted" if granted else "refused", at=at, again=again, **decided)

    async def say(self, served, by, said, context=""):
        """The task that a message leaves, as this caller sees it."""
        request = SendMessageRequest(message=said)
        return [event.task async for event in served.client("JSONRPC", by).send_message(request)][-1]

    async def folded(self, at):
        """The one task of an agent, as it is stored, with its log."""
        from sidecard.tasks.loading import read_log

        engine = getattr(self, at).engine
        (task_id,) = {key.split(":")[1] for key in engine.store.data if key.startswith("log:") and key.count(":") == 2}
        return await read_log(engine.store, task_id)


@contextlib.asynccontextmanager
async def chain(stores=None, publisher=None) -> AsyncIterator[Chain]:
    """Serve them; leaving the block is like stopping all three processes."""
    stores = stores or {name: MemoryStore() for name in ("door", "middle", "vault")}
    publisher = publisher or Publisher("door", "middle", "vault")
    async with contextlib.AsyncExitStack() as stack:

        async def serve(agent, wire=None):
            return await stack.enter_async_context(
                served(agent, stores[agent.name], CALLERS, wire, publisher=publisher)
            )

        safe = await serve(vault())
        wires = {"middle": Wire("middle", safe)}
        middle = await serve(passing("middle", "vault"), wires["middle"])
        wires["door"] = Wire("door", middle)
        door = await serve(passing("door", "middle"), wires["door"])
        yield Chain(publisher, door, middle, safe, wires)
