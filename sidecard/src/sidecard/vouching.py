"""What travels between a person and the agent that asks, signed: what is asked, and what somebody said to it.

Agents between pass both on and can make up neither. Who asks for a right, for another person's word or for an authority
signs the question; the agent at whose door a person answers, under a verified identity of their own, signs that, for
that one question of that one agent. Both are JWTs (RFC 7519) by the key that signs the agent's card, and are believed
by the keys that are pinned for its publisher.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from a2a.types import Message
from jwcrypto.common import JWException, base64url_decode
from jwcrypto.jwk import JWK
from jwcrypto.jwt import JWT
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sidecard.errors import CardRejected, SidecardError
from sidecard.extension import Asked, Granted
from sidecard.trust import TrustStore

QUESTION, ANSWER = "sidecard-question+jwt", "sidecard-answer+jwt"
"""Media types (`typ`, RFC 8725 §3.11): neither a card's signature nor the other kind is taken for one."""
ANSWER_SECONDS = 3_600
"""How long a signed answer may be on its way, over agents that are down for a while."""
MAX_TOKEN = 65_536
_MALFORMED = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


class NotBelieved(SidecardError):
    """What was said to be signed is not, or not by whom, to whom or about what it should be."""


class Origin(NamedTuple):
    """The agent that asks, however many stand between, and its question's id there."""

    agent: str
    question: str


class Question(BaseModel):
    """What an agent asks a person for, as it signed it. Whoever is asked is shown this and nothing else."""

    model_config = ConfigDict(extra="ignore")

    iss: str = Field(max_length=64)
    question: str = Field(max_length=256)
    tenant: str
    subject: str
    prompt: str
    asked: dict[str, Any]

    @property
    def origin(self) -> Origin:
        """Where an answer is to arrive."""
        return Origin(self.iss, self.question)

    def as_asked(self, token: str) -> Asked:
        """The question to be asked on."""
        return Asked.model_validate(self.asked | {"question": self.question, "signed": token})


def needs_proof(asked: Asked) -> bool:
    """Whether it matters who answers: then both the question and the answer are signed."""
    return bool(asked.scope or asked.by_other or asked.authority)


def said_by(message: Message, grant: Granted | None) -> str:
    """What an answer says, as a digest: its parts, and what is granted or refused."""
    parts = Message(parts=message.parts).SerializeToString(deterministic=True)
    decision = grant.model_dump_json() if grant else ""
    return hashlib.sha256(len(parts).to_bytes(8, "big") + parts + decision.encode()).hexdigest()


def origin_of(token: str) -> Origin:
    """Where a question comes from that was believed before, and is now in our own log."""
    return Question.model_validate(_content(token)).origin


