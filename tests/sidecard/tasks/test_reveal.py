"""A task with what was redacted in it put back: where it stands, whose it is, and how its owner asks for it."""

import pytest
from a2a.client import ClientCallContext
from a2a.server.context import ServerCallContext
from a2a.types import Artifact, GetTaskRequest, Message, Part, Task
from a2a.utils.errors import InvalidParamsError, UnsupportedOperationError
from google.protobuf.json_format import MessageToDict
from pydantic import BaseModel

from sidecard import Agent
from sidecard import Task as Doing
from sidecard.callers import Caller
from sidecard.extension import URI
from sidecard.screening.local import LocalScreen
from sidecard.screening.vault import SealNotOpened, Vault
from sidecard.tasks import reveal
from sidecard.tasks.rights import right_to_reveal
from sidecard.testing import FakeAgents, MemoryStore, ended, served
from tests.sidecard.tasks.shop import Shop

MAIL, CARD = "ada@example.org", "4111111111111111"
SUB = "<PHONE_NUMBER_0A1B2C3D>"
VAULT = Vault("office", b"k" * 32)
MARKS = {what: VAULT.placeholder("t1", entity, what) for entity, what in (("EMAIL", MAIL), ("CREDIT_CARD", CARD))}
SEALED = [VAULT.seal("t1", {mark: what}, [mark]) for what, mark in MARKS.items()]


def everywhere(mail, card):
    """A task that has these in all places that hold strings."""
    note = Part(text=f"to {mail}", filename=f"{mail}.txt")
    note.metadata.update({"from": mail})
    data = Part()
    data.data.struct_value.update({"card": card, "all": [card, {"n": [mail]}], mail: "as a name", "price": 12.5})
    file = Part(raw=f"mail\n{mail}\n".encode(), media_type="text/csv")
    said = Message(message_id="s", parts=[Part(text=f"wrote to {mail}, {SUB}")])
    task = Task(id="t1", history=[Message(parts=[note])])
    task.history[0].metadata.update({URI: {"details": [["Card", card]]}})
    task.status.message.CopyFrom(said)
    task.artifacts.append(Artifact(artifact_id="a", name=f"for {mail}", description=card, parts=[data, file]))
    return task


def test_it_is_put_back_wherever_strings_are():
    """In messages, the status and artifacts: text, data and its names, files, file names and metadata."""
    task = everywhere(*MARKS.values())
    reveal.put_back(task, SEALED, VAULT)
    assert MessageToDict(task) == MessageToDict(everywhere(MAIL, CARD))
    assert reveal.placeholders(task) == [SUB], "what another agent redacted is its own"


def test_of_another_task_nothing_is_put_back():
    """A seal that was moved there opens nothing, and the task is left as it is."""
    task = everywhere(*MARKS.values())
    task.id = "t2"
    before = MessageToDict(task)
    with pytest.raises(SealNotOpened):
        reveal.put_back(task, SEALED, VAULT)
    assert MessageToDict(task) == before


def test_placeholders_are_named_once_in_order():
    """As a person is told of them who could not have them put back."""
    assert reveal.placeholders(everywhere(*MARKS.values())) == [MARKS[MAIL], MARKS[CARD], SUB]


# -- how it is asked for ----------------------------------------------------------------------------------------------


def context(**headers):
    return ServerCallContext(state={"headers": {name.replace("_", "-"): said for name, said in headers.items()}})


def test_only_who_says_so_asks_for_it():
    """Beside other extensions too; without the parameter nothing else is looked at."""
    assert reveal.is_asked(context(sidecard_reveal="true", a2a_extensions=f"https://example.org/x, {URI}"))
    assert not reveal.is_asked(context(a2a_extensions=URI))
    assert not reveal.is_asked(ServerCallContext())


@pytest.mark.parametrize("said", ["false", "True", "1", ""])
def test_another_value_is_refused(said):
    """What is meant must be clear."""
    with pytest.raises(InvalidParamsError, match='"true"'):
        reveal.is_asked(context(sidecard_reveal=said, a2a_extensions=URI))


def test_it_belongs_to_the_extension():
    """Which a caller who uses it names (§3.2.6); the error says how."""
    with pytest.raises(InvalidParamsError, match=f"A2A-Extensions: {URI}"):
        reveal.is_asked(context(sidecard_reveal="true"))


# -- whose it is ------------------------------------------------------------------------------------------------------


def test_an_owner_needs_the_right_of_the_skill():
    """As it takes to start it now; where there is no such skill any more, all that they hold."""
    skill = Shop().agent.skills["look"]
    ada = Caller("ada", "ada", frozenset({"look"}))
    assert right_to_reveal(ada, skill) == "owner, scope look"
    assert right_to_reveal(Caller("ada", "ada", frozenset({"buy"})), skill) == ""
    assert right_to_reveal(ada, None) == "owner"
    assert right_to_reveal(Caller("ada", "ada", frozenset({"look"}), narrowed=True), None) == ""


@pytest.mark.parametrize("skill", [Shop().agent.skills["look"], None])
def test_who_uses_an_owners_token_is_not_them(skill):
    """An agent to which it was exchanged (RFC 8693), with all rights of the owner."""
    assert right_to_reveal(Caller("ada", "ada", frozenset({"look"}), actor="helper"), skill) == ""


# -- of a task that has delegated -------------------------------------------------------------------------------------

trips = Agent(name="trips", version="1", description="Plans.", publisher="Tests")
CALLERS = {"ada": {"api_key": True, "grants": {"trips": ["plan"]}}}


class Booking(BaseModel):
    """What the other agent is asked, and answers."""

    text: str


@trips.skill(scope="plan", idempotent=False)
async def plan(text: str, task: Doing) -> Booking:
    """Has somebody else book."""
    return await task.delegate("airline", "book", Booking(text=text), output=Booking)


async def test_a_parents_owner_has_put_back_what_the_parent_redacted():
    """In its request and in the answer; what the other agent redacted stays that agent's."""
    answer = f"booked for {MAIL}, call {SUB}"
    agents = FakeAgents({"airline": [ended("t9", Booking(text=answer))]})
    async with served(trips, MemoryStore(), CALLERS, agents, screen=LocalScreen()) as agent:
        made = await agent.send("ada", f"for {MAIL}")
        assert MAIL not in str([made.artifacts, agents.sent])
        client, asked = agent.client("JSONRPC", "ada"), ClientCallContext(service_parameters=dict(reveal.ASKED))
        shown = await client.get_task(GetTaskRequest(id=made.id, history_length=0), context=asked)
        assert MessageToDict(shown.artifacts[0].parts[0].data) == {"text": answer}
        assert not shown.history


async def test_an_owner_learns_that_the_key_is_gone():
    """And what to do about it; the task as it is can be had all the same."""
    agents = FakeAgents({"airline": [ended("t9", Booking(text="booked"))]})
    async with served(trips, MemoryStore(), CALLERS, agents, screen=LocalScreen()) as agent:
        made = await agent.send("ada", f"for {MAIL}")
        agent.engine.vault = Vault("trips", b"another key")
        client, asked = agent.client("JSONRPC", "ada"), ClientCallContext(service_parameters=dict(reveal.ASKED))
        with pytest.raises(UnsupportedOperationError, match="task-id-key of trips"):
            await client.get_task(GetTaskRequest(id=made.id), context=asked)
        assert (await client.get_task(GetTaskRequest(id=made.id))).id == made.id
