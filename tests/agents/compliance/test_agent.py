"""The skill that reviews spending: what it decides, and whom it asks."""

import pytest
from a2a.types import Message, TaskState
from a2a.utils.errors import A2AError

from agents.compliance.agent import agent
from sidecard.extension import Asked
from sidecard.tasks.binding import data_of, text_of

S = TaskState


def spend(total, status="approved", **more):
    return {"total_eur": total, "vendors": [{"name": "Hotel Avenida", "status": status, **more}]}


def result(task):
    return data_of(Message(parts=task.artifacts[-1].parts))


async def test_what_is_within_the_limit_is_approved_by_policy(desk):
    """At once, without a person."""
    async with desk(agent) as up:
        task = await up.send("ada", data=spend(180))
    assert task.status.state == S.TASK_STATE_COMPLETED
    assert (result(task)["approved_by"], "within the limit" in result(task)["reason"]) == ("policy", True)


async def test_a_blocked_vendor_is_rejected_with_the_registers_note(desk):
    """Whatever the sum; nobody is asked."""
    async with desk(agent) as up:
        task = await up.send("ada", data=spend(1, "blocked", risk_note="fraud in 2025"))
    assert task.status.state == S.TASK_STATE_REJECTED
    assert text_of(task.status.message) == "Hotel Avenida is a blocked vendor (fraud in 2025)."


@pytest.mark.parametrize("requester", ["ada", "both"])
async def test_above_the_limit_somebody_else_with_the_right_decides(desk, requester):
    """The requester may not answer, with or without the right; the task still waits, and goes on after a restart."""
    async with desk(agent) as up:
        task = await up.send(requester, data=spend(1_800))
        asked = Asked.of(task.status.message)
        assert task.status.state == S.TASK_STATE_INPUT_REQUIRED
        assert text_of(task.status.message) == "1,800.00 EUR is above the limit of 1,000.00 EUR per claim. Approve it?"
        assert (asked.scope, asked.by_other, list(asked.options)) == ("spend:approve", True, ["approve", "reject"])
        with pytest.raises(A2AError):
            await up.send(requester, "approve", task=task)
    async with desk(agent) as up:
        task = await up.send("boss", "approve", task=task)
    assert task.status.state == S.TASK_STATE_COMPLETED
    assert result(task)["approved_by"] == "boss"


async def test_who_decides_may_also_say_no(desk):
    """REJECTED, with who and why; an answer that is neither is asked again."""
    async with desk(agent) as up:
        task = await up.send("ada", data=spend(300, "unknown"))
        task = await up.send("boss", "perhaps", task=task)
        assert task.status.state == S.TASK_STATE_INPUT_REQUIRED
        assert "'perhaps' is none of the choices" in text_of(task.status.message)
        task = await up.send("boss", "Reject", task=task)
    assert task.status.state == S.TASK_STATE_REJECTED
    assert text_of(task.status.message).startswith("Rejected by boss. Hotel Avenida is not in the vendor register")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (spend(-3), "total_eur"),
        (spend("many"), "total_eur"),
        ({"total_eur": 3, "vendors": []}, "vendors"),
        (spend(3, "trusted"), "vendors.0.status"),
        (spend(3) | {"approved": True}, "approved"),
    ],
)
async def test_what_is_no_spend_is_rejected_by_name(desk, data, words):
    """The field that is wrong is named."""
    async with desk(agent) as up:
        task = await up.send("ada", data=data)
    assert task.status.state == S.TASK_STATE_REJECTED
    assert f"review_spend can't take this: {words}: " in text_of(task.status.message)
