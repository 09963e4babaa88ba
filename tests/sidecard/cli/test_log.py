"""What `sidecard log` shows: one tree of the logs of several agents."""

import asyncio
import json

import pytest
from a2a.types import TaskPushNotificationConfig
from rich.text import Text
from typer.testing import CliRunner

from sidecard.cli import app, records, stores
from sidecard.cli.stores import Stores
from sidecard.errors import ConfigurationError, LogBroken, StoreUnavailable
from sidecard.tasks.entry import Entry, log_key
from sidecard.tasks.loading import read_log
from sidecard.tasks.tree import read_tree
from sidecard.testing import FakeAgents, MemoryStore, ended, started
from tests.sidecard.tasks.shop import Receipt, Shop, answer, send, settled


class Estate:
    """A shop that delegates to a maker, which keeps its log in a store of its own."""

    def __init__(self) -> None:
        self.shop, self.maker = Shop(), Shop()
        self.stores = {"shop": MemoryStore(), "maker": MemoryStore()}
        self.task = self.child = ""

    async def work(self) -> "Estate":
        async with started(self.maker.agent, self.stores["maker"]) as maker:
            self.child = await send(maker, self.maker, "look")
            await settled(maker, self.child)
        agents = FakeAgents({"maker": [ended(self.child, Receipt(said="1 hat"))]})
        async with started(self.shop.agent, self.stores["shop"], agents) as shop:
            self.task = await send(shop, self.shop, "through")
            await settled(shop, self.task)
        return self

    async def read(self, agent: str, task_id: str):
        if agent not in self.stores:
            raise ConfigurationError(f"There is no agent {agent!r}")
        return await read_log(self.stores[agent], task_id)


@pytest.fixture
async def estate():
    return await Estate().work()


def printed(logged):
    return [Text.from_markup(line).plain for line in records.lines(logged)]


async def test_a_task_is_shown_with_what_it_delegated_below_it(estate):
    """Each record has its place; the other agent's log stands below the record that names its task."""
    shown = printed(await read_tree(estate.read, "shop", estate.task))
    assert shown[0].startswith(f"shop through  COMPLETED  task {estate.task}")
    assert [line.split()[0] for line in shown[1:4]] == ["1.0", "1.1", "1.2"]
    assert "ada starts through, version 1" in shown[1]
    child = next(i for i, line in enumerate(shown) if "child" in line and "maker has taken it" in line)
    assert "│ maker look  COMPLETED" in shown[child + 1]
    assert "│ " not in shown[-1]
    assert any("begun     0:0 call maker:" in line for line in shown)
    assert any('done      0:0 call maker → COMPLETED {"said": "1 hat"}' in line for line in shown)
    assert any('artifact  result: {"said": "made: 1 hat"} (output 1 of branch 0)' in line for line in shown)


async def test_the_same_for_programs(estate):
    """Every record is there, with A2A objects as JSON; so are the children."""
    values = json.loads(json.dumps(records.as_values(await read_tree(estate.read, "shop", estate.task))))
    kinds = [record["kind"] for entry in values["entries"] for record in entry["records"]]
    assert kinds[:3] == ["new", "message", "status"]
    assert {"begun", "child", "done", "artifact"} <= set(kinds)
    (child,) = values["children"]
    assert (child["agent"], child["task"], child["state"]) == ("maker", estate.child, "COMPLETED")
    place = next(r["place"] for e in values["entries"] for r in e["records"] if r["kind"] == "child")
    assert child["place"] == place


def test_what_is_yet_to_be_canceled_is_named():
    """In words; for programs as what was delegated."""
    record = ["orphan", "0:1", "maker", "t9"]
    assert records.words(record) == "orphan    0:1 maker is yet to be told that its task t9 is canceled"
    assert records._values(record) == {"kind": "orphan", "step": "0:1", "agent": "maker", "task": "t9"}


