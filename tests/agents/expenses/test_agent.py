"""The skill that validates claims: what policy decides, what compliance is asked, what becomes of its word."""

import pytest
import uvicorn
from a2a.types import Message, SendMessageRequest, TaskState
from pydantic import SecretStr

import agents.expenses.agent
from agents.compliance.models import Approval
from agents.expenses.agent import agent
from agents.expenses.vendor_lookup import register_client
from agents.vendors.server import create_app
from sidecard import AgentUnavailable, File
from sidecard.extension import Asked, Sent
from sidecard.tasks.binding import data_of, text_of
from sidecard.testing import FakeAgents, ended
from tests.listening import serving

S = TaskState
APPROVED = ended("c1", Approval(approved_by="boss", reason="It is fine."))


@pytest.fixture(scope="module")
async def vendors():
    """The vendor register, a real MCP server."""
    server = uvicorn.Server(uvicorn.Config(create_app(SecretStr("vendors'")), log_level="error"))
    async with serving(server) as port:
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(autouse=True)
def looked_up(vendors, monkeypatch):
    """Look-ups go to the register itself, as if the own sidecar were between; how many there were."""
    count = []

    def client(*_):
        count.append(1)
        return register_client(0, "vendors'", base_url=vendors)

    monkeypatch.setattr(agents.expenses.agent, "register_client", client)
    return count


def claim(*items, **fields):
    lines = [{"vendor": v, "amount": a, "receipt": True, **more} for v, a, more in items]
    return {"items": lines, **fields}


HOTEL = ("hotel avenida", "180", {"category": "hotel"})
CAB = ("Uber", "18,50", {"category": "taxi"})


def result(task):
    return data_of(Message(parts=task.artifacts[-1].parts))


async def test_a_small_claim_is_paid_by_policy(desk, looked_up):
    """Compliance is not asked; a vendor that comes twice is looked up once."""
    others = FakeAgents()
    items = [("Hotel Avenida", "40", {"category": "hotel"}), ("Hotel Avenida", "30.50", {"category": "meal"})]
    async with desk(agent, others) as up:
        task = await up.send("ada", data=claim(*items))
    assert task.status.state == S.TASK_STATE_COMPLETED
    assert (result(task)["approved_by"], result(task)["total_eur"]) == ("policy", "70.50")
    assert (len(looked_up), others.sent) == (1, [])


async def test_compliance_is_asked_with_what_it_needs(desk):
    """The total, what the register says of each vendor, the purpose and the policy's remarks; its word is passed on."""
    others = FakeAgents(answers={"compliance": [APPROVED]})
    items = [HOTEL, ("Shady Rentals", "10", {}), ("Nobody at all", "5", {})]
    async with desk(agent, others) as up:
        task = await up.send("ada", data=claim(*items, purpose="trip"))
    assert (result(task)["approved_by"], result(task)["reason"]) == ("boss", "It is fine.")
    ((to, sent),) = others.sent
    asked = data_of(sent)
    assert (to, asked["total_eur"], asked["purpose"]) == ("compliance", "195.00", "trip")
    assert [v["status"] for v in asked["vendors"]] == ["approved", "blocked", "unknown"]
    assert asked["vendors"][1]["risk_note"]
    assert "blocked vendor" in asked["exceptions"][0]


async def test_compliances_no_is_the_claims_no(desk):
    """REJECTED, in compliance's words."""
    no = ended("c1", state=S.TASK_STATE_REJECTED, says="Shady Rentals is a blocked vendor.")
    async with desk(agent, FakeAgents(answers={"compliance": [no]})) as up:
        task = await up.send("ada", data=claim(("Shady Rentals", "20", {})))
    assert task.status.state == S.TASK_STATE_REJECTED
    assert text_of(task.status.message) == "Shady Rentals is a blocked vendor."


