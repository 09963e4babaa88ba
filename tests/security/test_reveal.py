"""What is redacted in a task is put back for its owner alone: each attack counts how often somebody else reads it."""

import grpc.aio
import pytest
from a2a.types import GetTaskRequest, ListTasksRequest
from google.protobuf.json_format import MessageToJson

from sidecard import Agent, Task
from sidecard.extension import URI
from sidecard.screening.local import LocalScreen
from sidecard.screening.vault import Vault
from sidecard.tasks import handler
from sidecard.tasks.reveal import ASKED, put_back
from sidecard.tasks.state import FoldedTask
from sidecard.testing import ISSUER, KEY, FakeIssuer, FakeWebhooks, MemoryStore, served
from tests.security.calls import Calls
from tests.sidecard.tasks.shop import until

BINDINGS = ["JSONRPC", "HTTP+JSON", "GRPC"]
SAID, MAIL = "AKIAIOSFODNN7EXAMPLE", "ada@example.org"
"""What the owner says, and whom the agent writes to: theirs to have back."""
SLIP, THEIRS = "AKIAI44QH8DHBEXAMPLE", "AKIAJ55QH8DHBEXAMPLE"
"""A credential that the agent lets slip, and one that somebody else says: neither is the owner's."""
MISSING = "f" * 32
FIRST = {
    "messageId": "first",
    "role": "ROLE_USER",
    "parts": [{"text": f"my key is {SAID}"}],
    "metadata": {URI: {"skill": "write"}},
}
SCREEN = LocalScreen()
HOOK = {"id": "hook", "url": "https://example.org/hook"}
ISSUERS = {"company": {"url": ISSUER, "everyone": {"grants": {"office": ["look"]}}}}
ALL = ["write", "look"]
CALLERS = {
    "ada": {
        "api_key": True,
        "tenants": ["acme"],
        "token": {"issuer": "company", "subject": "7"},
        "grants": {"office": ALL},
    },
    "bob": {"api_key": True, "tenants": ["acme"], "grants": {"office": ALL}},
    "boss": {"api_key": True, "grants": {"office": ["approve", *ALL]}},
}
office = Agent(name="office", version="1", description="Writes.", publisher="Tests", asks=("approve",))


@office.skill(scope="write", idempotent=False)
async def write(text: str, task: Task) -> str:
    """Writes a letter, when somebody allows it."""
    await task.artifact("letter", f"to {MAIL}: {text}")
    await task.artifact("log", f"signed in with {SLIP}")
    answer = await task.ask(f"May I write to {MAIL}?", scope="approve", by_other=True)
    return f"sent to {MAIL}: {answer.text}"


class Office(Calls):
    """The served office, and ada's task in it, which waits for the boss."""

    def __init__(self, agent, channel, client, webhooks):
        super().__init__(channel, client)
        self.agent, self.webhooks = agent, webhooks

    async def reveal(self, binding, user, *, task="", tenant="", **headers):
        """All that comes back when somebody asks for it."""
        params = {"id": task or self.task.id, "tenant": tenant}
        return await self.call(binding, user, "GetTask", params, **ASKED, **headers)

    async def successes(self, binding, user, *, tenant="", **headers):
        """How many originals somebody reads; one more if the answer is another than for a task that is not there."""
        there = await self.reveal(binding, user, tenant=tenant, **headers)
        gone = await self.reveal(binding, user, tenant=tenant, task=MISSING, **headers)
        return originals(there) + ((there[0], there[1].replace(self.task.id, MISSING)) != gone)


def originals(*answers):
    """How many of them are in what was answered."""
    return sum(word in str(answers) for word in (SAID, MAIL, SLIP, THEIRS))


@pytest.fixture(scope="module")
def issuer():
    return FakeIssuer()


@pytest.fixture
async def desk(issuer):
    await SCREEN.start()
    webhooks, http = FakeWebhooks(), issuer.http()
    given = {"issuers": ISSUERS, "issuers_http": http, "webhooks": webhooks, "screen": SCREEN}
    async with (
        served(office, MemoryStore(), CALLERS, **given) as agent,
        grpc.aio.insecure_channel(agent.grpc_target) as channel,
        agent.http() as client,
    ):
        made = Office(agent, channel, client, webhooks)
        await made.call("JSONRPC", "ada", "SendMessage", {"message": FIRST})
        made.task = (await agent.client("JSONRPC", "ada").list_tasks(ListTasksRequest())).tasks[0]
        yield made


