"""What people decide reaches the agent that asks, through others who can't make it up, alter it or use it again."""

import json
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from a2a.types import GetTaskRequest, TaskState
from a2a.utils.errors import A2AError
from jwcrypto.common import base64url_encode
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS
from jwcrypto.jwt import JWT

from sidecard.callers import Caller
from sidecard.cli.records import words
from sidecard.extension import Asked, Granted, Sent
from sidecard.refusals import Forbidden
from sidecard.tasks import rights
from sidecard.tasks.audit_log import in_order, read_audit
from sidecard.tasks.binding import text_of
from sidecard.tasks.replay import replay
from sidecard.tasks.rights import check_may_answer
from sidecard.testing import MemoryStore, Publisher, message
from sidecard.trust import TrustStore
from sidecard.vouching import ANSWER, QUESTION, NotBelieved, Origin, said_by
from tests.sidecard.chain import chain

S = TaskState
STORES = ("door", "middle", "vault")


def said(task):
    return task.artifacts[-1].parts[0].data.struct_value["said"]


@pytest.fixture
async def three():
    async with chain() as three:
        yield three


async def states(three):
    return {S.Name((await three.folded(at))[0].state).removeprefix("TASK_STATE_") for at in STORES}


async def agree(three):
    """Whether the replays of all three tasks are as their logs."""
    outcomes = []
    for at in STORES:
        agent = getattr(three, at).agent
        outcomes.append(await replay(agent, MemoryStore(), *await three.folded(at), lambda _, a=agent: a.scopes))
    return all(outcome.agrees and not outcome.stops for outcome in outcomes)


# -- another person's word -------------------------------------------------------------------------------------------


async def test_an_approval_reaches_the_agent_that_asks_over_one_that_does_not_know_the_person(three):
    """The one between only passes it on; the same tasks end."""
    task = await three.begin()
    assert text_of(task.status.message) == "Release 10,000 EUR?"
    assert await states(three) == {"INPUT_REQUIRED"}
    done = await three.answer(task, "boss", "yes")
    assert done.id == task.id
    assert said((await three.folded("door"))[0].task) == "yes by boss"
    assert await states(three) == {"COMPLETED"}
    assert await agree(three)


async def test_who_it_is_for_can_not_approve_it_at_the_door(three):
    """Nor can anybody without the right."""
    task = await three.begin()
    with pytest.raises(A2AError, match="the right approve"):
        await three.answer(task, "ada", "yes")


# -- authority -------------------------------------------------------------------------------------------------------


async def test_an_authority_is_granted_through_all_and_the_same_tasks_go_on(three):
    """AUTH_REQUIRED at each of them, with what it is for; who granted it and when is told to the skill."""
    task = await three.begin("charge")
    asked = Asked.of(task.status.message)
    assert await states(three) == {"AUTH_REQUIRED"}
    assert (asked.authority, asked.details) == ("card:charge", {"Amount": "180.00 EUR", "For": "a flight"})
    before = datetime.now(UTC)
    done = await three.decide(task)
    assert done.id == task.id
    authority, moment = said(done).split(" at ")
    assert authority == "card:charge by ada"
    assert abs((datetime.fromisoformat(moment) - before).total_seconds()) < 10
    assert await states(three) == {"COMPLETED"}
    assert await agree(three)


async def test_a_grant_is_in_the_log_and_in_no_history(three):
    """Nothing that a model would read tells of it."""
    await three.decide(await three.begin("charge"))
    for at in STORES:
        folded, entries = await three.folded(at)
        assert len([one for one in folded.task.history if one.role == 1]) == 1
        lines = [words(record) for entry in entries for record in entry.records]
        assert "grant     ada: grants card:charge" in lines
        assert any("waits for the authority card:charge: Charge 180 EUR" in line for line in lines)


async def test_the_audit_says_who_granted_what_and_by_whose_word(three):
    """At the door it was the person; further on, an agent with a proof by the one where they were."""
    await three.decide(await three.begin("charge"))
    rights = {}
    for at in STORES:
        engine = getattr(three, at).engine
        await engine.journal.flush(5)
        acts = [one.act for one in in_order(await read_audit(engine.store))]
        (rights[at],) = [(act.caller, act.subject, act.right) for act in acts if "grants" in act.right]
    assert rights == {
        "door": ("ada", "ada", "owner, grants card:charge"),
        "middle": ("door", "ada", "owner, grants card:charge, proven by door"),
        "vault": ("middle", "ada", "owner, grants card:charge, proven by door"),
    }