@pytest.mark.parametrize(
    ("fate", "words"),
    [
        (AgentUnavailable("compliance can't be reached"), "compliance can't be reached"),
        (ended("c1", state=S.TASK_STATE_FAILED, says="a defect"), "review_spend of compliance ended FAILED: a defect"),
    ],
)
async def test_without_compliances_word_nothing_is_paid(desk, fate, words):
    """FAILED, with the reason: neither approved nor rejected."""
    async with desk(agent, FakeAgents(answers={"compliance": [fate]})) as up:
        task = await up.send("ada", data=claim(HOTEL))
    assert task.status.state == S.TASK_STATE_FAILED
    assert text_of(task.status.message) == words
    assert not task.artifacts


async def test_a_persons_decision_is_waited_for_over_a_restart(desk, looked_up):
    """Compliance's question is asked on under its right; after a restart no vendor is looked up again."""
    waits = ended("c1", state=S.TASK_STATE_INPUT_REQUIRED, says="Approve it?")
    Asked(question="q", options={"approve": "Yes", "reject": "No"}, scope="spend:approve", by_other=True).attach(
        waits.status.message
    )
    others = FakeAgents(answers={"compliance": [waits, APPROVED]})
    async with desk(agent, others) as up:
        task = await up.send("ada", data=claim(HOTEL, CAB))
        assert (text_of(task.status.message), Asked.of(task.status.message).scope) == ("Approve it?", "spend:approve")
    before = len(looked_up)
    async with desk(agent, others) as up:
        task = await up.send("boss", "approve", task=task)
    assert result(task)["approved_by"] == "boss"
    assert len(looked_up) == before == 2
    answer = others.sent[-1][1]
    assert (answer.task_id, text_of(answer)) == ("c1", "approve")
    assert Sent.of(SendMessageRequest(message=answer)).subject == "boss"


CSV = b"vendor;amount;category;receipt\nHotel Avenida;40,00;Lodging;yes\n"


async def test_a_csv_file_is_a_claim(desk):
    """As a file part, without any data."""
    async with desk(agent) as up:
        task = await up.send("ada", data=File(name="claim.csv", media_type="text/csv", content=CSV))
    assert result(task)["total_eur"] == "40.00"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"purpose": "nothing"}, "The claim is empty: send line items as data, or a CSV file"),
        ({"items": []}, "The claim is empty"),
        (File(name="claim.csv", url="https://example.org/claim.csv"), "files behind a URL are not fetched"),
        (File(name="claim.csv", content=b"vendor,amount\n,3\n"), "claim.csv can't be read. Line 2: vendor is missing."),
        (File(name="", content=b"\xff"), "The CSV file can't be read. The file is not UTF-8"),
        (claim(("Hotel Avenida", "-3", {})), "items.0.amount: "),
        (claim(("Hotel Avenida", "3", {"paid": True})), "items.0.paid: Extra inputs"),
        (claim(("Hotel Avenida", "40", {"receipt": False})), "40.00 EUR without a receipt: attach it"),
        (claim(("Hotel Avenida", "4", {"day": "2027-02-02"})), "Dated 2027-02-02, after today (2027-02-01)"),
        (claim(CAB, CAB), "The same as item 1"),
    ],
)
async def test_what_can_not_be_paid_is_rejected_with_the_reason(desk, data, words):
    """It says what to do, and compliance is not bothered."""
    async with desk(agent) as up:
        task = await up.send("ada", data=data)
    assert task.status.state == S.TASK_STATE_REJECTED
    assert words in text_of(task.status.message)


async def test_a_register_that_can_not_be_asked_fails_the_claim(desk, monkeypatch):
    """FAILED with what to check: an unknown status must not pass for an unknown vendor."""
    monkeypatch.setattr(
        agents.expenses.agent, "register_client", lambda *_: register_client(0, "", base_url="http://127.0.0.1:1/")
    )
    async with desk(agent) as up:
        task = await up.send("ada", data=claim(CAB))
    assert task.status.state == S.TASK_STATE_FAILED
    assert "own sidecar does not answer" in text_of(task.status.message)