@pytest.mark.parametrize("binding", BINDINGS)
async def test_its_owner_has_it_put_back(desk, binding):
    """On each binding what they said, and the personal data in what the agent says and makes; only when asked for."""
    assert originals(await desk.reveal(binding, "ada")) == 2
    unasked = await desk.agent.client(binding, "ada").get_task(GetTaskRequest(id=desk.task.id))
    assert originals(MessageToJson(unasked)) == 0


async def test_what_is_put_back_is_kept_by_nobody_on_its_way(desk):
    """No cache may hold an answer of HTTP+JSON, whose address is the same as without."""
    _, told = await desk.reveal("HTTP+JSON", "ada")
    assert "'cache-control': 'no-store'" in told
    _, plain = await desk.call("HTTP+JSON", "ada", "GetTask", {"id": desk.task.id})
    assert "no-store" not in plain


# -- who is not the owner ---------------------------------------------------------------------------------------------


async def strangers(desk, binding) -> int:
    """Somebody with the same rights, the owner in another tenant, and who may answer the question."""
    return (
        await desk.successes(binding, "bob")
        + await desk.successes(binding, "bob", tenant="acme")
        + await desk.successes(binding, "ada", tenant="acme")
        + await desk.successes(binding, "boss")
    )


@pytest.mark.parametrize("binding", BINDINGS)
async def test_nobody_but_its_owner_has_it_put_back(desk, binding):
    """To all of them it is as if the task were not there, also to who sees it because of its question."""
    seen = await desk.call(binding, "boss", "GetTask", {"id": desk.task.id})
    assert "TASK_STATE_INPUT_REQUIRED" in seen[1]
    assert await strangers(desk, binding) == 0


@pytest.mark.parametrize("binding", BINDINGS)
async def test_without_owners_all_of_them_would(desk, binding, monkeypatch):
    """The twin: everybody has a right to every task."""
    monkeypatch.setattr(handler, "right_to", lambda *_, **__: "none was asked for")
    assert await strangers(desk, binding) == 4 * (2 + 1)


@pytest.mark.parametrize("binding", BINDINGS)
async def test_if_seeing_a_task_were_enough_who_may_answer_would(desk, binding, monkeypatch):
    """The twin: the right that a task's open question gives is taken for its owner's."""
    real = handler.right_to
    monkeypatch.setattr(handler, "right_to", lambda folded, caller, tenant, **_: real(folded, caller, tenant))
    assert await strangers(desk, binding) == 2 + 1


# -- who comes with less than the owner has ---------------------------------------------------------------------------


async def less(desk, binding, issuer) -> int:
    """The owner's tokens without the right that the skill takes, and one that another agent uses for them."""
    tokens = [
        issuer.token("7", "look"),
        issuer.token("7", " ".join(ALL), act={"sub": "helper"}),
    ]
    found = [await desk.successes(binding, "", authorization=f"Bearer {token}") for token in tokens]
    return sum(found)


@pytest.mark.parametrize("binding", BINDINGS)
async def test_no_narrower_token_and_nobody_who_uses_the_owners_reveals(desk, binding, issuer):
    """The owner's whole token does."""
    assert await less(desk, binding, issuer) == 0
    whole = issuer.token("7", " ".join(ALL))
    assert originals(await desk.reveal(binding, "", authorization=f"Bearer {whole}")) == 2


@pytest.mark.parametrize("binding", BINDINGS)
async def test_if_whose_task_it_is_were_all_any_token_of_theirs_would(desk, binding, issuer, monkeypatch):
    """The twin: an owner is asked for nothing else."""
    monkeypatch.setattr(handler, "right_to_reveal", lambda *_: "owner")
    assert await less(desk, binding, issuer) == 2 * (2 + 1)


# -- who is revoked ---------------------------------------------------------------------------------------------------


async def revoked(desk, binding, monkeypatch) -> int:
    """The owner, revoked while it is being recorded that they read it."""
    journal = desk.agent.engine.journal
    record = journal.record

    async def slowly(act):
        desk.agent.denied.become(["caller:ada"])
        await record(act)

    monkeypatch.setattr(journal, "record", slowly)
    return originals(await desk.reveal(binding, "ada"))


