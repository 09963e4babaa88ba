"""AgentClient against a real agent: what it returns, what it raises, and that it does not give up."""

import asyncio
import json
from dataclasses import replace
from typing import ClassVar

import httpx
import pytest
from a2a.types import AgentCard, AgentProvider, Message, TaskState
from a2a.utils.errors import InvalidParamsError, TaskNotCancelableError, TaskNotFoundError

from sidecard.cli import client as client_module
from sidecard.cli import way
from sidecard.cli.client import AgentClient
from sidecard.errors import AgentUnavailable, CardRejected, ConfigurationError
from sidecard.refusals import Forbidden, Unauthenticated
from sidecard.streamed import place_of
from sidecard.tasks.binding import data_of, text_of

S = TaskState


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Nothing waits between attempts."""
    monkeypatch.setattr(client_module, "RETRY_SECONDS", (0.0,))


def content(task):
    return Message(parts=task.artifacts[0].parts)


async def test_a_message_is_sent_and_its_task_comes_back_as_the_agent_holds_it(project, sidecar):
    """Text, data and a file reach the skill; what returns is what GetTask gives."""
    async with AgentClient.through_desk(project, "shop") as desk:
        task = await desk.send(
            "apples", data={"count": 3}, files=[("list.csv", "text/csv", b"a,b")], skill="buy", context_id="trip"
        )
        assert task.status.state == S.TASK_STATE_COMPLETED
        assert data_of(content(task)) == {"said": "3 apples and list.csv of 3 bytes"}
        assert task.context_id == "trip"
        assert await desk.get(task.id) == task


async def test_a_question_is_answered(project, sidecar):
    """The same task continues."""
    async with AgentClient.through_desk(project, "shop") as desk:
        asked = await desk.send("one", skill="choose")
        assert asked.status.state == S.TASK_STATE_INPUT_REQUIRED
        done = await desk.answer(asked, "the second")
    assert (done.id, text_of(content(done))) == (asked.id, "B for desk")


async def test_an_answer_to_a_question_that_is_no_longer_open_is_refused(project, sidecar):
    """It names the question it was meant for, so it can't answer another one by accident."""
    async with AgentClient.through_desk(project, "shop") as desk:
        asked = await desk.send("one", skill="choose")
        await desk.answer(asked, "neither")
        with pytest.raises(InvalidParamsError, match="not open"):
            await desk.answer(asked, "A")


async def test_whoever_answers_for_another_gets_the_outcome_from_the_answers_stream(project, sidecar):
    """They can't read the task once the question is closed; the requester is refused with a reason."""
    async with AgentClient.through_desk(project, "shop") as desk:
        asked = await desk.send("one", skill="spend")
        assert "approve" in await desk.try_answer(asked, "yes")
    async with AgentClient.direct(project, "shop", caller="boss") as boss:
        assert await boss.get(asked.id)
        done = await boss.answer(asked, "yes")
        assert done.status.state == S.TASK_STATE_COMPLETED
        assert text_of(content(done)) == "yes by boss"
        with pytest.raises(TaskNotFoundError):
            await boss.get(asked.id)


async def test_an_answer_that_is_taken_gives_no_reason(project, sidecar):
    """try_answer returns nothing, and does not wait."""
    async with AgentClient.through_desk(project, "shop") as desk:
        asked = await desk.send("one", skill="choose")
        assert await desk.try_answer(asked, "A") == ""


async def test_without_waiting_the_task_comes_back_at_once(project, sidecar):
    """And the same message under the same id starts nothing twice."""
    async with AgentClient.through_desk(project, "shop") as desk:
        first = await desk.send("one", skill="choose", message_id="m1", wait=False)
        again = await desk.send("one", skill="choose", message_id="m1")
        assert first.id == again.id
        assert again.status.state == S.TASK_STATE_INPUT_REQUIRED
        assert len((await desk.tasks()).tasks) == 1


@pytest.mark.parametrize("cut", [0, 1, 2])
async def test_a_stream_that_breaks_is_resumed(project, sidecar, cut):
    """Cut before its first event it is sent again, later it is subscribed to; the outcome is the same."""
    async with AgentClient.through_desk(project, "shop") as desk:
        sidecar.cut = cut
        task = await desk.send("news", skill="tell")
        assert sidecar.cut is None
        assert task.status.state == S.TASK_STATE_COMPLETED
        assert [artifact.name for artifact in task.artifacts] == ["report"]
        assert len((await desk.tasks()).tasks) == 1


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
async def test_no_event_comes_twice_where_a_stream_was_cut(project, sidecar, cut):
    """It goes on behind the last one that was seen, whether the task still runs by then or has ended."""

    async def places():
        return [place_of(event) async for event in desk.stream("news", skill="tell")]

    async with AgentClient.through_desk(project, "shop") as desk:
        whole = await places()
        sidecar.cut = cut
        resumed = await places()
    assert sidecar.cut is None
    assert all(whole)
    assert len(set(resumed)) == len(resumed)
    assert resumed[-1] == whole[-1]


