"""Agents outside the mesh: their cards, fetched where an operator enrolled them and held to what was enrolled."""

from a2a.types import AgentCard, OAuthFlows, SecurityScheme
from httpx import AsyncClient

from sidecard.card import CardCache, fetch_card
from sidecard.egress import DestinationRefused, Origin
from sidecard.errors import CardRejected
from sidecard.registry import Demand, Enrolment
from sidecard.trust import Pinned, TrustStore, VerifiedCard, Verifier

MOST_DEMANDS = 16
"""Schemes of a card that are listed."""


async def fetch_foreign(
    client: AsyncClient,
    url: str,
    trust: TrustStore | Verifier,
    *,
    publisher: str = "",
    agent: str | None = None,
    cache: CardCache | None = None,
) -> VerifiedCard:
    """The card of an agent outside the mesh, verified now.

    Args:
        client: an `outbound.Outbound.client`, which checks the address.
        url: the agent's base URL, or the card's own.
        trust: the pinned keys, or the `Pinned.verify` of a card that is believed as it is.
        publisher: who must have signed it; "" is any publisher whose keys are pinned.
        agent: the name that the card must bear.
        cache: lets the agent answer "304 Not Modified".

    Raises:
        AgentUnavailable: it can't be reached now, or serves no card.
        CardRejected: the card is not believed, is another publisher's, or was moved: a card vouches for the origins
            that it names, and says nothing of another one that shows it.
        DestinationRefused: the operator lets nobody connect to there (SIDECARD_FOREIGN).
    """
    try:
        origin = Origin.of(url)
        verified = await fetch_card(client, url, trust, agent=agent, cache=cache)
    except DestinationRefused as error:
        raise DestinationRefused(f"{url} is not asked for a card: {error}; SIDECARD_FOREIGN says where to.") from None
    if publisher and verified.publisher != publisher:
        raise CardRejected(f"The card at {url} is by {verified.publisher!r}, not {publisher!r}: check the address.")
    named = _origins(verified.card)
    if origin not in named:
        others = ", ".join(sorted(map(str, named))) or "no address"
        raise CardRejected(
            f"The card at {url} was moved: it names {others}, not {origin}. Use the address that it names, "
            "or ask its publisher for a card that names this one."
        )
    return verified


async def fetch_enrolled(
    client: AsyncClient, enrolled: Enrolment, trust: TrustStore, *, cache: CardCache | None = None
) -> VerifiedCard:
    """The card of an enrolled foreign agent, verified now, and no older than the one that the registry has seen.

    Raises as `fetch_foreign`; CardRejected also when the registry has found something wrong with it.
    """
    if enrolled.problem:
        raise CardRejected(f"'{enrolled.app_id}' is not used: {enrolled.problem}")
    believed = Pinned(enrolled.card_digest, enrolled.publisher).verify if enrolled.pinned else trust
    verified = await fetch_foreign(
        client, enrolled.card_url, believed, publisher=enrolled.publisher, agent=enrolled.name, cache=cache
    )
    enrolled.refuse_older(verified)
    return verified


def demands_of(card: AgentCard) -> list[list[Demand]]:
    """What a card demands of its callers: any one of these, each with all that it needs. A2A 1.0 §4.5.

    A card that demands nothing as a whole may still do so for its skills (§4.4.5): then it is all of theirs.
    """
    of_skills = (requirement for skill in card.skills for requirement in skill.security_requirements)
    found = []
    for requirement in card.security_requirements or of_skills:
        if requirement not in found:
            found.append(requirement)
    return [
        [
            _demand(name, card.security_schemes[name], list(scopes.list))
            for name, scopes in sorted(requirement.schemes.items())
            if name in card.security_schemes
        ]
        for requirement in found[:MOST_DEMANDS]
    ]


def _origins(card: AgentCard) -> set[Origin]:
    """Every origin at which a card says that the agent is. A gRPC target (host:port) is none."""
    found = set()
    for interface in card.supported_interfaces:
        try:
            found.add(Origin.of(interface.url))
        except DestinationRefused:
            continue
    return found


def _demand(name: str, scheme: SecurityScheme, scopes: list[str]) -> Demand:
    match scheme.WhichOneof("scheme"):
        case "open_id_connect_security_scheme":
            kind, where = "openIdConnect", scheme.open_id_connect_security_scheme.open_id_connect_url
        case "oauth2_security_scheme":
            oauth = scheme.oauth2_security_scheme
            kind, where = "oauth2", oauth.oauth2_metadata_url or _token_url(oauth.flows)
        case "http_auth_security_scheme":
            kind, where = f"http {scheme.http_auth_security_scheme.scheme.lower()}".strip(), ""
        case "api_key_security_scheme":
            kind, where = "apiKey", ""
        case "mtls_security_scheme":
            kind, where = "mutualTLS", ""
        case _:
            kind, where = "unknown", ""
    return Demand(scheme=name, kind=kind, issuer=where, scopes=scopes)


def _token_url(flows: OAuthFlows) -> str:
    flow = flows.WhichOneof("flow")
    return str(getattr(getattr(flows, flow), "token_url", "")) if flow else ""
