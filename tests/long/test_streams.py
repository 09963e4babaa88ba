"""A stream that is longer than what keeps its connections, through the sidecars of the desk and of an agent."""

import contextlib
import time
from itertools import chain

import pytest

from bench.estate import estate
from sidecard.cli import client as client_module
from sidecard.cli.client import AgentClient
from sidecard.streamed import fold, place_of
from tests.sidecard.tasks.shop import text_of

SECONDS = 330
pytestmark = [pytest.mark.long, pytest.mark.timeout(SECONDS + 150)]


def ticks(event):
    """What an event brings anew; a task shows all that was before."""
    artifacts = event.task.artifacts if event.HasField("task") else [event.artifact_update.artifact]
    return [part.text for artifact in artifacts if artifact.name == "ticks" for part in artifact.parts]


def said(artifact):
    """Its name and its text, however that is divided."""
    return artifact.name, text_of(artifact)


async def test_each_event_of_a_stream_of_more_than_five_minutes_comes_once_and_in_order(tmp_path, monkeypatch):
    """The sidecars (1.18) cut it as if it had ended: our client goes on behind the last event that it saw."""
    opened = []
    whole = client_module.AgentClient._open

    async def counted(self, *given):
        opened.append(time.monotonic())
        async with contextlib.aclosing(whole(self, *given)) as events:
            async for event in events:
                yield event

    monkeypatch.setattr(client_module.AgentClient, "_open", counted)
    with estate(tmp_path, ["clock"], mesh=True, program="tests.long.clock") as system:
        began = time.monotonic()
        async with AgentClient.through_desk(system.project, "clock") as desk:
            events = [event async for event in desk.stream(str(SECONDS))]
            took = time.monotonic() - began
            task = await desk.get(events[0].task.id)
    print(f"{len(events)} events in {took:.0f} s, over {len(opened)} streams, opened at "
          f"{', '.join(f'{at - began:.0f}' for at in opened)} s")  # fmt: skip
    assert took > SECONDS
    # Content inspection holds the end of a text back where it may be the beginning of something: chunks may join.
    assert "".join(chain.from_iterable(map(ticks, events))) == "".join(f"{number} " for number in range(SECONDS))
    places = [place_of(event) for event in events]
    assert len(set(places)) == len(places)
    seen = task.__class__()
    for event in events:
        seen = fold(seen, event)
    # Once its task has ended, a text that came in chunks is one part.
    assert list(map(said, seen.artifacts)) == list(map(said, task.artifacts))
