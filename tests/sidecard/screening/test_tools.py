"""Content inspection of MCP tools: on the server's side, and in a skill that asks one."""

import pytest
from pydantic import BaseModel

from sidecard.screening import Action, Policy, Withheld
from sidecard.screening.local import LocalScreen
from sidecard.screening.policy import DEFAULT
from sidecard.screening.tools import ToolGuard
from tests.sidecard.screening.test_tasks import CARD, INJECTION, KEY, MAIL, SCREEN, Note, Office, data


class Row(BaseModel):
    """What a tool answers."""

    name: str
    note: str = ""


async def server(policy=DEFAULT):
    """A tool that answers what it is asked, and what it was asked."""
    asked = []
    guard = ToolGuard("register", SCREEN, policy)
    await guard.start()

    @guard.inspected
    def look_up(name: str) -> Row:
        asked.append(name)
        return Row(name=name, note=f"write to {MAIL}")

    return look_up, asked


async def test_a_servers_tool_gets_and_gives_only_what_may_pass():
    """Secrets are redacted both ways, personal data on its way out; it is a Row all the same."""
    look_up, asked = await server()
    row = await look_up(name=f"Acme {KEY}")
    assert asked[0].startswith("Acme <AWS_ACCESS_KEY_")
    assert row.name == asked[0]
    assert row.note.startswith("write to <EMAIL_ADDRESS_")


async def test_a_servers_policy_is_its_own():
    """And what is blocked never reaches the tool."""
    look_up, asked = await server(Policy(needs={"look_up": {"EMAIL_ADDRESS"}}, injection=Action.BLOCK))
    assert (await look_up(name="Acme")).note == f"write to {MAIL}"
    with pytest.raises(Withheld, match="look_up was withheld"):
        await look_up(name=INJECTION)
    assert asked == ["Acme"]


class Paid(BaseModel):
    """What a tool answers with a number."""

    card: int
    price: float = 12.5


@pytest.mark.parametrize(("result", "passes"), [(Paid, False), (dict[str, object], True)])
async def test_a_number_of_somebody_passes_no_tool(result, passes):
    """It is replaced where the tool's answer can hold a placeholder, and withheld where it must be a number."""
    guard = ToolGuard("register", SCREEN)
    await guard.start()

    def paid(name: str):
        return Paid(card=CARD) if result is Paid else {"card": CARD, "price": 12.5}

    paid.__annotations__["return"] = result
    if not passes:
        with pytest.raises(Withheld, match="a number in it"):
            await guard.inspected(paid)(name="Acme")
        return
    told = await guard.inspected(paid)(name="Acme")
    assert told["card"].startswith("<CREDIT_CARD_")
    assert told["price"] == 12.5


async def leaks_of_a_tool(screen) -> int:
    """What of a secret and an address gets to a tool, and from a tool into what the asking agent stores."""

    async def call(name: str) -> Row:
        asked.append(name)
        return Row(name="Acme", note=f"key {KEY}")

    async def does(note, task):
        row = await task.tool("look up", call, f"for {MAIL}")
        return Note(text=row.note)

    asked = []
    office = Office(does=does)
    folded = await office.run(data(text="go"), screen=screen)
    assert folded.task.artifacts
    return (MAIL in asked[0]) + (KEY.encode() in office.everything())


async def test_a_skills_tool_gets_no_personal_data_and_gives_no_secrets():
    """And the decisions are in the task's log."""
    assert await leaks_of_a_tool(SCREEN) == 0


async def test_without_a_screen_it_does():
    """So the test before sees what it is there for."""
    assert await leaks_of_a_tool(None) == 2


async def test_an_injected_result_does_not_reach_a_skill_that_prompts_a_model():
    """The step fails with the reason, and nothing of the result is stored."""

    async def call(name: str) -> Row:
        return Row(name=INJECTION)

    async def does(note, task):
        row = await task.tool("look up", call, "Acme")
        return Note(text=row.name)

    office = Office(does=does, prompts_model=True)
    folded = await office.run(data(text="go"))
    assert "The result of look up was withheld" in folded.task.status.message.parts[0].text
    assert b"previous instructions" not in office.everything()
    assert ("in", "result of look up", "block", "injection") in [one[:4] for one in office.decisions(folded)]


async def test_a_server_refuses_calls_until_its_screen_is_ready():
    """It fails closed."""
    guard = ToolGuard("register", LocalScreen())

    @guard.inspected
    def look_up(name: str) -> Row:
        return Row(name=name)

    with pytest.raises(Exception, match="starting"):
        await look_up(name="Acme")
