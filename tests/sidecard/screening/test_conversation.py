"""Screening by the scrubbing of Dapr's Conversation API, on a real sidecar; and on made-up ones that misbehave."""

import asyncio
import json

import httpx
import pytest
from a2a.client.errors import A2AClientError

from chaos import servers
from sidecard import Agent, ConfigurationError, Task
from sidecard.cli import runtime
from sidecard.cli.console import Console
from sidecard.cli.project import Project
from sidecard.screening import Action, Direction, Policy, ScreeningFailed
from sidecard.screening import conversation as module
from sidecard.screening.conversation import ConversationScreen
from sidecard.screening.finding import ScreenUnavailable
from sidecard.screening.local import LocalScreen
from sidecard.screening.screen import Text
from sidecard.settings import Settings
from sidecard.sidecar import sidecar_client
from sidecard.testing import MemoryStore, served

MAIL, PHONE, CARD = "ada@example.org", "+44 20 7946 0958", "4111 1111 1111 1111"
BEHIND = "alan@example.org"
TEXT = f"write to {MAIL} or call {PHONE}; charge {CARD}, and tell {BEHIND}"
CONVERSE = "/v1.0-alpha2/conversation/scrubber/converse"

pytestmark = pytest.mark.timeout(1_200)
"""The first of them builds a daprd: half a minute where Go has built one before, minutes where it has not."""


class Nothing:
    """A screen that finds nothing, so that what is found is the sidecar's doing."""

    async def start(self):
        pass

    async def inspect(self, texts, direction):
        return [[] for _ in texts]

    async def close(self):
        pass