async def test_a_stream_that_was_silent_for_long_is_resumed(project, sidecar, monkeypatch):
    """Patience is for an agent that can't be had; dapr cuts a stream after minutes, whatever it carried."""
    monkeypatch.setattr(client_module, "PATIENCE", 0.05)
    monkeypatch.setattr(client_module, "KEPT_OPEN_SECONDS", 0.1)
    async with AgentClient.through_desk(project, "shop") as desk:
        opened = desk._open
        silent = iter([0.06, 0.11, 0.11])  # longer than the patience; then as long as only pings can keep one open

        async def cut_off(request, task_id, place):
            for seconds in silent:
                await asyncio.sleep(seconds)
                return
            async for event in opened(request, task_id, place):
                yield event

        monkeypatch.setattr(desk, "_open", cut_off)
        assert (await desk.send("news", skill="tell")).status.state == S.TASK_STATE_COMPLETED


async def test_a_stream_that_stays_broken_is_given_up(project, sidecar, monkeypatch):
    """Once its patience is over; what the agent has taken goes on there."""
    monkeypatch.setattr(client_module, "PATIENCE", 0.0)
    async with AgentClient.through_desk(project, "shop") as desk:
        sidecar.cut = 0
        with pytest.raises(AgentUnavailable, match="try again"):
            await desk.send("news", skill="tell")
        assert len((await desk.tasks()).tasks) == 1


async def test_streams_without_an_event_are_given_up(project, sidecar, monkeypatch):
    """Whatever ends them: nothing is asked for ever."""

    async def nothing(*_):
        return
        yield

    monkeypatch.setattr(client_module, "PATIENCE", 0.0)
    async with AgentClient.through_desk(project, "shop") as desk:
        monkeypatch.setattr(desk, "_open", nothing)
        with pytest.raises(AgentUnavailable, match="without an event"):
            await desk.send("one", skill="buy")


async def test_a_task_is_followed_until_it_waits_or_ends(project, sidecar):
    """An ended task is told once, as it is."""
    async with AgentClient.through_desk(project, "shop") as desk:
        asked = await desk.send("one", skill="choose")
        assert [event.task.id async for event in desk.follow(asked.id)] == [asked.id]
        done = await desk.answer(asked, "A")
        assert [event.task async for event in desk.follow(asked.id)] == [done]


async def test_a_task_is_canceled_once(project, sidecar):
    """A second time the agent says that it has ended."""
    async with AgentClient.through_desk(project, "shop") as desk:
        asked = await desk.send("one", skill="choose")
        assert (await desk.cancel(asked.id)).status.state == S.TASK_STATE_CANCELED
        with pytest.raises(TaskNotCancelableError):
            await desk.cancel(asked.id)


async def test_a_tenant_goes_with_every_request(project, sidecar):
    """Tasks of one are not seen in another, and a tenant that is not the caller's is refused."""
    async with AgentClient.through_desk(project, "shop", tenant="north") as north:
        task = await north.send("one", skill="buy")
        assert await north.get(task.id) == task
    async with AgentClient.through_desk(project, "shop") as desk:
        assert not (await desk.tasks()).tasks
    async with AgentClient.through_desk(project, "shop", tenant="south") as south:
        with pytest.raises(Forbidden, match="tenant"):
            await south.send("one", skill="buy")


async def test_refusals_arrive_as_what_they_are(project, sidecar):
    """Whether the agent refuses at the door, in a route or in a stream."""
    async with AgentClient.direct(project, "shop", caller="guest") as guest:
        for wait in (True, False):
            with pytest.raises(Forbidden, match="holds none of the scopes"):
                await guest.send("one", skill="buy", wait=wait)
        with pytest.raises(TaskNotFoundError):
            await guest.get("nothing")
    async with AgentClient.through_desk(project, "shop", tenant="south") as desk:
        for wait in (True, False):
            with pytest.raises(Forbidden, match="tenant"):
                await desk.send("one", skill="buy", wait=wait)
    (project.local / "keys" / "guest.key").write_text("forgotten")
    async with AgentClient.direct(project, "shop", caller="guest") as nobody:
        for wait in (True, False):
            with pytest.raises(Unauthenticated):
                await nobody.send("one", wait=wait)