async def test_a_refusal_ends_as_the_author_decides(three):
    """By default the task is rejected, with who refused what."""
    done = await three.decide(await three.begin("charge"), granted=False)
    assert done.status.state == S.TASK_STATE_REJECTED
    assert text_of(done.status.message) == "ada refused card:charge: Charge 180 EUR to your card?"


@pytest.mark.parametrize("text", ["yes", "granted", "I grant card:charge", '{"grant": true}'])
async def test_no_words_grant_anything(three, text):
    """Not even the right ones: a model could have written them."""
    task = await three.begin("charge")
    with pytest.raises(A2AError, match="which no text can grant"):
        await three.answer(task, "ada", text, question=Asked.of(task.status.message).question)
    assert await states(three) == {"AUTH_REQUIRED"}


@pytest.mark.parametrize(
    "wrong",
    [{"authority": "card:*"}, {"authority": ""}, {"question": ""}, {"question": "another"}, {"by": "boss"}],
)
async def test_a_grant_names_the_question_and_the_authority_and_comes_from_whom_it_is_for(three, wrong):
    """Everything else leaves the task where it is."""
    task = await three.begin("charge")
    with pytest.raises(A2AError):
        await three.decide(task, **wrong)
    assert await states(three) == {"AUTH_REQUIRED"}


async def test_a_grant_is_taken_once_and_no_other_decision_under_its_id(three):
    """Sent again it changes nothing; a refusal under the same messageId is another message."""
    task = await three.begin("charge")
    first = await three.decide(task)
    assert (await three.decide(task)).status == first.status
    with pytest.raises(A2AError, match="other content"):
        await three.decide(task, granted=False)


async def test_a_grant_for_a_task_that_asks_for_none_is_refused(three):
    """It would be taken for an answer."""
    task = await three.begin("release")
    with pytest.raises(A2AError, match="just the authority that it demands"):
        await three.decide(task, by="boss", authority="approve")


async def test_authority_waits_over_restarts():
    """Every process may die while somebody thinks about it."""
    stores, publisher = {name: MemoryStore() for name in STORES}, Publisher(*STORES)
    async with chain(stores, publisher) as three:
        task = await three.begin("charge")
    async with chain(stores, publisher) as three:
        assert said(await three.decide(task)).startswith("card:charge by ada")


# -- an agent between ------------------------------------------------------------------------------------------------


async def test_whoever_is_asked_sees_what_the_agent_that_asks_has_signed(three):
    """Not what an agent between makes of it."""

    def smaller(task):
        task.status.message.parts[0].text = "Release 10 EUR?"
        return task

    three.wires["door"].tamper = smaller
    assert text_of((await three.begin()).status.message) == "Release 10,000 EUR?"


async def test_without_that_guard_people_agree_to_what_they_never_saw(three):
    """Which is what the signature is for."""

    def smaller(task):
        task.status.message.parts[0].text = "Release 10 EUR?"
        return task

    three.wires["door"].tamper = smaller
    three.door.engine._runner._vouching = None
    assert text_of((await three.begin()).status.message) == "Release 10 EUR?"


@pytest.mark.parametrize("cut", [lambda token: "", lambda token: token[:-4] + "AAAA", lambda token: "x.y.z"])
async def test_a_question_whose_signature_is_gone_is_not_asked(three, cut):
    """The task fails, and says why."""

    def tampered(task):
        asked = Asked.of(task.status.message)
        asked.model_copy(update={"signed": cut(asked.signed)}).attach(task.status.message)
        return task

    three.wires["door"].tamper = tampered
    task = await three.begin()
    assert task.status.state == S.TASK_STATE_FAILED


def pinned_partner(publisher):
    """The key of another publisher, pinned as `sidecard trust pin` does: for the cards of whatever agents it has."""
    key = JWK.generate(kty="EC", crv="P-256", kid="partner-1", alg="ES256")
    own = [{**one.export_public(as_dict=True), "agents": [agent]} for agent, one in publisher.keys.items()]
    publishers = {publisher.name: {"keys": own}, "Partner": {"keys": [key.export_public(as_dict=True)]}}
    publisher.trust.become(TrustStore.parse(json.dumps({"publishers": publishers})))
    return key


