"""Decides whether money may be spent, and asks a person above the limit."""

from agents.compliance.models import Approval, Spend
from agents.compliance.rules import review
from sidecard import Agent, Task

agent = Agent(
    name="compliance",
    version="1.0.0",
    description="Reviews spending: approves it, rejects it, or has somebody with the right to approve decide.",
    publisher="Travel Desk",
    asks=("spend:approve",),
)


@agent.skill(
    scope="spend:review",
    idempotent=False,
    tags=["compliance", "expenses"],
    examples=['{"total_eur": 180, "vendors": [{"name": "Hotel Avenida", "status": "approved"}]}'],
)
async def review_spend(spend: Spend, task: Task) -> Approval:
    """Review what is to be spent. Ends COMPLETED when it is approved and REJECTED, with the reason, when it is not.

    Above the policy's limit a person with the right spend:approve is asked, who must not be the one it is for.
    """
    outcome = review(spend)
    if outcome.verdict == "rejected":
        task.reject(outcome.reason)
    if outcome.verdict == "approved":
        return Approval(approved_by="policy", reason=outcome.reason)
    answer = await task.ask(
        f"{outcome.reason} Approve it?",
        options={"approve": "Approve", "reject": "Reject"},
        scope="spend:approve",
        by_other=True,
    )
    if answer.choice == "reject":
        task.reject(f"Rejected by {answer.by}. {outcome.reason}")
    return Approval(approved_by=answer.by, reason=outcome.reason)