async def test_a_card_that_is_not_believed_is_never_called(project, sidecar):
    """Nothing is sent, no key either."""
    trust = json.loads((project.local / "trust.json").read_text())
    trust["publishers"]["Tests"]["keys"][0]["kid"] = "another"
    (project.local / "trust.json").write_text(json.dumps(trust))
    with pytest.raises(CardRejected, match="not pinned"):
        async with AgentClient.through_desk(project, "shop"):
            raise AssertionError


async def test_the_verified_card_is_there_inside_the_block(project, sidecar):
    """With who signed it."""
    client = AgentClient.direct(project, "shop", caller="boss")
    with pytest.raises(RuntimeError, match="async with"):
        assert client.verified
    async with client:
        assert (client.verified.publisher, client.verified.kid) == ("Tests", "shop-1")


async def test_a_missing_sidecar_says_how_to_start_it(project, port):
    """So does an agent that nobody serves."""
    port.close()
    for client in (AgentClient.through_desk(project, "shop"), AgentClient.direct(project, "shop", caller="boss")):
        with pytest.raises(AgentUnavailable, match="make up"):
            async with client:
                raise AssertionError


async def test_what_dapr_answers_becomes_what_to_do(project, sidecar):
    """Its access rules, an app that is not there, and a sidecar of another project."""
    with pytest.raises(ConfigurationError, match=r"components/access/guarded\.yaml"):
        async with AgentClient.through_desk(project, "guarded"):
            raise AssertionError
    with pytest.raises(AgentUnavailable, match="couldn't find service: gone"):
        async with AgentClient.through_desk(project, "gone"):
            raise AssertionError
    (project.local / "tokens" / "desk.env").write_text("DAPR_API_TOKEN=old\n")
    with pytest.raises(ConfigurationError, match="another token"):
        async with AgentClient.through_desk(project, "shop"):
            raise AssertionError


def test_what_is_missing_in_the_project_is_named(project):
    """An agent, a key, a token, the pinned keys."""
    with pytest.raises(ConfigurationError, match="there are: gone, guarded, shop"):
        AgentClient.through_desk(project, "desk")
    with pytest.raises(ConfigurationError, match="there are: boss, guest"):
        AgentClient.direct(project, "shop", caller="ada")
    (project.local / "trust.json").unlink()
    with pytest.raises(ConfigurationError, match="make up"):
        AgentClient.through_desk(project, "shop")
    (project.local / "tokens" / "desk.env").unlink()
    with pytest.raises(ConfigurationError, match="no token"):
        AgentClient.through_desk(project, "shop")


def test_a_wrong_variable_is_named_without_a_traceback(project, monkeypatch):
    """DAPR_HTTP_PORT outranks dapr.yaml, so it is the one to mend."""
    monkeypatch.setenv("DAPR_HTTP_PORT", "eighty")
    with pytest.raises(ConfigurationError, match="environment is set up wrongly: DAPR_HTTP_PORT"):
        AgentClient.through_desk(project, "shop")


async def test_what_says_who_calls_is_sent_only_once_the_card_is_verified(project, sidecar):
    """To the agent's endpoint, in each request; the request for its card has nothing of it."""

    class Noting(httpx.Auth):
        paths: ClassVar[list] = []

        async def async_auth_flow(self, request):
            self.paths.append(request.url.path)
            yield request

    async with AgentClient(replace(way.directly(project, "shop", "boss"), auth=Noting())) as boss:
        assert Noting.paths == []
        await boss.tasks()
    assert Noting.paths == ["/a2a"]


async def test_another_agents_card_is_not_taken_for_its_own(project, sidecar, monkeypatch):
    """However well it is signed."""
    shown = AgentCard(name="bakery", provider=AgentProvider(organization="Tests"))
    trusted = json.loads((project.local / "trust.json").read_text())
    trusted["publishers"]["Tests"]["keys"][0]["agents"] = ["shop", "bakery"]
    (project.local / "trust.json").write_text(json.dumps(trusted))
    monkeypatch.setattr("sidecard.extended_card.for_caller", lambda *_: shown)
    async with AgentClient.through_desk(project, "shop") as desk:
        with pytest.raises(CardRejected, match="shop shows another agent's card"):
            await desk.extended_card()