@dataclass(frozen=True)
class Vouching:
    """Signs and believes in one agent's name.

    `key` gives the present signing key. `enters` tells whether a person may answer at an agent's own door a question
    that demands a scope ("" for any).
    """

    agent: str
    publisher: str
    key: Callable[[], JWK]
    trust: TrustStore
    enters: Callable[[str, str, str], bool]

    def sign_question(self, asked: Asked, prompt: str, *, tenant: str, subject: str) -> str:
        """A question of this agent's own."""
        content = Question(
            iss=self.agent,
            question=asked.question,
            tenant=tenant,
            subject=subject,
            prompt=prompt,
            asked=asked.model_dump(exclude_defaults=True, exclude={"question", "signed"}),
        )
        return self._sign(QUESTION, content.model_dump())

    def believe_question(self, token: str, *, tenant: str) -> Question:
        """What another agent asks. Raises NotBelieved."""
        claims = self._believe(token, QUESTION)
        try:
            question = Question.model_validate(claims)
            question.as_asked(token)
        except ValidationError:
            raise NotBelieved("what is asked is signed, and is no question of ours") from None
        if question.tenant != tenant:
            raise NotBelieved("what is asked belongs to another tenant")
        return question

    def sign_answer(self, token: str, *, by: str, tenant: str, said: str) -> str:
        """That somebody has said so at this agent's own door, to the question that `token` is."""
        origin, now = origin_of(token), int(time.time())
        claims = {"iss": self.agent, "aud": origin.agent, "sub": by, "question": origin.question}
        return self._sign(ANSWER, claims | {"tenant": tenant, "said": said, "iat": now, "exp": now + ANSWER_SECONDS})

    def believe_answer(self, proof: str, origin: Origin, *, by: str, tenant: str, said: str, scope: str) -> str:
        """The agent at whose door that person has said just this to that question. Raises NotBelieved."""
        claims = self._believe(proof, ANSWER, check={"aud": origin.agent, "sub": by, "exp": None, "iat": None})
        expected = {"question": origin.question, "tenant": tenant, "said": said}
        if any(claims.get(name) != value for name, value in expected.items()):
            raise NotBelieved("the signed answer is to another question, or says something else")
        if not self.enters(by, str(claims["iss"]), scope):
            raise NotBelieved(f"{by} does not come in at {claims['iss']}, so its word on what they said is not taken")
        return str(claims["iss"])

    def _sign(self, kind: str, claims: Mapping[str, Any]) -> str:
        return sign_token(kind, claims, self.key(), self.publisher)

    def _believe(self, token: str, kind: str, *, check: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return believe_token(token, kind, self.trust, self.publisher, check=check)


def sign_token(kind: str, claims: Mapping[str, Any], key: JWK, publisher: str) -> str:
    """A statement of this kind, which names its issuer (`iss`), signed in a publisher's name."""
    token = JWT(header={"alg": key["alg"], "kid": key["kid"], "typ": kind}, claims={**claims, "publisher": publisher})
    token.make_signed_token(key)
    return str(token.serialize())


def believe_token(
    token: str, kind: str, trust: TrustStore, publisher: str, *, check: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The claims of a statement of this kind in this publisher's name, whose issuer's key is pinned.

    `check` holds what further claims must be. Raises NotBelieved.
    """
    header, claims = _header(token), _content(token)
    if claims.get("publisher") != publisher:  # agents are named by app-ids, which are ours alone to give
        raise NotBelieved("it is signed in another publisher's name, who has no say in what is decided here")
    try:
        pinned = trust.keys_of(publisher).get(str(header.get("kid")))
    except CardRejected as unknown:
        raise NotBelieved(str(unknown)) from None
    issuer = str(claims.get("iss"))
    if pinned is None or (pinned.agents is not None and issuer not in pinned.agents):
        raise NotBelieved(f"no key is pinned by which {issuer[:64]!r} could have signed this")
    if header.get("typ") != kind or header.get("alg") != pinned.algorithm:
        raise NotBelieved("what is signed is something else, or in another way than its key is for")
    try:
        believed = JWT(jwt=token, key=pinned.jwk, algs=[pinned.algorithm], expected_type="JWS", check_claims=check)
    except (JWException, *_MALFORMED) as error:
        raise NotBelieved(f"its signature, time or purpose is wrong ({type(error).__name__})") from None
    content: dict[str, Any] = json.loads(believed.claims)
    return content


def _header(token: str) -> dict[str, Any]:
    return _part(token, 0)


def _content(token: str) -> dict[str, Any]:
    return _part(token, 1)


def _part(token: str, number: int) -> dict[str, Any]:
    """The header or the claims of a token that nobody has verified. Raises NotBelieved."""
    pieces = token.split(".") if len(token) <= MAX_TOKEN else []
    try:
        part = json.loads(base64url_decode(pieces[number])) if len(pieces) == 3 else None  # noqa: PLR2004 -- a JWS
    except _MALFORMED:
        part = None
    if not isinstance(part, dict):
        raise NotBelieved("what is said to be signed is no signed statement")
    return part
