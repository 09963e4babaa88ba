"""The states of a task: one table, and nobody goes past it."""

import itertools

import pytest
from a2a.types import TaskState

from sidecard.tasks.entry import log_key
from sidecard.tasks.states import INTERRUPTED, MOVES, NEW, TERMINAL, IllegalMove, check_move
from sidecard.testing import MemoryStore, started
from tests.sidecard.tasks.shop import Shop, send, settled

S = TaskState
ENDS = {S.TASK_STATE_COMPLETED, S.TASK_STATE_FAILED, S.TASK_STATE_CANCELED, S.TASK_STATE_REJECTED}


def test_every_state_of_a2a_has_its_moves():
    """The table knows each state of the protocol, leads only to such, and from a new task to each of them."""
    assert set(MOVES) == set(S.values())
    reached, more = set(), {NEW}
    while more:
        reached |= more
        more = set().union(*(MOVES[state] for state in more)) - reached
    assert reached == set(S.values())


def test_the_four_ends_are_never_left_and_nothing_else_is_an_end():
    """A2A 1.0 §4.1.3; whoever waits for somebody goes on working, or ends."""
    assert set(TERMINAL) == ENDS
    assert {state for state in S.values() if not MOVES[state]} == ENDS
    for state in INTERRUPTED:
        assert MOVES[state] == ENDS | {S.TASK_STATE_WORKING}
    assert not any(NEW in moves for moves in MOVES.values())


def test_a_move_is_legal_as_the_table_says():
    """All pairs; what is refused names both states."""
    for before, after in itertools.product(S.values(), repeat=2):
        if after in MOVES[before]:
            check_move(before, after)
        else:
            with pytest.raises(IllegalMove, match=f"from {S.Name(before).removeprefix('TASK_STATE_')} to "):
                check_move(before, after)


async def test_what_does_not_follow_is_refused_and_nothing_of_it_is_stored():
    """Also when it comes second in one append, or with other records; the task then goes on as if nothing had been."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "choose")
        await settled(engine, task_id)
        async with engine.borrow(task_id) as live:
            await live.stored()
            n, question = live.folded.n, live.question
            asks = live.status(S.TASK_STATE_INPUT_REQUIRED)
            for records in (
                [asks],
                [live.status(S.TASK_STATE_SUBMITTED)],
                [["message", "m9", "", "ada", b""], asks],
                [live.status(S.TASK_STATE_COMPLETED), live.status(S.TASK_STATE_WORKING)],
            ):
                with pytest.raises(IllegalMove):
                    live.append(*records)
            assert (live.state, live.question, "m9" in live.messages) == (asks[2], question, False)
            await live.stored()
            assert log_key(task_id, n + 1) not in store.data
            live.append(live.status(S.TASK_STATE_WORKING))
            await live.stored()
            assert live.folded.n == n + 1