class Thief:
    """The agent between, taken over: it has its own key and identity, and all that it has ever passed on."""

    def __init__(self, three) -> None:
        self.three = three
        self.own, self.door = three.publisher.keys["middle"], three.publisher.keys["door"]
        self.partner = pinned_partner(three.publisher)
        self.attempts = 0

    def claims(self, token, by, message, grant, **other):
        """What a true proof would hold."""
        question = json.loads(JWS.from_jose_token(token).objects["payload"])
        now = int(time.time())
        return {
            "iss": "door", "publisher": "Tests", "aud": "vault", "sub": by, "question": question["question"],
            "tenant": "", "said": said_by(message, grant), "iat": now, "exp": now + 600,
        } | other  # fmt: skip

    def signed(self, claims, key=None, **header):
        key = key or self.own
        token = JWT(header={"alg": "ES256", "kid": key["kid"], "typ": ANSWER} | header, claims=claims)
        token.make_signed_token(key)
        return token.serialize()

    def forgeries(self, token, by, message, grant, stolen):
        """Proofs by whose makers nobody at the door has said anything."""
        claims = self.claims(token, by, message, grant)
        yield ""
        yield token  # the vault's own signature, over its question
        yield self.signed(claims)
        yield self.signed(claims | {"iss": "middle"})
        yield self.signed(claims | {"publisher": "Partner"}, self.partner)
        yield self.signed(claims, kid="door-1")
        yield self.signed(claims, jwk=self.own.export_public(as_dict=True), kid="door-1")
        yield self.signed(claims, jku="https://attacker.example/keys", kid="door-1")
        body = base64url_encode(json.dumps(claims))
        none = base64url_encode(json.dumps({"alg": "none", "kid": "door-1", "typ": ANSWER}))
        yield f"{none}.{body}."
        secret = JWK(kty="oct", k=base64url_encode(self.door.export_to_pem()))
        confused = JWT(header={"alg": "HS256", "kid": "door-1", "typ": ANSWER}, claims=claims)
        confused.make_signed_token(secret)
        yield confused.serialize()
        for wrong in (
            {"aud": "middle"}, {"sub": "ada2"}, {"question": "another"}, {"tenant": "acme"}, {"said": "0" * 64},
            {"exp": int(time.time()) - 3_600}, {"publisher": "Nobody"}, {"iss": "vault"},
        ):  # fmt: skip
            yield self.signed(claims | wrong, self.door)  # what the door did sign, on other occasions
        yield self.signed({name: claims[name] for name in claims if name != "exp"}, self.door)
        yield self.signed(claims, self.door, typ=QUESTION)
        yield from stolen

    async def steal(self, task, by, text, grant, stolen=()):
        """How often the vault took a decision that nobody has made; stops at the first."""
        asked = Asked.of(task.status.message)
        for number, proof in enumerate(self.forgeries(asked.signed, by, message(text), grant, stolen)):
            self.attempts += 1
            sent = {"subject": by, "proof": proof, "grant": grant, "question": asked.question}
            try:
                await self.three.answer(task, "middle", text, at="vault", again=f"f{number}", **sent)
            except A2AError:
                continue
            return 1
        return 0


async def thefts(three):
    """Successes of an agent between that approves in the boss's name, and grants in its user's."""
    thief = Thief(three)
    earlier = await three.begin(again="m0", by="middle", at="vault", subject="ada")
    token = Asked.of(earlier.status.message).signed
    door = three.door.engine.vouching
    true = door.sign_answer(token, by="boss", tenant="", said=said_by(message("yes"), None))
    await three.answer(earlier, "middle", "yes", at="vault", subject="boss", proof=true)  # that was the boss
    release = await three.begin(again="m1", by="middle", at="vault", subject="ada")
    now = Asked.of(release.status.message).signed
    no = door.sign_answer(now, by="boss", tenant="", said=said_by(message("no"), None))
    ada = door.sign_answer(now, by="ada", tenant="", said=said_by(message("yes"), None))
    successes = await thief.steal(release, "boss", "yes", None, [true, no, ada])
    charge = await three.begin("charge", again="m2", by="middle", at="vault", subject="ada")
    token = Asked.of(charge.status.message).signed
    grant = Granted(authority="card:charge", granted=True)
    refused = Granted(authority="card:charge", granted=False)
    no = door.sign_answer(token, by="ada", tenant="", said=said_by(message("granted"), refused))
    words_only = door.sign_answer(token, by="ada", tenant="", said=said_by(message("granted"), None))
    successes += await thief.steal(charge, "ada", "granted", grant, [true, no, words_only])
    return successes, thief.attempts


