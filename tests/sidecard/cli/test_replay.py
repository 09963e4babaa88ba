"""What `sidecard replay` says, and how it ends."""

import asyncio
import json
import sys

import pytest
from typer.testing import CliRunner

from sidecard.cli import app, stores
from sidecard.errors import ConfigurationError
from sidecard.tasks.entry import Entry, log_key
from sidecard.tasks.loading import read_log
from sidecard.testing import MemoryStore, started
from tests.sidecard.tasks.shop import Shop, send, settled

CODE = """
from tests.sidecard.tasks.shop import Shop
agent = Shop().agent
"""


@pytest.fixture
def command(project, monkeypatch):
    """Runs the command line in a project with a shop of that name; `stored` is where its logs are."""
    stored = MemoryStore()
    monkeypatch.chdir(project.root)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in [name for name in sys.modules if name.split(".")[0] == "agents"]:
        monkeypatch.delitem(sys.modules, name)
    folder = project.root / "agents" / "shop"
    folder.mkdir()
    (folder.parent / "__init__.py").touch()
    (folder / "agent.py").write_text(CODE)

    async def read(_, agent, task_id):
        return await read_log(stored, task_id)

    monkeypatch.setattr(stores.Stores, "read_log", read)
    monkeypatch.setattr(stores.Stores, "of", lambda _, agent: stored)

    async def run(*words):
        return await asyncio.to_thread(CliRunner().invoke, app, words)

    run.stored, run.folder = stored, folder
    yield run
    for name in [name for name in sys.modules if name.split(".")[0] == "agents"]:
        monkeypatch.delitem(sys.modules, name)


async def made(store: MemoryStore, skill: str) -> str:
    shop = Shop()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, skill)
        await settled(engine, task_id)
        return task_id


async def test_a_replay_that_agrees_ends_with_0(command):
    """It says how much was compared, and where a waiting task stops."""
    task_id = await made(command.stored, "choose")
    shown = await command("replay", "shop", task_id)
    assert shown.exit_code == 0
    assert "stops    at step 0:1, ask, begun and without an outcome yet" in shown.stdout
    assert "agrees: 1 recorded steps returned, 1 outputs as recorded" in shown.stdout
    values = json.loads((await command("replay", "shop", task_id, "--json")).stdout)
    assert (values["ok"], values["state"], values["replayed"]) == (True, "INPUT_REQUIRED", "")
    assert values["stops"] == [{"step": "0:1", "of": "ask", "name": "", "begun": True}]


async def test_a_replay_that_disagrees_ends_with_1(command):
    """Each difference is a line, or an item."""
    task_id = await made(command.stored, "buy")
    for n in (2, 3, 4):
        if data := command.stored.data.get(log_key(task_id, n)):
            entry = Entry.unpack(data)
            entry.records[:] = [record for record in entry.records if record[0] != "artifact"]
            command.stored.data[log_key(task_id, n)] = entry.pack()
    shown = await command("replay", "shop", task_id)
    assert shown.exit_code == 1
    assert "differs  output 1 of branch 0 is not in the log" in shown.stdout
    values = json.loads((await command("replay", "shop", task_id, "--json")).stdout)
    assert not values["ok"]
    assert len(values["disagreements"]) == 1


async def test_what_can_not_be_replayed_is_said(command):
    """No such task, and code that can't be imported."""
    unknown = await command("replay", "shop", "nothing")
    assert isinstance(unknown.exception, ConfigurationError)
    task_id = await made(command.stored, "look")
    (command.folder / "agent.py").write_text("raise RuntimeError('half written')")
    broken = await command("replay", "shop", task_id)
    assert isinstance(broken.exception, ConfigurationError)
    assert "agents.shop.agent can't be imported: RuntimeError: half written" in str(broken.exception)
