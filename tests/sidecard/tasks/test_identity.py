"""Which message is which: ids that nobody guesses, keys that can be replaced, what a message says."""

import asyncio
import itertools

import pytest
from a2a.types import Role

from sidecard.errors import ConfigurationError
from sidecard.extension import Sent
from sidecard.tasks.engine import Engine
from sidecard.tasks.identity import KEY, DifferentMessage, TaskIds, digest_of
from sidecard.tasks.retention import Keep, Retention
from sidecard.tasks.tombstone import TaskExpired
from sidecard.testing import FakeAgents, MemoryStore, message
from tests.sidecard.tasks.shop import Shop, answer, said, send, settled


def test_no_two_messages_share_an_id():
    """Agent, key, tenant, caller and messageId each count, wherever one of them ends and the next begins."""
    named = itertools.product(["a", "ab", ""], repeat=3)
    made = [TaskIds(agent, key) for agent in ("shop", "shopa") for key in (b"one", b"two")]
    ids = [one.of(*names) for names in named for one in made]
    assert len(set(ids)) == len(ids) == 27 * 4
    assert all(len(task_id) == 32 for task_id in ids)
    assert made[0].of("a", "b", "c") == TaskIds("shop", b"one").of("a", "b", "c")


def test_a_message_is_known_by_what_it_says():
    """Role, parts, the ids that it names and the skill; not by its trace, deadline, or anything else around it."""
    said = message("hat", data={"what": "hat"})
    known = digest_of(said, "look")
    around = message("hat", "m2", data={"what": "hat"})
    around.metadata.update({"traceparent": "00-1", "deadline": "soon"})
    around.extensions.append("urn:x")
    assert digest_of(Sent(skill="look").attach(around), "look") == known
    assert digest_of(said, "buy") != known
    for change in (
        lambda m: setattr(m.parts[0], "text", "coat"),
        lambda m: m.parts.reverse(),
        lambda m: m.parts.pop(),
        lambda m: setattr(m, "role", Role.ROLE_AGENT),
        lambda m: setattr(m, "task_id", "t"),
        lambda m: setattr(m, "context_id", "c"),
        lambda m: m.reference_task_ids.append("t"),
    ):
        other = message("hat", data={"what": "hat"})
        change(other)
        assert digest_of(other, "look") != known


class House:
    """Engines of one shop on one store, with keys; each stops the one before."""

    def __init__(self):
        self.shop, self.store = Shop(), MemoryStore()
        self.engine = None
        self.now = 1_000_000_000_000

    async def start(self, *keys):
        await self.stop()
        engine = Engine(
            self.shop.agent,
            self.store,
            task_id_key=keys[0],
            former_keys=keys[1:],
            delegator=FakeAgents(),
            scopes_of=lambda _: self.shop.agent.scopes,
            clock=lambda: self.now,
            keep=Keep(days=1, deduplication_hours=24),
        )
        await engine.start()
        self.engine = engine
        return engine

    async def stop(self):
        if self.engine is not None:
            await self.engine.stop()
        self.engine = None


@pytest.fixture
async def house():
    made = House()
    yield made
    await made.stop()


OLD, NEW, OTHER = b"old key", b"new key", b"other key"


async def test_a_key_is_replaced_without_forgetting_a_message(house):
    """With the old key behind the new one what came before is the same task, ended or not, and others are refused."""
    engine = await house.start(OLD)
    ended, asking = await send(engine, house.shop, "buy", "m1"), await send(engine, house.shop, "choose", "m2")
    await settled(engine, ended)
    await settled(engine, asking)
    engine = await house.start(NEW, OLD)
    assert await send(engine, house.shop, "buy", "m1") == ended
    assert await send(engine, house.shop, "choose", "m2") == asking
    assert house.shop.effects == 1
    with pytest.raises(DifferentMessage):
        await send(engine, house.shop, "buy", "m1", data={"what": "coat"})
    await answer(engine, house.shop, asking, "red")
    assert said(await settled(engine, asking)) == "r by ada"
    new = await send(engine, house.shop, "buy", "m3")
    await settled(engine, new)
    engine = await house.start(NEW)
    assert await send(engine, house.shop, "buy", "m3") == new
    assert house.shop.effects == 2


async def test_what_has_expired_under_the_former_key_stays_refused(house):
    """For the deduplication window, as without a new key."""
    engine = await house.start(OLD)
    await settled(engine, await send(engine, house.shop, "buy", "m1"))
    house.now += 2 * 86_400_000
    retention = Retention(engine.journal, engine.slots, engine.keep, lambda: house.now)
    while await retention.step():
        pass
    engine = await house.start(NEW, OLD)
    with pytest.raises(TaskExpired):
        await send(engine, house.shop, "buy", "m1")
    assert house.shop.effects == 1


async def test_a_store_of_another_key_is_refused(house):
    """A new key without the old one, and the old one when the new one alone is known; the message says what to do."""
    for keys, fit in (((OLD,), True), ((NEW,), False), ((NEW, OLD), True), ((NEW,), True), ((OLD,), False)):
        if fit:
            await house.start(*keys)
        else:
            with pytest.raises(ConfigurationError, match="Put the old key behind the new one"):
                await house.start(*keys)
    with pytest.raises(ConfigurationError):
        await house.start(OTHER, OLD)


async def test_of_two_processes_with_different_keys_one_starts():
    """Whichever is first at an empty store, however they race."""
    store = MemoryStore(shared=True)
    checks = (TaskIds("shop", key).check(store) for key in (OLD, NEW, OTHER))
    outcomes = await asyncio.gather(*checks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes].count(ConfigurationError) == 2
    assert KEY in store.data
