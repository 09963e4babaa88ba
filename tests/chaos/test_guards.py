"""Tests of the tests: with one guard of the engine off, chaos finds what the guard is for; with it on, nothing."""

import pytest

from chaos.cluster import Setting, cluster
from chaos.outcome import MISREPORTED, UNTRUE
from chaos.scenarios import SECOND_TASKS, same_message, thaw_in_a_taken_place, write_points

SEED = 7
MESSAGES = 20
"""Tried until one shows what is wrong."""
pytestmark = pytest.mark.timeout(120)


async def test_without_create_if_absent_effects_are_had_twice():
    """Two replicas both believe that they have created the task."""
    with cluster("state.postgresql", 2, Setting(without="create")) as started:
        outcome = await same_message(started, MESSAGES, SEED, until_bad=True)
    assert outcome.double_effects or outcome.second_terminals, outcome.as_dict()


async def test_without_deduplication_a_message_is_many_tasks():
    """And its effect is had many times."""
    with cluster("state.postgresql", 2, Setting(without="deduplication")) as started:
        outcome = await same_message(started, MESSAGES, SEED, until_bad=True)
    assert outcome.others[SECOND_TASKS]
    assert outcome.double_effects


async def test_with_both_there_is_one_task_and_one_effect():
    """Whichever replica and binding the copies come by."""
    with cluster("state.postgresql", 2) as started:
        outcome = await same_message(started, 4, SEED)
    assert outcome.good, outcome.as_dict()


@pytest.mark.parametrize("without", ["fencing", ""])
async def test_without_fencing_tasks_are_forgotten(without):
    """A replica that thaws writes over the list of the one that has its place; its tasks are listed nowhere then."""
    with cluster("state.postgresql", 2, Setting(without=without)) as started:
        outcome = await thaw_in_a_taken_place(started, 5, SEED, patience=10)
    assert outcome.good == (not without), outcome.as_dict()
    assert bool(outcome.stuck) == bool(without)


async def test_without_amends_tasks_are_counted_that_never_were():
    """Where keys are written alone, a process that dies between the two leaves its announcement in the lists."""
    with cluster("state.redis", 1, Setting(without="amends")) as started:
        outcome = await write_points(started, 1, SEED, ["look"])
    assert outcome.others[MISREPORTED], outcome.as_dict()


async def test_acknowledged_before_it_is_stored_is_lost():
    """When the process dies in between."""
    with cluster("state.sqlite", 1, Setting(without="commit")) as started:
        outcome = await write_points(started, 1, SEED, ["buy"])
    assert outcome.lost, outcome.as_dict()
    assert UNTRUE in outcome.others
