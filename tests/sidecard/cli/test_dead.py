"""What `sidecard undelivered` shows, and what `sidecard redeliver` asks for."""

import asyncio
import json

import pytest
from typer.testing import CliRunner

from sidecard.cli import app, stores
from sidecard.cli import dead as dead_commands
from sidecard.errors import AgentUnavailable, ConfigurationError, StoreUnavailable
from sidecard.push import Outcome
from sidecard.tasks import dead as dead_module
from sidecard.tasks.dead import request_key
from sidecard.testing import FakeWebhooks, MemoryStore, started
from tests.sidecard.tasks.shop import Shop, settled, until
from tests.sidecard.tasks.test_dead import IMPATIENT
from tests.sidecard.tasks.test_outbox import begin, delivered, told, webhook
from tests.sidecard.tasks.test_watch import Parents, makers, orphaned

URL = "https://hooks.example.org/bills"
SECRET = "?key=whatever-it-is"


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def command(project, monkeypatch, store):
    """Runs the command line in a project whose agents all have this store."""
    monkeypatch.chdir(project.root)
    monkeypatch.setattr(stores.Stores, "writable", lambda *_: store)
    monkeypatch.setattr(dead_module, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(dead_commands, "TAKEN_SECONDS", 0.3)

    async def run(*words):
        return await asyncio.to_thread(CliRunner().invoke, app, words)

    return run


async def given_up(engine, shop, webhooks, message_id):
    webhooks.answers[URL + SECRET] = [Outcome(problem="https://hooks.example.org answered [red]503[/red]")] * 1_000
    task_id = await begin(engine, shop, "buy", message_id, hook=webhook("bills", URL + SECRET))
    await settled(engine, task_id)
    await delivered(engine)
    return task_id


async def test_they_are_listed_and_delivered_after_all(command, store):
    """For people and for programs; the url without its query, which may hold a secret."""
    shop, webhooks = Shop(), FakeWebhooks()
    async with started(shop.agent, store, webhooks=webhooks, backoff=IMPATIENT) as engine:
        assert "no delivery" in (await command("undelivered", "shop")).stdout
        assert json.loads((await command("redeliver", "shop", "--json")).stdout)["redelivered"] == []
        task_id = await given_up(engine, shop, webhooks, "m1")
        shown = (await command("undelivered", "shop")).stdout
        for words in (task_id, f"webhook bills to {URL}", "4 events", "answered [red]503[/red]", "attempts since 20"):
            assert words in shown
        assert "whatever-it-is" not in shown
        (listed,) = json.loads((await command("undelivered", "shop", "--json")).stdout)["undelivered"]
        assert (listed["task"], listed["webhook"], listed["url"], listed["events"]) == (task_id, "bills", URL, 4)
        webhooks.answers.clear()
        done = json.loads((await command("redeliver", "shop", task_id, "--to", "bills", "--json")).stdout)
        assert done == {"ok": True, "taken": True, "redelivered": [listed]}
        await until(lambda: told(webhooks, URL + SECRET) == ["SUBMITTED", "WORKING", "+", "COMPLETED"])
        await delivered(engine)
        assert "no delivery" in (await command("undelivered", "shop")).stdout


async def test_cancels_are_listed_and_made_after_all(command, store):
    """By what they are of; `--to` takes the id of what was delegated."""
    shop, agents = Parents(), makers()
    async with started(shop.agent, store, agents, backoff=IMPATIENT) as engine:
        task_id = await orphaned(engine, shop)
        await delivered(engine)
        shown = (await command("undelivered", "shop")).stdout
        for words in (task_id, "cancel of maker's task t9  1 event", "maker is down"):
            assert words in shown
        (listed,) = json.loads((await command("undelivered", "shop", "--json")).stdout)["undelivered"]
        assert (listed["agent"], listed["child"], listed["webhook"], listed["url"]) == ("maker", "t9", "", "")
        agents.down.clear()
        assert isinstance((await command("redeliver", "shop", "--to", "topic")).exception, ConfigurationError)
        assert "1 event to be delivered again" in (await command("redeliver", "shop", "--to", "t9")).stdout
        await delivered(engine)
        assert agents.canceled == [("maker", "t9")]


async def test_only_what_was_given_up_can_be_asked_for(command, store):
    """Another task or webhook is an error, and nothing is asked."""
    shop, webhooks = Shop(), FakeWebhooks()
    async with started(shop.agent, store, webhooks=webhooks, backoff=IMPATIENT) as engine:
        task_id = await given_up(engine, shop, webhooks, "m1")
    for words in (["nothing"], [task_id, "--to", "other"], ["--to", "topic"]):
        refused = await command("redeliver", "shop", *words)
        assert isinstance(refused.exception, ConfigurationError)
    assert request_key(0) not in store.data


async def test_an_agent_that_does_not_run_is_asked_once(command, store):
    """It is said that it does so later; who asks again is told to wait."""
    shop, webhooks = Shop(), FakeWebhooks()
    async with started(shop.agent, store, webhooks=webhooks, backoff=IMPATIENT) as engine:
        await given_up(engine, shop, webhooks, "m1")
    assert "as soon as it runs" in (await command("redeliver", "shop")).stdout
    assert isinstance((await command("redeliver", "shop")).exception, AgentUnavailable)


async def test_a_store_that_is_not_reached_says_what_to_do(command, store):
    """Both commands."""
    store.down = True
    for name in ("undelivered", "redeliver"):
        failed = await command(name, "shop")
        assert isinstance(failed.exception, StoreUnavailable)
        assert "make up" in str(failed.exception)