@pytest.fixture(scope="module")
def daprd():
    """One with `conversation.echo`, built at first."""
    return runtime.ensure(Project(servers.ROOT), Console(), [runtime.CONVERSATION])["daprd-conversation"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of a sidecar that has a component `scrubber`."""
    folder = tmp_path_factory.mktemp("scrubbing")
    (folder / "components").mkdir()
    component = {"apiVersion": "dapr.io/v1alpha1", "kind": "Component", "metadata": {"name": "scrubber"}}
    component["spec"] = {"type": "conversation.echo", "version": "v1"}
    (folder / "components" / "scrubber.yaml").write_text(json.dumps(component))
    return folder


def running(daprd, folder):
    return servers.sidecar("state.sqlite", None, folder, app_id="scrubbing", daprd=daprd)


@pytest.fixture(scope="module")
def sidecar(daprd, folder):
    with running(daprd, folder) as started:
        yield started


def screen_at(sidecar, component="scrubber"):
    settings = Settings(app_id="scrubbing", dapr_http_port=sidecar.http_port, dapr_api_token=servers.TOKEN)
    return ConversationScreen(component, Nothing(), sidecar_client(settings))


async def found_in(screen, *texts):
    """What is found in texts: name and words."""
    inspected = await screen.inspect([Text("here", text) for text in texts], Direction.OUT)
    return [
        [(one.entity, text[one.start : one.end]) for one in found] for text, found in zip(texts, inspected, strict=True)
    ]


def writer():
    """An agent whose skill says what it was told, and what it was told. It is never told personal data."""
    agent = Agent(name="writer", version="1", description="Writes.", publisher="Tests")
    told = []

    @agent.skill(scope="write", idempotent=True, screening=Policy(personal_in=Action.REDACT))
    async def write(text: str, task: Task) -> str:
        """Write something."""
        told.append(text)
        return "done"

    return agent, told


CALLERS = {"ada": {"api_key": True, "grants": {"writer": ["write"]}}}


async def leaks(screen):
    """How many of four pieces of personal data reach a skill, or the store of its tasks."""
    agent, told = writer()
    store = MemoryStore()
    async with served(agent, store, CALLERS, screen=screen) as up:
        await up.send("ada", TEXT)
    assert len(told) == 1
    stored = b"\n".join(store.data.values()).decode("utf-8", "replace")
    return sum(one in told[0] or one in stored for one in (MAIL, PHONE, CARD, BEHIND))


@pytest.mark.timeout(600)  # that daprd may have to be built first
async def test_what_the_sidecar_scrubs_reaches_no_skill(sidecar):
    """Nor is it stored: an address, a telephone number, a card, and what stands behind them."""
    assert await leaks(screen_at(sidecar)) == 0


async def test_without_the_screen_it_does():
    """All four."""
    assert await leaks(None) == 4


async def test_it_is_asked_until_nothing_is_left(sidecar, monkeypatch):
    """As daprd 1.18 stops scrubbing behind a card in groups of four; after so many tries all of a text is hidden."""
    screen = screen_at(sidecar)
    prompt = {"messages": [{"ofUser": {"content": [{"text": TEXT}]}}], "scrubPii": True}
    url = f"http://127.0.0.1:{sidecar.http_port}{CONVERSE}"
    async with httpx.AsyncClient(headers={"dapr-api-token": servers.TOKEN}) as client:
        once = (await client.post(url, json={"inputs": [prompt]})).text
    assert MAIL not in once
    assert BEHIND in once
    [found] = await found_in(screen, TEXT)
    assert ("EMAIL_ADDRESS", BEHIND) in found
    monkeypatch.setattr(module, "MOST_ROUNDS", 2)
    assert await found_in(screen, TEXT) == [[("PERSONAL_DATA", TEXT)]]


async def test_what_is_found_has_the_names_that_policies_use(sidecar):
    """Where it stood, letter by letter; and any four digits are a telephone number to daprd 1.18."""
    screen = screen_at(sidecar)
    assert await found_in(
        screen,
        "from 10.0.0.1",
        "to GB82WEST12345698765432",
        "é 😀 \0 ada@example.org\r\n",
        "BA 1432 at 14:30",
        "https://example.org/?to=ada@example.org",
        "",
        " \n",
        "Nothing.",
    ) == [
        [("IP_ADDRESS", "10.0.0.1")],
        [("IBAN_CODE", "GB82WEST12345698765432")],
        [("EMAIL_ADDRESS", MAIL)],
        [("PHONE_NUMBER", "1432")],
        [],
        [],
        [],
        [],
    ]


async def test_an_agent_without_its_component_is_told_what_to_do(sidecar):
    """It waits until it is there."""
    with pytest.raises(ScreenUnavailable, match=r"'other' answers HTTP 400 ERR_CONVERSATION_NOT_FOUND; .*echo"):
        await screen_at(sidecar, "other").start()


async def test_a_text_that_the_sidecar_does_not_read_is_refused(sidecar):
    """It is not asked for again."""
    with pytest.raises(ScreeningFailed, match="send less") as refused:
        await found_in(screen_at(sidecar), "a" * 5_000_000)
    assert not isinstance(refused.value, ScreenUnavailable)


async def test_nothing_passes_while_the_sidecar_is_down(daprd, folder):
    """The sender is told, nothing runs; and what is sent again when it is up goes through."""
    agent, told = writer()
    with running(daprd, folder) as started:
        screen = screen_at(started)
        async with served(agent, MemoryStore(), CALLERS, screen=screen) as up:
            started.server.kill()
            with pytest.raises(A2AClientError, match="'scrubber' does not answer"):
                await up.send("ada", TEXT, again="m1")
            assert told == []
            started.server.start()
            servers.wait_ready(started)
            await up.send("ada", TEXT, again="m1")
            assert len(told) == 1


def test_a_sidecar_without_that_type_of_component_says_so(folder):
    """The one that `sidecard runtime` builds, of Dapr's stable components, does not start."""
    with (
        pytest.raises(ConfigurationError, match=r"couldn't find conversation conversation\.echo"),
        running(servers.ROOT / "runtime/bin/daprd", folder),
    ):
        pass


def answering(answer, beside=None):
    """A screen whose sidecar makes an answer of a text; or that many HTTP errors."""

    def serve(request):
        assert request.url.path == CONVERSE
        (given,) = json.loads(request.content)["inputs"]
        assert given["scrubPii"] is True
        said = answer(given["messages"][0]["ofUser"]["content"][0]["text"])
        if isinstance(said, httpx.Response):
            return said
        return httpx.Response(200, json={"outputs": [{"choices": [{"message": {"content": said}}]}]})

    sidecar = httpx.AsyncClient(transport=httpx.MockTransport(serve), base_url="http://sidecar/v1.0")
    return ConversationScreen("scrubber", beside or Nothing(), sidecar)


def replacing(**words):
    """A sidecar that scrubs these words by their names."""

    def answer(text):
        for name, word in words.items():
            text = text.replace(word, f"<{name}>")
        return text

    return answer


async def test_what_is_scrubbed_is_found_beside_what_the_default_screen_finds():
    """Both are asked about every text."""
    local = LocalScreen()
    await local.start()
    text = "Ada Lovelace, ada@example.org, of London."
    [found] = await found_in(answering(replacing(PERSON="Ada Lovelace", LOCATION="London"), local), text)
    assert set(found) == {("PERSON", "Ada Lovelace"), ("LOCATION", "London"), ("EMAIL_ADDRESS", MAIL)}


@pytest.mark.parametrize("answer", [lambda text: text, lambda text: f"You say {text}", lambda text: "<EMAIL_ADDRESS>"])
async def test_a_component_that_does_not_repeat_or_a_sidecar_that_does_not_scrub_is_refused(answer):
    """At start: no message would be what was sent, or nothing would ever be found."""
    with pytest.raises(ConfigurationError, match=r"conversation\.echo"):
        await answering(answer).start()


async def test_where_it_can_not_be_told_what_was_scrubbed_all_of_the_text_is():
    """Such as when a component that is no echo answers."""
    flies = "Ada Lovelace flies"
    assert await found_in(answering(lambda text: "I can't repeat that."), flies) == [[("PERSONAL_DATA", flies)]]


async def test_what_might_be_one_or_the_other_is_named_as_neither():
    """Or the digits of a telephone number would go to whoever needs the address."""
    words = {"PHONE_NUMBER": "020 7946", "EMAIL_ADDRESS": MAIL}
    scrubbing = answering(replacing(**words))
    assert await found_in(
        scrubbing, f"020 7946{MAIL}", f"020 7946 {MAIL}", f"020 7946, {MAIL}", "020 7946 020 7946"
    ) == [
        [("PERSONAL_DATA", "0"), ("PERSONAL_DATA", f"20 7946{MAIL}")],
        [("PERSONAL_DATA", "020"), ("PERSONAL_DATA", f"7946 {MAIL}")],
        [("PHONE_NUMBER", "020 7946"), ("EMAIL_ADDRESS", MAIL)],
        [("PHONE_NUMBER", "020"), ("PHONE_NUMBER", "7946 020 7946")],
    ]


async def test_a_tag_that_somebody_wrote_is_no_personal_data():
    """It stands for nothing."""
    assert await found_in(answering(replacing(EMAIL_ADDRESS=MAIL)), f"<PERSON> of {MAIL}") == [
        [("EMAIL_ADDRESS", MAIL)]
    ]


@pytest.mark.timeout(20)
async def test_no_text_takes_long_to_be_laid_under_what_was_scrubbed():
    """However many ways there are to do so, and though none of them fits."""
    words = {f"{letter}X": letter.lower() * 300 for letter in "ABCDEFGH"}
    text = "".join(words.values())
    scrubbing = replacing(**words)
    assert await found_in(answering(lambda text: text if "<" in text else f"{scrubbing(text)}?"), text) == [
        [("PERSONAL_DATA", text)]
    ]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (
            httpx.Response(500, json={"errorCode": "ERR_CONVERSATION_INVOKE", "message": f"{MAIL} broke it"}),
            "500 ERR_C",
        ),
        (httpx.Response(500, json={"errorCode": f"{MAIL}"}), "500$"),
        (httpx.Response(401), "401$"),
        (httpx.Response(200, content=b"{}"), "another form"),
        (httpx.Response(200, json={"outputs": [{"choices": [{"message": {}}]}]}), "another form"),
    ],
)
async def test_nothing_passes_when_the_sidecar_answers_otherwise(answer, error):
    """What it says of the text is repeated to nobody."""
    with pytest.raises(ScreeningFailed, match=error) as failed:
        await found_in(answering(lambda text: answer), TEXT)
    assert MAIL not in str(failed.value)


async def test_what_takes_too_long_is_not_waited_for(monkeypatch):
    """A sidecar does not answer the next one the sooner."""
    monkeypatch.setattr(module, "SECONDS", 0.05)

    async def never(request):
        await asyncio.Event().wait()

    sidecar = httpx.AsyncClient(transport=httpx.MockTransport(never), base_url="http://sidecar/v1.0")
    with pytest.raises(ScreenUnavailable, match="takes more than"):
        await found_in(ConversationScreen("scrubber", Nothing(), sidecar), TEXT)


async def test_of_many_strings_each_is_asked_about_once():
    """And of more than that about none."""
    asked = []

    def answer(text):
        asked.append(text)
        return text

    await found_in(answering(answer), *(f"{n % 7}" for n in range(5_000)))
    assert sorted(asked) == [f"{n}" for n in range(7)]
    with pytest.raises(ScreeningFailed, match="send less"):
        await found_in(answering(answer), *map(str, range(module.MOST_TEXTS + 1)))
    assert len(asked) == 7
