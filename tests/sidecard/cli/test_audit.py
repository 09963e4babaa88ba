"""What `sidecard audit` shows, and what it says of an audit that is not whole."""

import asyncio
import json

import pytest
from a2a.types import GetTaskRequest
from a2a.utils.errors import TaskNotFoundError
from typer.testing import CliRunner

from sidecard.cli import app, stores
from sidecard.cli.audit import AuditBroken
from sidecard.errors import ConfigurationError
from sidecard.tasks.trail import audit_key
from sidecard.testing import MemoryStore, Publisher, served
from tests.sidecard.tasks.shop import Shop
from tests.sidecard.test_audit import CALLERS


@pytest.fixture
def publisher(project):
    """Its keys are pinned in the project."""
    publisher = Publisher("shop", name=project.run_file.name)
    pinned = [{**publisher.keys["shop"].export_public(as_dict=True), "agents": ["shop"]}]
    project.local.mkdir(exist_ok=True)
    trust = {"publishers": {publisher.name: {"keys": pinned}}}
    (project.local / "trust.json").write_text(json.dumps(trust))
    return publisher


@pytest.fixture
async def store(publisher):
    """Ada has had something chosen, bob has looked for it, in vain."""
    shop, store = Shop(), MemoryStore()
    async with served(shop.agent, store, CALLERS, publisher=publisher) as agent:
        store.task = (await agent.send("ada", skill="choose", data={"what": "hat"})).id
        bob = agent.client("JSONRPC", "bob")
        for _ in range(2):
            with pytest.raises(TaskNotFoundError):
                await bob.get_task(GetTaskRequest(id=store.task))
        await agent.send("bob", skill="look", data={"what": "hat"})
    return store


@pytest.fixture
def command(project, monkeypatch, store):
    """Runs `sidecard audit shop` in a project whose agents all have this store."""
    monkeypatch.chdir(project.root)
    monkeypatch.setattr(stores.Stores, "writable", lambda *_: store)

    async def run(*words):
        return await asyncio.to_thread(CliRunner().invoke, app, ["audit", "shop", *words])

    return run


async def test_people_see_a_line_for_each(command, store):
    """Who, how that was proven, what, to which task, by which right, and what came of it."""
    first, *others = (await command()).stdout.splitlines()
    assert f"0.1  ada (key:ada)  SendMessage choose  task {store.task}  by scope choose  ok" in first
    refused = f"GetTask  task {store.task}  by none: it is not theirs  refused: task_not_found 2 times"
    assert [line.endswith(f"bob (key:bob)  {refused}") for line in others] == [True, False]


async def test_programs_get_all_of_it(command, store):
    """One object, each record with its place."""
    told = json.loads((await command("--json")).stdout)
    assert [record["operation"] for record in told["records"]] == ["SendMessage", "GetTask", "SendMessage"]
    assert told["records"][0] == {
        "slot": 0,
        "number": 1,
        "replica": "0.1",
        "operation": "SendMessage",
        "at": told["records"][0]["at"],
        "caller": "ada",
        "identity": "key:ada",
        "subject": "ada",
        "tenant": "",
        "task": store.task,
        "skill": "choose",
        "right": "scope choose",
        "outcome": "ok",
        "trace": "",
        "count": 1,
    }


async def test_what_is_asked_for_is_shown(command, store):
    """A task's, a caller's, what was refused, what is new."""

    async def shown(*words):
        return [(r["caller"], r["operation"]) for r in json.loads((await command(*words, "--json")).stdout)["records"]]

    assert await shown("--task", store.task) == [("ada", "SendMessage"), ("bob", "GetTask")]
    assert await shown("--caller", "ada") == [("ada", "SendMessage")]
    assert await shown("--refused") == [("bob", "GetTask")]
    assert len(await shown("--since", "1h")) == 3
    assert "nothing is recorded" in (await command("--since", "0s")).stdout
    assert isinstance((await command("--since", "yesterday")).exception, ConfigurationError)


async def test_a_whole_audit_is_said_to_be_whole(command):
    """And signed, with its end, by which it can be asked for again."""
    *_, last = (await command("--verify")).stdout.splitlines()
    said, _, end = last.rpartition(": ")
    assert said == "whole  slot 0, 3 records, all signed"
    told = json.loads((await command("--verify", "--end", end, "--json")).stdout)
    [known] = told["ends"]
    assert end == f"{known['slot']}:{known['records']}:{known['digest']}"
    assert known["signed"] == known["records"] == 3


async def test_an_end_that_is_gone_is_said_to_be(command):
    """Whatever else is whole; what is no end is refused."""
    digest = "0" * 64
    outcome = await command("--verify", "--end", f"0:9:{digest}")
    assert "records 4 to 9, which there were, are gone" in str(outcome.exception)
    assert "it is not what it was" in str((await command("--verify", "--end", f"0:2:{digest}")).exception)
    assert "slot 3 is gone" in str((await command("--verify", "--end", f"3:1:{digest}")).exception)
    for words in (["--end", f"0:9:{digest}"], ["--verify", "--end", "last"]):
        assert isinstance((await command(*words)).exception, ConfigurationError)


async def test_an_audit_that_was_changed_is_said_to_be(command, store):
    """It fails, so that a script notices."""
    key = audit_key(0, 1)
    store.data[key] = store.data[key].replace(b"bob", b"eve")
    outcome = await command("--verify")
    assert isinstance(outcome.exception, AuditBroken)
    assert "the audit of shop is not whole: slot 0" in str(outcome.exception)
    assert "eve" in (await command()).stdout, "only --verify looks"


async def test_an_audit_that_the_agent_has_not_signed_is_said_to_be(command, publisher, project):
    """As when its key is pinned no longer."""
    other = Publisher("shop", name=publisher.name).keys["shop"].export_public(as_dict=True)
    trust = {"publishers": {publisher.name: {"keys": [other | {"kid": "other"}]}}}
    (project.local / "trust.json").write_text(json.dumps(trust))
    outcome = await command("--verify")
    assert "up to record 3 it is not signed by shop" in str(outcome.exception)
