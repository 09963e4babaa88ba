"""Foreign agents: those outside of the mesh, built by others, as their operator has enrolled them here."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Self

import yaml
from a2a.types import AgentCard, SecurityRequirement
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from sidecard.egress import DestinationRefused, Origin
from sidecard.errors import ConfigurationError
from sidecard.registry import Enrolment
from sidecard.validation import explain


def _http_url(url: str) -> str:
    try:
        Origin.of(url)
    except DestinationRefused as error:
        raise ValueError(str(error)) from None
    return url.rstrip("/")


Url = Annotated[str, Field(max_length=2_048), AfterValidator(_http_url)]


class Issuer(BaseModel):
    """Who gives us tokens for a foreign agent, and for what: OAuth 2.0 client credentials.

    `audience` is what the agent calls itself there, its base URL by default. `scopes` are by skill, `""` for all that
    are not named; what is not there is taken from the agent's verified card. With `exchange` a caller's own token is
    exchanged there (RFC 8693), so that its rights travel and not ours; without one of this issuer the agent is not
    called. A task that lives longer than its caller's token asks for another (AUTH_REQUIRED).
    """

    model_config = ConfigDict(extra="forbid")

    issuer: str
    audience: str = ""
    scopes: dict[str, list[str]] = {}
    exchange: bool = False

    @model_validator(mode="after")
    def _is_address(self) -> Self:
        _http_url(self.issuer)
        return self


class ForeignAgent(BaseModel):
    """An agent outside of the mesh: where it is, how its card is proven, and who gives us tokens for it.

    Its card is proven by its publisher's pinned key, or, for a framework that does not sign, by the `card_digest`
    (`signature.digest`) that the operator has looked at. `card_name` is what its card calls it, if not as we do.
    """

    model_config = ConfigDict(extra="forbid")

    url: Url
    publisher: str = ""
    card_digest: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    card_name: str = ""
    credentials: Issuer | None = None

    @model_validator(mode="after")
    def _is_proven(self) -> Self:
        if not (self.publisher or self.card_digest):
            raise ValueError("name the publisher whose key is pinned, or pin the card_digest")
        return self

    @classmethod
    def enrolled(cls, enrolment: Enrolment, issuers: Iterable[str]) -> Self:
        """As the registry lists it. `issuers` are those that know us: no other is asked for a token."""
        asked = {demand.issuer: demand for demands in enrolment.demands for demand in demands}
        issuer = next((own for own in issuers for named in asked if _names(named, own)), None)
        return cls(
            url=enrolment.card_url,
            publisher=enrolment.publisher,
            card_digest=enrolment.card_digest if enrolment.pinned else "",
            card_name=enrolment.name,
            credentials=Issuer(issuer=issuer) if issuer else None,
        )

    @property
    def origin(self) -> Origin:
        """The only place that our messages and tokens for it go to."""
        return Origin.of(self.url)

    def scope(self, card: AgentCard, skill: str) -> str:
        """The scopes that a call of this skill needs, by blanks: the operator's word, else the card's.

        "" stands for no skill in particular (a cancel): all that the operator has named.
        """
        given = self.credentials.scopes if self.credentials else {}
        if not skill and given:
            return " ".join(sorted({scope for scopes in given.values() for scope in scopes}))
        named = given.get(skill, given.get(""))
        if named is None:
            own = [one for one in card.skills if one.id == skill or not skill]
            needed = [_scopes(one.security_requirements, card) for one in own]
            named = sorted(
                {scope for scopes in needed for scope in scopes} or _scopes(card.security_requirements, card)
            )
        return " ".join(named)


class ForeignFile(BaseModel):
    """agents/foreign.yaml: the foreign agents that this estate may call, by the name that its skills call them."""

    model_config = ConfigDict(extra="forbid")

    agents: dict[str, ForeignAgent] = {}

    @classmethod
    def read(cls, path: Path) -> Self:
        """Nothing, where there is no such file. Raises ConfigurationError, naming the file and what is wrong."""
        try:
            return cls.model_validate(yaml.safe_load(path.read_text()) or {})
        except FileNotFoundError:
            return cls()
        except ValidationError as error:
            raise ConfigurationError(f"{path} is not a list of foreign agents: {explain(error)}") from error
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise ConfigurationError(f"{path} is not a list of foreign agents: {reason}") from error


def _names(metadata: str, issuer: str) -> bool:
    """Whether a card's address of an issuer's metadata, or of its token endpoint, is of this issuer."""
    issuer = issuer.rstrip("/")
    return metadata.rstrip("/") == issuer or metadata.startswith(f"{issuer}/")


def _scopes(requirements: Iterable[SecurityRequirement], card: AgentCard) -> set[str]:
    """The scopes of the first requirement that a token of ours alone meets (each requirement is an alternative)."""
    for requirement in requirements:
        kinds = {card.security_schemes[name].WhichOneof("scheme") for name in requirement.schemes}
        if kinds <= {"oauth2_security_scheme", "open_id_connect_security_scheme", "http_auth_security_scheme"}:
            return {scope for scopes in requirement.schemes.values() for scope in scopes.list}
    return set()
