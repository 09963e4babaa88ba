"""A screen of one's own behind HTTP, without which nothing passes; and which screen an agent has."""

import json

import httpx
import pytest

from sidecard import ConfigurationError
from sidecard.screening import Direction, Kind, ScreeningFailed
from sidecard.screening.choice import screen_of
from sidecard.screening.conversation import ConversationScreen
from sidecard.screening.finding import ScreenUnavailable
from sidecard.screening.local import LocalScreen
from sidecard.screening.remote import RemoteScreen
from sidecard.screening.screen import Text
from sidecard.settings import Settings

TEXTS = [Text("parts[0].text", "Ada Lovelace flies"), Text("parts[0].data.note", "hello", "note")]
FOUND = {"text": 0, "kind": "personal", "entity": "PERSON", "rule": "ner-1", "start": 0, "end": 12}


def remote(answer):
    """A RemoteScreen whose service answers as told; what it was asked."""
    asked = []

    def serve(request):
        asked.append(json.loads(request.content))
        if isinstance(answer, Exception):
            raise answer
        return answer

    return RemoteScreen("http://screen/", httpx.AsyncClient(transport=httpx.MockTransport(serve))), asked


async def test_a_service_is_asked_about_every_text():
    """And what it finds is found."""
    screen, asked = remote(httpx.Response(200, json={"findings": [FOUND]}))
    (first,), second = await screen.inspect(TEXTS, Direction.OUT)
    assert (first.kind, first.entity, first.start, first.end) == (Kind.PERSONAL, "PERSON", 0, 12)
    assert second == []
    assert asked[0]["direction"] == "out"
    assert asked[0]["texts"][1] == {"place": "parts[0].data.note", "label": "note", "text": "hello"}
    assert not screen.clean(["anything"])


@pytest.mark.parametrize(
    "answer",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("late"),
        httpx.Response(500),
        httpx.Response(302, headers={"location": "http://evil/"}),
    ],
)
async def test_nothing_passes_while_the_service_does_not_answer(answer):
    """The same may be asked again."""
    with pytest.raises(ScreenUnavailable):
        await remote(answer)[0].inspect(TEXTS, Direction.IN)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b'{"findings": [{}]}',
        json.dumps({"findings": [FOUND | {"text": 7}]}).encode(),
        json.dumps({"findings": [FOUND | {"end": 99}]}).encode(),
        json.dumps({"findings": [FOUND | {"kind": "other"}]}).encode(),
        json.dumps({"findings": [FOUND | {"rule": "Ada\nLovelace"}]}).encode(),
    ],
)
async def test_an_answer_that_makes_no_sense_lets_nothing_pass(answer):
    """Nor does what it says of rules and entities get into the log unless it has their form."""
    with pytest.raises(ScreeningFailed):
        await remote(httpx.Response(200, content=answer))[0].inspect(TEXTS, Direction.IN)


def test_a_screen_is_chosen_by_setting():
    """Anything that is no screen is refused at start."""
    kinds = {
        "local": LocalScreen,
        "https://screen.example/inspect": RemoteScreen,
        "conversation:scrubber": ConversationScreen,
        "off": type(None),
    }
    for named, kind in kinds.items():
        assert isinstance(screen_of(Settings(app_id="office", screen=named)), kind)
    for wrong in ("", "none", "conversation:", "ftp://x", "http://"):
        with pytest.raises(ConfigurationError, match="SIDECARD_SCREEN"):
            screen_of(Settings(app_id="office", screen=wrong))
    assert Settings(app_id="office").screen == "local"
