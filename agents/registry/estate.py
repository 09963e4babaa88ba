"""Who is in the inventory: what is believed of those that enrol themselves, and of those that an operator enrols."""

import asyncio
import logging
import re
from collections.abc import Iterable
from datetime import UTC, datetime

import httpx
from a2a.types import AgentCard

from agents.registry.inventory import Inventory, key_of
from sidecard.card import CardCache, fetch_card
from sidecard.egress import DestinationRefused, Destinations
from sidecard.errors import AgentUnavailable, CardRejected, SidecardError
from sidecard.foreign import demands_of, fetch_enrolled, fetch_foreign
from sidecard.outbound import Outbound
from sidecard.registry import Enrolment, EnrolmentRequest, ForeignRequest
from sidecard.settings import Settings
from sidecard.sidecar import MeshTransport, read_secret, sidecar_client
from sidecard.signature import NOT_JSON, digest
from sidecard.tasks.act import Act
from sidecard.tasks.ledger import Deed, Ledger
from sidecard.trust import Pinned, TrustStore, VerifiedCard, Verifier

log = logging.getLogger("sidecard")

VERIFY_SECONDS = 60.0
"""How often the cards of foreign agents are fetched and verified again."""
VERIFIED_AT_ONCE = 8
LONGEST_PROBLEM = 500


class NameTaken(SidecardError):
    """A foreign agent can't be listed under that name."""


class Estate:
    """Where enrolments are decided: who is believed, and what is written down of it; what changes is in the audit.

    Raises ConfigurationError and StoreUnavailable where the registry's own secrets or store are not in order.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        reserved: Iterable[str] = (),
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`reserved` names no foreign agent. `transport` reaches the own sidecar; nothing is sent before a request."""
        self._ledger = ledger
        self.sidecar = sidecar_client(settings, transport)
        self.inventory = Inventory(self.sidecar)
        self._mesh = httpx.AsyncClient(transport=MeshTransport(settings, transport))
        self._outbound = Outbound(Destinations.parse(settings.foreign, "SIDECARD_FOREIGN"))
        self._outside = self._outbound.client()
        self._reserved = frozenset({*reserved, settings.app_id})
        self._cards = CardCache()

    async def enrol(self, request: EnrolmentRequest, act: Act) -> Enrolment:
        """List an app of the mesh; an agent only if the card it serves there names it, by a key pinned for just it.

        It is in the audit when it is new, serves another card, or lets others call it: a heart beat is not.

        Raises:
            CardRejected: the card is not believed, is older than the last one, or the name is a foreign agent's.
            AgentUnavailable: the app serves no card now.
        """
        now = datetime.now(UTC)
        known = await self.inventory.get(request.app_id)
        if known and known.foreign:
            raise CardRejected(
                f"An agent outside the mesh, at {known.card_url}, is enrolled as '{known.app_id}': "
                f"`sidecard dismiss {known.app_id}`, and enrol it under another --name."
            )
        enrolment = Enrolment(
            app_id=request.app_id,
            kind=request.kind,
            name=request.app_id,
            card_url=request.url,
            enrolled_at=known.enrolled_at if known else now,
            last_seen=now,
            lets=request.lets,
        )
        if request.kind == "a2a":
            app_id = request.app_id
            trust = (await self._trust()).of_app(app_id)
            verified = await fetch_card(self._mesh, f"http://{app_id}", trust, agent=app_id, cache=self._cards)
            if known:
                known.refuse_older(verified)
            enrolment = _with_card(enrolment, verified, known)
        if known and (known.card_digest, known.card_url, known.lets) == (
            enrolment.card_digest,
            enrolment.card_url,
            enrolment.lets,
        ):
            await self.inventory.put(enrolment)
        else:
            act.right = "its own app-id"
            await self._write_down(enrolment, act)
        return enrolment

    async def look_at(self, request: ForeignRequest) -> Enrolment:
        """What would be listed of an agent outside the mesh; nothing is written down.

        Raises:
            CardRejected: its card is not believed, not the one that the operator was shown, or names another place.
            NameTaken: it can't be listed under that name.
            AgentUnavailable: it serves no card now.
            DestinationRefused: nobody may connect to there.
        """
        trust = await self._trust()
        verified = await fetch_foreign(
            self._outside, request.url, _as_shown(request, trust) if request.pin else trust, publisher=request.publisher
        )
        if request.digest and verified.digest != request.digest:
            raise CardRejected(
                f"{request.url} shows another card than you were shown: its digest is {verified.digest}, not "
                f"{request.digest}. Enrol it again, and look at what it is now."
            )
        name = request.name or _name_of(verified)
        known = await self.inventory.get(name)
        self._refuse_name(name, known)
        now = datetime.now(UTC)
        enrolment = Enrolment(
            app_id=name,
            kind="a2a",
            name=name,
            card_url=request.url,
            enrolled_at=known.enrolled_at if known else now,
            last_seen=now,
            foreign=True,
            pinned=request.pin,
        )
        return _with_card(enrolment, verified, None)

    async def enrol_foreign(self, request: ForeignRequest, act: Act) -> Enrolment:
        """List an agent outside the mesh, on the word of an operator. Raises as `look_at`."""
        enrolment = await self.look_at(request)
        await self._write_down(enrolment, act)
        return enrolment

    async def dismiss(self, app_id: str, act: Act) -> bool:
        """Take an app off the list. False when it is not on it. One that runs in the mesh comes back by itself."""
        act.skill = app_id

        async def decide() -> Deed | None:
            there = await self.inventory.get(app_id) is not None
            return Deed(act, deletes=[key_of(app_id)]) if there else None

        dismissed = await self._ledger.do(decide)
        await self.inventory.unlist(app_id)
        if dismissed:
            log.info("%s dismissed '%s'", act.caller, app_id)
        return dismissed

    async def _write_down(self, enrolment: Enrolment, act: Act) -> None:
        """Store an enrolment together with its record, then list it."""
        if enrolment.kind == "a2a":
            how = f"digest {enrolment.card_digest}" if enrolment.pinned else f"key {enrolment.kid}"
            act.right = f"{act.right}, its card by {how}"
        act.skill = f"{enrolment.app_id} {enrolment.card_url}"
        value = enrolment.model_dump_json().encode()

        async def decide() -> Deed:
            return Deed(act, upserts={key_of(enrolment.app_id): value})

        await self._ledger.do(decide)
        await self.inventory.enlist(enrolment.app_id)
        log.info("%s enrolled '%s' by %s", act.caller, act.skill, act.right)

    async def keep_verified(self) -> None:
        """Verify the foreign agents again and again. Runs until it is cancelled."""
        while True:
            await asyncio.sleep(VERIFY_SECONDS)
            try:
                await self.verify_foreign()
            except SidecardError as error:
                log.warning("The agents outside the mesh were not verified: %s", error)

    async def verify_foreign(self) -> None:
        """Fetch and verify the card of each foreign agent, and write down what came of it."""
        trust = await self._trust()
        places = asyncio.Semaphore(VERIFIED_AT_ONCE)

        async def one(enrolment: Enrolment) -> None:
            async with places:
                await self._verify(enrolment, trust)

        listed = [enrolment for enrolment in await self.inventory.all() if enrolment.foreign]
        await asyncio.gather(*(one(enrolment) for enrolment in listed))

    async def is_ready(self) -> bool:
        """Whether the own sidecar serves state and secrets."""
        try:
            return (await self.sidecar.get("/healthz/outbound")).is_success
        except httpx.HTTPError:
            return False

    async def close(self) -> None:
        """Close the connections."""
        await self._outbound.aclose()
        await self._mesh.aclose()
        await self.sidecar.aclose()

    async def _verify(self, listed: Enrolment, trust: TrustStore) -> None:
        """Verify one foreign agent. What can't be reached keeps its word of before, and is not seen."""
        cleared = listed.model_copy(update={"problem": ""})
        try:
            verified = await fetch_enrolled(self._outside, cleared, trust, cache=self._cards)
            now = datetime.now(UTC)
            found = _with_card(cleared.model_copy(update={"last_seen": now}), verified, listed)
        except AgentUnavailable as error:
            log.info("'%s' can't be verified now: %s", listed.app_id, error)
            return
        except (CardRejected, DestinationRefused) as error:
            found = listed.model_copy(update={"last_seen": datetime.now(UTC), "problem": str(error)[:LONGEST_PROBLEM]})
        if found.problem != listed.problem:
            log.warning("'%s' is %s", listed.app_id, f"not used: {found.problem}" if found.problem else "used again")
        await self.inventory.replace(listed, found)

    def _refuse_name(self, name: str, known: Enrolment | None) -> None:
        if name in self._reserved or (known and not known.foreign):
            raise NameTaken(f"'{name}' is the name of an app or a caller here: choose another one by --name.")

    async def _trust(self) -> TrustStore:
        return TrustStore.parse(await read_secret(self.sidecar, "trust", "publishers"))


