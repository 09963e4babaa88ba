"""Replays of tasks in which something was redacted or withheld agree with their logs, and tell nothing of it."""

import pytest
from a2a.types import TaskState

from sidecard.screening import Action, Policy, Withheld
from sidecard.screening.vault import Vault
from sidecard.tasks.loading import read_log
from sidecard.tasks.replay import replay
from sidecard.testing.engine import KEY as AGENTS_KEY
from tests.sidecard.screening.test_pieces import cut
from tests.sidecard.screening.test_tasks import KEY, MAIL, Note, Office, data, tells

S = TaskState


async def reveals(note, task):
    """Does what depends on the original, and gives it out in every way."""
    if note.text != f"key {KEY}" and task.reveal(note.text) == f"key {KEY}":
        await task.progress(f"it is {task.reveal(note.text)}")
    for chunk in cut(f"so {MAIL} and 4111 1111 1111 1111 it is", 5):
        await task.chunk("stream", chunk)
    return Note(text=f"for {MAIL}")


async def refused(note, task):
    """Goes on when what it gives out is withheld."""
    with pytest.raises(Withheld):
        await task.artifact("text", f"wrote to {MAIL}")
    for chunk in cut(f"wrote to {MAIL} again", 5):
        try:
            await task.chunk("stream", chunk)
        except Withheld as withheld:
            await task.progress(str(withheld))
    task.reject("no")


async def refused_late(note, task):
    """Has said much before something is withheld: what went is one record."""
    for chunk in ("one ", "two ", "three ", "four ", f"wrote to {MAIL} ", "five "):
        try:
            await task.chunk("stream", chunk)
        except Withheld:
            task.reject("no")


SKILLS = [
    (reveals, None, S.TASK_STATE_COMPLETED),
    (tells, None, S.TASK_STATE_INPUT_REQUIRED),
    (tells, Policy(personal_out=Action.BLOCK), S.TASK_STATE_FAILED),
    (refused, Policy(personal_out=Action.BLOCK), S.TASK_STATE_REJECTED),
    (refused_late, Policy(personal_out=Action.BLOCK), S.TASK_STATE_REJECTED),
]


async def replayed(does, policy, state, again=None, *, key: bytes | None = AGENTS_KEY):
    office = Office(does=does, policy=policy)
    folded = await office.run(data(text=f"key {KEY}"))
    assert folded.state == state
    office.does = again or does
    log = await read_log(office.store, folded.task.id)
    vault = None if key is None else Vault("office", key)
    return await replay(office.agent, office.store, *log, lambda _: office.agent.scopes, vault=vault, seconds=5)


@pytest.mark.parametrize(("does", "policy", "state"), SKILLS)
async def test_a_replay_agrees_with_what_was_redacted(does, policy, state):
    """Its steps, outputs and end: whatever was given out in pieces, redacted, or withheld."""
    outcome = await replayed(does, policy, state)
    assert outcome.disagreements == []


async def test_without_the_key_it_does_not():
    """So the test before sees what it is there for: who has no key of the agent has no originals."""
    assert not (await replayed(*SKILLS[0], key=None)).agrees
    assert not (await replayed(*SKILLS[0], key=b"another key of 16")).agrees


async def test_another_original_is_a_difference_and_is_not_shown():
    """What stands behind the same placeholder is compared; what is told of a difference has placeholders in it."""

    async def another(note, task):
        await task.progress(f"it is not {task.reveal(note.text)}")
        return Note(text=f"to {MAIL}")

    outcome = await replayed(*SKILLS[0], again=another)
    assert outcome.disagreements
    assert not any(MAIL in told or KEY in told for told in outcome.disagreements)
