"""agents/callers.yaml: who the callers of the whole estate are, how each is known, and what it holds where."""

from pathlib import Path
from typing import Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sidecard.callers.certificates import CertificateName
from sidecard.errors import ConfigurationError
from sidecard.validation import explain


class Grant(BaseModel):
    """One caller: how it is known, and the scopes it holds at each agent."""

    model_config = ConfigDict(extra="forbid")

    sidecar: bool = False
    api_key: bool = False
    certificates: list[CertificateName] = Field(default_factory=list)
    speaks_for_others: bool = False
    tenants: list[str] = Field(default_factory=list)
    grants: dict[str, list[str]] = Field(default_factory=dict)


class CallersFile(BaseModel):
    """agents/callers.yaml: the callers of the whole estate."""

    model_config = ConfigDict(extra="forbid")

    callers: dict[str, Grant]

    @model_validator(mode="after")
    def _one_caller_each(self) -> Self:
        named = [name for grant in self.callers.values() for name in set(grant.certificates)]
        if twice := sorted({name for name in named if named.count(name) > 1}):
            raise ValueError(f"a certificate is one caller's; several have {', '.join(twice)}")
        return self

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