def _with_card(enrolment: Enrolment, verified: VerifiedCard, known: Enrolment | None) -> Enrolment:
    """The enrolment with what is signed in the card. The newest signature ever seen is kept in mind."""
    seen = known.signed_at if known and known.publisher == verified.publisher else None
    signed = [moment for moment in (seen, verified.signed_at) if moment is not None]
    return enrolment.model_copy(
        update={
            "name": verified.card.name,
            "version": verified.card.version,
            "publisher": verified.publisher,
            "kid": verified.kid,
            "skills": [skill.id for skill in verified.card.skills],
            "demands": demands_of(verified.card),
            "card_digest": verified.digest,
            "signed_at": max(signed, default=None),
            "verified_at": enrolment.last_seen,
        }
    )


def _as_shown(request: ForeignRequest, trust: TrustStore) -> Verifier:
    """Takes a card as it is, for an operator to look at: it is pinned by the digest that the operator confirms."""

    def verify(card: AgentCard) -> VerifiedCard:
        claimed = card.provider.organization
        for publisher in {claimed, request.publisher}:
            if trust.knows(publisher):
                raise CardRejected(
                    f"Keys of {publisher!r} are pinned, so its cards must be signed with one of them: enrol it without "
                    "--pin."
                )
        try:
            shown = digest(card)
        except NOT_JSON as error:
            raise CardRejected(f"The card has no canonical JSON ({error}): ask the publisher to mend it.") from error
        return Pinned(shown, request.publisher or claimed).verify(card)

    return verify


def _name_of(verified: VerifiedCard) -> str:
    """What an agent is called here by default: its card's name as a DNS label."""
    name = re.sub(r"[^a-z0-9]+", "-", verified.card.name.lower()).strip("-")[:63].strip("-")
    if not name:
        raise NameTaken("The card's name makes no name for the list: choose one by --name.")
    return name
