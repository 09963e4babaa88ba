"""`sidecard reveal`: a task of one's own with what its agent redacted in it put back."""

from typing import Annotated

import typer

from sidecard.cli.talk import PANEL, Agent, As, Json, Tenant

MOST_NAMED = 5


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command("reveal", rich_help_panel=PANEL)(reveal)


def reveal(
    agent: Agent,
    *,
    task: Annotated[str, typer.Option("--task", help="The task.")],
    tenant: Tenant = "",
    caller: As = "",
    as_json: Json = False,
) -> None:
    """Show a task of yours, with its messages, as it was before its agent redacted it; that you did is in its audit.

    Only who started a task can, with the right that it takes. What comes back is what you said yourself, and the
    personal data in what the agent said and made. What another agent redacted before it answered, what somebody else
    answered, and credentials that were not yours stay as they are, and are named. Exit code 2 when it is refused.
    """
    from a2a.utils.errors import TaskNotFoundError

    from sidecard.cli import conversation, show
    from sidecard.errors import ConfigurationError
    from sidecard.tasks.reveal import placeholders

    talk = conversation.Conversation(agent, caller=caller, tenant=tenant, as_json=as_json)

    async def work() -> int:
        async with talk.client() as client:
            try:
                found = await client.reveal(task)
            except TaskNotFoundError:
                raise ConfigurationError(
                    "There is no such task that you may have revealed: only who started it may, with the right that it "
                    f"takes. `sidecard task {agent}` lists the tasks of the same caller (--as, --tenant)."
                ) from None
        for line in show.history(found.history):
            talk.console.line(line)
        talk.outcome(found)
        if left := placeholders(found):
            more = f" and {len(left) - MOST_NAMED} more" if len(left) > MOST_NAMED else ""
            named = show.plain(" ".join(left[:MOST_NAMED]))
            talk.console.line(f"[dim]not yours to have put back, or another agent's: {named}{more}[/dim]")
        return 0

    talk.run("reveal at", work)