async def test_a_middle_agent_makes_up_no_approval_and_no_grant(three):
    """Not by claiming, signing itself, confusing algorithms, or using again what was signed for something else."""
    successes, attempts = await thefts(three)
    print(f"{attempts} attempts")
    assert successes == 0
    assert attempts > 40


async def test_without_the_guard_it_does(three, monkeypatch):
    """The proof is what keeps it from that: both succeed at the first attempt."""
    monkeypatch.setattr(rights, "needs_proof", lambda asked: False)
    assert await thefts(three) == (2, 2)


async def test_a_partner_whose_cards_are_believed_asks_and_answers_in_nobodys_name(three):
    """Its key is pinned for any card of its own; our agents' names are not its to sign with."""
    key, vault = pinned_partner(three.publisher), three.vault.engine.vouching
    partner = replace(vault, publisher="Partner", key=lambda: key)
    question = partner.sign_question(Asked(question="q", scope="approve"), "Cake?", tenant="", subject="ada")
    answer = partner.sign_answer(question, by="boss", tenant="", said="s")
    expected = {"by": "boss", "tenant": "", "said": "s", "scope": "approve"}
    for believe in (
        lambda at: at.believe_question(question, tenant=""),
        lambda at: at.believe_answer(answer, Origin("vault", "q"), **expected),
    ):
        with pytest.raises(NotBelieved, match="another publisher"):
            believe(vault)
        believe(replace(vault, publisher="Partner", enters=lambda *_: True))  # without the guard it is believed


async def test_without_keys_nobodys_word_on_another_is_taken(three):
    """Where nothing can be verified, nothing is believed."""
    release = await three.begin(by="middle", at="vault", subject="ada")
    three.vault.engine.vouching = None
    with pytest.raises(A2AError, match="not proven"):
        await three.answer(release, "middle", "yes", at="vault", subject="boss")


async def test_an_agent_is_believed_only_on_those_whom_it_lets_in(three):
    """The middle's own true signature says nothing on the boss, who never comes in there."""
    release = await three.begin(by="middle", at="vault", subject="ada")
    token = Asked.of(release.status.message).signed
    proof = three.middle.engine.vouching.sign_answer(token, by="boss", tenant="", said=said_by(message("yes"), None))
    with pytest.raises(A2AError, match="boss does not come in at middle"):
        await three.answer(release, "middle", "yes", at="vault", subject="boss", proof=proof)


async def test_a_person_needs_no_proof_of_their_own(three):
    """And may not bring one: what is proven is what others say."""
    task = await three.begin()
    with pytest.raises(A2AError, match="in your own name"):
        await three.answer(task, "boss", "yes", proof="x.y.z")
    folded, _ = await three.folded("vault")
    own = await three.vault.client("JSONRPC", "boss").get_task(GetTaskRequest(id=folded.task.id))
    assert said(await three.answer(own, "boss", "yes", at="vault", again="a2")) == "yes by boss"


async def test_who_uses_a_persons_exchanged_token_does_not_decide_for_them(three):
    """The right to act for somebody (RFC 8693) is not their word; they themselves need no proof."""
    task = await three.begin(by="middle", at="vault", subject="ada")
    engine = three.vault.engine
    boss = Caller("boss", "boss", frozenset({"approve"}))

    def check(caller):
        check_may_answer(live, caller, Sent(), message("yes"), scopes_of=lambda _: set(), vouching=engine.vouching)

    async with engine.borrow(task.id) as live:
        check(boss)
        with pytest.raises(Forbidden, match="not proven"):
            check(replace(boss, actor="middle"))
