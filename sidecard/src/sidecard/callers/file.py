"""agents/callers.yaml: who the callers of the whole estate are, how each is known, and what it holds where."""

from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from sidecard.callers.addresses import check_url
from sidecard.callers.certificates import CertificateName
from sidecard.errors import ConfigurationError
from sidecard.quotas import Quota, Quotas, QuotasFile
from sidecard.validation import explain

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"]
"""Of public keys only: with HS256 a public key would serve as the secret that tokens are forged with."""
ALGORITHMS: tuple[Algorithm, ...] = ("RS256", "PS256", "ES256", "EdDSA", "Ed25519")
Name = Annotated[str, StringConstraints(pattern=r"^[^/\s]{1,200}$")]
"""Of a caller, an issuer: without "/", which is in the names of people whom an issuer names, <issuer>/<subject>."""
ClaimedName = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,255}$")]
"""Of a subject or client as a token has it (OpenID Connect Core §2: 255 ASCII characters)."""


class Holder(BaseModel):
    """Whose tokens prove that a caller is here: one person's, or those that a client gets for itself."""

    model_config = ConfigDict(extra="forbid")

    issuer: Name
    subject: ClaimedName | None = None
    client: ClaimedName | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.subject is None) == (self.client is None):
            raise ValueError("name a subject (a person) or a client (a program), one of them")
        return self


class Rights(BaseModel):
    """What somebody holds at each agent, and the tenants it may work in besides the default one."""

    model_config = ConfigDict(extra="forbid")

    tenants: list[str] = Field(default_factory=list)
    grants: dict[str, list[str]] = Field(default_factory=dict)


class Grant(Rights):
    """One caller: how it is known, and the scopes it holds at each agent."""

    sidecar: bool = False
    api_key: bool = False
    certificates: list[CertificateName] = Field(default_factory=list)
    token: Holder | None = None
    speaks_for_others: bool = False
    quota: Quota = Quota()


class Issuer(BaseModel):
    """Somebody who says who people and clients are: an OpenID provider, or an OAuth authorization server.

    `url` is what its tokens have as `iss`, to the letter. `types` are those that its access tokens call themselves; an
    issuer that knows no RFC 9068 says JWT, as for its ID tokens. `everyone` is what people hold who are not listed.
    `login` is the client that `sidecard login` is there: a public one, with redirects to http://127.0.0.1/callback.
    """

    model_config = ConfigDict(extra="forbid")

    url: Annotated[str, AfterValidator(check_url)]
    algorithms: list[Algorithm] = Field(default=list(ALGORITHMS), min_length=1)
    types: list[Literal["at+jwt", "JWT"]] = Field(default=["at+jwt"], min_length=1)
    everyone: Rights | None = None
    login: ClaimedName = "sidecard"


class CallersFile(BaseModel):
    """agents/callers.yaml: the callers of the whole estate."""

    model_config = ConfigDict(extra="forbid")

    issuers: dict[Name, Issuer] = Field(default_factory=dict)
    callers: dict[Name, Grant]
    quotas: QuotasFile = Field(default_factory=QuotasFile)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        urls = [issuer.url for issuer in self.issuers.values()]
        if len(set(urls)) < len(urls):
            raise ValueError("two issuers have the same url")
        holders = [grant.token for grant in self.callers.values() if grant.token]
        for holder in holders:
            if holder.issuer not in self.issuers:
                raise ValueError(f"there is no issuer {holder.issuer!r}")
            if holders.count(holder) > 1:
                raise ValueError(f"two callers are {holder.subject or holder.client!r} of {holder.issuer!r}")
        return self

    @model_validator(mode="after")
    def _one_caller_each(self) -> Self:
        named = [name for grant in self.callers.values() for name in set(grant.certificates)]
        if twice := sorted({name for name in named if named.count(name) > 1}):
            raise ValueError(f"a certificate is one caller's; several have {', '.join(twice)}")
        return self

    def limits(self) -> Quotas:
        """Everybody's quotas, none of them used yet."""
        return Quotas(self.quotas, {name: grant.quota for name, grant in self.callers.items()})

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises ConfigurationError, naming the file and what is wrong with it."""
        try:
            return cls.model_validate(yaml.safe_load(path.read_text()))
        except ValidationError as error:
            raise ConfigurationError(f"{path} is not a list of callers: {explain(error)}") from error
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise ConfigurationError(f"{path} is not a list of callers: {reason}") from error