@pytest.mark.parametrize("lost", ["maker", "log"])
async def test_a_log_that_can_not_be_read_is_named_in_its_place(estate, lost):
    """The rest of the tree is shown: other agents may be elsewhere, or down."""
    if lost == "maker":
        del estate.stores["maker"]
    else:
        estate.stores["maker"].data.clear()
    logged = await read_tree(estate.read, "shop", estate.task)
    shown = printed(logged)
    at = next(i for i, line in enumerate(shown) if f"task {estate.child}" in line and "│" in line)
    assert "no log" in shown[at + 1]
    assert records.as_values(logged)["children"][0]["missing"]


async def test_a_broken_chain_is_an_error():
    """A log that lost an entry's place in the chain is not shown as if it were whole."""
    estate = await Estate().work()
    store = estate.stores["shop"]
    store.data[log_key(estate.task, 2)] = Entry(b"other", 1, 1, []).pack()
    with pytest.raises(LogBroken):
        await read_tree(estate.read, "shop", estate.task)


async def test_every_kind_of_record_has_words_and_values():
    """Questions, answers, sleeps, effects, cancels; a webhook's token and credentials are not shown."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        ids = [await send(engine, shop, skill, f"m-{skill}") for skill in ("choose", "buy", "nap", "talk", "picky")]
        for task_id in ids:
            await settled(engine, task_id)
        await answer(engine, shop, ids[0], "red")
        await settled(engine, ids[0])
    text = []
    for task_id in ids:
        _, entries = await read_log(store, task_id)
        found = [record for entry in entries for record in entry.records]
        text += [records.words(record) for record in found]
        assert all(json.dumps(records._values(record)) for record in found)
    for words in (
        "begun     0:1 ask", "question  0:1 waits for an answer: Which",
        "done      0:2 step time →",
        "begun     0:0 once pay", 'done      0:0 once pay → "paid"', "begun     0:1 sleep until 2", "(taken)",
        "artifact  he, last chunk: 0", "status    REJECTED  not today", "message   ada: red",
    ):  # fmt: skip
        assert any(words in line for line in text), words
    webhook = TaskPushNotificationConfig(id="w", url="https://x.example", token="secret").SerializeToString()
    for record in (
        ["push", "w", webhook],
        ["cancel", "ada"],
        ["unpush", "w"],
        ["dropped", "0:1", "sleep", "sleep#1", 0],
    ):
        assert "secret" not in records.words(record) + json.dumps(records._values(record))
        assert records._values(record)["kind"] == record[0]


@pytest.fixture
def command(project, monkeypatch, estate):
    """Runs the command line in a project whose stores are the estate's."""
    monkeypatch.chdir(project.root)

    async def read(_, agent, task_id):
        return await estate.read(agent, task_id)

    monkeypatch.setattr(stores.Stores, "read_log", read)
    return lambda *words: CliRunner().invoke(app, words)


async def test_the_command_prints_the_tree_or_one_object(command, estate):
    """Lines for people; with --json one object and nothing else."""
    shown = await asyncio.to_thread(command, "log", "shop", estate.task)
    assert shown.exit_code == 0
    assert "through" in shown.stdout
    values = json.loads((await asyncio.to_thread(command, "log", "shop", estate.task, "--json")).stdout)
    assert values["ok"]
    assert values["task"] == estate.task
    unknown = await asyncio.to_thread(command, "log", "shop", "nothing")
    assert isinstance(unknown.exception, ConfigurationError)
    assert "shop has no log of a task 'nothing'" in str(unknown.exception)


async def test_stores_are_read_only_and_want_the_sidecars_token(project):
    """Without a token, an agent or a sidecar the error says what to do."""
    opened = Stores(project)
    with pytest.raises(ConfigurationError, match="There is no agent 'nobody'"):
        opened.of("nobody")
    with pytest.raises(ConfigurationError, match="make up"):
        opened.of("stub-agent")
    tokens = project.local / "tokens"
    tokens.mkdir(parents=True)
    (tokens / "stub-agent.env").write_text("APP_API_TOKEN=a\nDAPR_API_TOKEN=b\n")
    with pytest.raises(StoreUnavailable, match="make up"):
        await opened.read_log("stub-agent", "t")
    await opened.close()