@pytest.mark.parametrize("binding", BINDINGS)
async def test_who_is_revoked_meanwhile_reads_nothing(desk, binding, monkeypatch):
    """Nor afterwards."""
    assert await revoked(desk, binding, monkeypatch) == 0
    assert originals(await desk.reveal(binding, "ada")) == 0


@pytest.mark.parametrize("binding", BINDINGS)
async def test_without_a_second_look_they_would(desk, binding, monkeypatch):
    """The twin: who was let in stays in."""
    monkeypatch.setattr(handler.DurableRequestHandler, "_still_lets_in", lambda *_: None)
    assert await revoked(desk, binding, monkeypatch) == 2


# -- ways other than GetTask ------------------------------------------------------------------------------------------


async def other_ways(desk, binding) -> set[str]:
    """The operations other than GetTask that tell an owner who asks for it there, too; and "webhook"."""
    task = desk.task.id
    answers = {}

    async def ask(name, params, **more):
        answers[name] = await desk.call(binding, "ada", name, params, **ASKED, **more)

    await ask("CreateTaskPushNotificationConfig", {"taskId": task, **HOOK})
    await ask("GetTaskPushNotificationConfig", {"taskId": task, "id": "hook"})
    await ask("ListTaskPushNotificationConfigs", {"taskId": task})
    await ask("SendMessage", {"message": FIRST})
    await ask("SendStreamingMessage", {"message": FIRST})
    await desk.agent.send("boss", f"yes, with {THEIRS}", task=desk.task)
    await ask("SubscribeToTask", {"id": task}, **{"last-event-id": "1.0"})
    await ask("ListTasks", {"includeArtifacts": True})
    await ask("CancelTask", {"id": task})
    await ask("GetExtendedAgentCard", {})
    assert task in answers["SendMessage"][1]
    assert "sent to <EMAIL_ADDRESS_" in answers["SubscribeToTask"][1]
    await until(lambda: any(b"COMPLETED" in body for _, _, body in desk.webhooks.received))
    answers["webhook"] = desk.webhooks.received
    return {name for name, told in answers.items() if originals(told)}


@pytest.mark.parametrize("binding", BINDINGS)
async def test_no_other_operation_reveals(desk, binding):
    """Nor do streams, lists and webhooks, though they are asked in the same words."""
    assert await other_ways(desk, binding) == set()


@pytest.mark.parametrize("binding", BINDINGS)
async def test_if_a_task_were_open_wherever_it_is_shown_they_would(desk, binding, monkeypatch):
    """The twin: what is put back is so for all that shows a task as a whole."""
    real = FoldedTask.public

    def public(folded):
        task = real(folded)
        put_back(task, folded.sealed, Vault("office", KEY))
        return task

    monkeypatch.setattr(FoldedTask, "public", public)
    assert await other_ways(desk, binding) >= {"SendMessage", "ListTasks"}


# -- what is not the owner's to have ----------------------------------------------------------------------------------


async def not_theirs(desk, binding) -> int:
    """Credentials that the agent lets slip, or that somebody else says, which the owner reads."""
    await desk.agent.send("boss", f"yes, with {THEIRS}", task=desk.task)
    _, told = await desk.reveal(binding, "ada")
    assert (SAID in told, f"sent to {MAIL}" in told) == (True, True)
    return (SLIP in told) + (THEIRS in told)


@pytest.mark.parametrize("binding", BINDINGS)
async def test_an_owner_reads_no_credential_of_others(desk, binding):
    """Neither the agent's own, redacted on its way out, nor what stands in another's answer."""
    assert await not_theirs(desk, binding) == 0


@pytest.mark.parametrize("binding", BINDINGS)
async def test_if_all_were_put_back_owners_would(desk, binding, monkeypatch):
    """The twin: the owner is given what the skill is."""
    monkeypatch.setattr(Vault, "open_for_owner", Vault.open)
    assert await not_theirs(desk, binding) == 2


# -- when the key is gone ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("binding", BINDINGS)
async def test_without_the_key_its_owner_learns_why_and_nobody_else_anything(desk, binding):
    """The error says what to do; strangers get what they always get."""
    desk.agent.engine.vault = Vault("office", b"another key")
    _, told = await desk.reveal(binding, "ada")
    assert "task-id-key" in told
    assert originals(told) == 0
    assert await strangers(desk, binding) == 0
