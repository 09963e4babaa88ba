"""The Agent Card that describes an agent (A2A 1.0 §4.4.1), from the agent's own code."""

from collections.abc import Iterable, Sequence
from typing import Any

from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentExtension,
    AgentInterface,
    AgentProvider,
    AgentSkill,
    SecurityRequirement,
    StringList,
)
from google.protobuf.json_format import MessageToDict

from sidecard import extension
from sidecard.agent import Agent, Skill
from sidecard.callers import Caller
from sidecard.contract import contract_of
from sidecard.egress import Destinations
from sidecard.schemas import wordless
from sidecard.security_schemes import Way
from sidecard.settings import Settings

JSONRPC_PATH = "/a2a"
REST_PATH = "/rest"
REST_03_PATH = "/v03"
PROTOCOL_VERSION = "1.0"
LEGACY_VERSION = "0.3"
MODES = ("application/json", "text/plain")


def describe(agent: Agent, settings: Settings, ways: Sequence[Way] = ()) -> AgentCard:
    """The public card, unsigned: where the agent is served, who may call it how, and what it can do.

    `ways` are those to be known as a caller: of the agent, and of each skill those by which its scope can be held.

    What is to be known of a skill before it is called is a parameter of our extension; what it takes and gives, only in
    the card `for_caller`.
    """
    card = AgentCard(
        name=agent.name,
        version=agent.version,
        description=agent.description,
        provider=AgentProvider(organization=agent.publisher, url=agent.publisher_url or settings.card_url),
        supported_interfaces=_interfaces(settings),
        capabilities=AgentCapabilities(
            streaming=True,
            push_notifications=bool(Destinations.parse(settings.webhooks)),
            extended_agent_card=True,
            extensions=[AgentExtension(uri=extension.URI, description=extension.DESCRIPTION, required=False)],
        ),
        security_schemes={way.name: way.scheme for way in ways},
        default_input_modes=MODES,
        default_output_modes=MODES,
        skills=[_skill(skill, ways) for skill in agent.skills.values()],
        security_requirements=[_requirement(way) for way in ways],
    )
    card.capabilities.extensions[0].params.update({"skills": {s.id: _outline(s) for s in agent.skills.values()}})
    return card


def for_caller(card: AgentCard, agent: Agent, caller: Caller) -> AgentCard:
    """The card with only those skills that this caller may invoke, with their contracts, and what it is taken for."""
    own = AgentCard()
    own.CopyFrom(card)
    del own.skills[:]
    del own.signatures[:]
    own.skills.extend(skill for skill in card.skills if agent.skills[skill.id].scope in caller.scopes)
    params: dict[str, Any] = {
        "skills": {s.id: contract_of(agent.skills[s.id]) for s in own.skills},
        "caller": {"name": caller.name, "tenants": sorted(caller.tenants), "scopes": sorted(caller.scopes)},
    }
    own.capabilities.extensions[0].params.update(params)
    return own


def caller_in(card: AgentCard) -> dict[str, Any] | None:
    """What a card `for_caller` takes its caller for: name, scopes, tenants; None in any other card."""
    for declared in card.capabilities.extensions:
        if declared.uri == extension.URI and "caller" in declared.params.fields:
            known: dict[str, Any] = MessageToDict(declared.params)["caller"]
            return {"name": known.get("name", ""), **{each: known.get(each, []) for each in ("scopes", "tenants")}}
    return None


def same_contract(one: AgentCard, other: AgentCard, skill: str) -> bool:
    """Whether both agents take and give the same with this skill, as far as their cards say; words aside."""
    mine, theirs = _shape(one, skill), _shape(other, skill)
    return mine is not None and mine == theirs


def _shape(card: AgentCard, skill: str) -> list[Any] | None:
    """Input, output and repeatability of a skill that the card lists; None where it does not say."""
    if all(listed.id != skill for listed in card.skills):
        return None
    for declared in card.capabilities.extensions:
        if declared.uri == extension.URI:
            contract = MessageToDict(declared.params).get("skills", {}).get(skill, {})
            if "input" in contract and "output" in contract:
                return [wordless(contract["input"]), wordless(contract["output"]), contract.get("idempotent")]
    return None


def _interfaces(settings: Settings) -> list[AgentInterface]:
    base = settings.card_url
    interfaces = [
        AgentInterface(url=base + JSONRPC_PATH, protocol_binding="JSONRPC", protocol_version=PROTOCOL_VERSION)
    ]
    if settings.grpc_target:
        interfaces.append(
            AgentInterface(url=settings.grpc_target, protocol_binding="GRPC", protocol_version=PROTOCOL_VERSION)
        )
    interfaces.append(
        AgentInterface(url=base + REST_PATH, protocol_binding="HTTP+JSON", protocol_version=PROTOCOL_VERSION)
    )
    # For callers that speak nothing newer; last, since the order is that of preference (A2A 1.0 §8.3.2).
    legacy = [(base + JSONRPC_PATH, "JSONRPC"), (base + REST_03_PATH, "HTTP+JSON")]
    if settings.grpc_target:
        legacy.append((settings.grpc_target, "GRPC"))
    interfaces.extend(
        AgentInterface(url=url, protocol_binding=binding, protocol_version=LEGACY_VERSION) for url, binding in legacy
    )
    return interfaces


def _requirement(way: Way, scopes: Iterable[str] = ()) -> SecurityRequirement:
    return SecurityRequirement(schemes={way.name: StringList(list=scopes if way.asks_scopes else ())})


def _skill(skill: Skill, ways: Sequence[Way]) -> AgentSkill:
    return AgentSkill(
        id=skill.id,
        name=skill.name,
        description=skill.description,
        tags=skill.tags or (skill.scope.partition(":")[0],),
        examples=skill.examples,
        security_requirements=[_requirement(way, [skill.scope]) for way in ways if skill.scope in way.scopes],
    )


def _outline(skill: Skill) -> dict[str, Any]:
    return {"idempotent": skill.idempotent, "failed": skill.failed, "rejected": skill.rejected}
