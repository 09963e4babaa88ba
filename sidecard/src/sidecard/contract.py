"""What an agent has promised its callers: the contracts of its skills, as published, and what a change of them takes.

The agent's version bears them all: MAJOR.MINOR.PATCH (semver.org), the version that its card says. It is the only one
that A2A has and that callers of every framework see. What breaks a caller takes a new major version (below 1.0.0 a
minor one), what only adds takes a new minor one. A skill's own version is another thing: it says which steps its tasks
have recorded (`Agent.former`).
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from sidecard.errors import ConfigurationError
from sidecard.schemas import gaps, wordless
from sidecard.validation import explain

if TYPE_CHECKING:  # `sidecard check` asks for the contracts of agents in an interpreter that is quickly there
    from sidecard.agent import Skill

Contract = dict[str, Any]
"""Of one skill: `input` and `output` (JSON Schema), `idempotent`, `scope`, `version`, and what else the card says."""

_SEMVER = re.compile(r"(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})(?:[-+][0-9A-Za-z.+-]{1,64})?")


def contract_of(skill: "Skill") -> Contract:
    """What a skill takes, gives and demands. It is published with the card, as parameters of our extension."""
    return {
        "input": TypeAdapter(skill.input).json_schema(),
        "output": skill.output.json_schema(mode="serialization"),
        "idempotent": skill.idempotent,
        "scope": skill.scope,
        "version": skill.version,
        "failed": skill.failed,
        "rejected": skill.rejected,
    }


class Published(BaseModel):
    """agents/<name>/contract.json: the contracts that an agent has published, without words, and as which version."""

    model_config = ConfigDict(extra="forbid")

    version: str
    skills: dict[str, Contract]

    @classmethod
    def of(cls, version: str, contracts: Mapping[str, Contract]) -> Self:
        """What an agent's code promises now."""
        return cls(version=version, skills={name: wordless(contract) for name, contract in sorted(contracts.items())})

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """None, where nothing was published yet. Raises ConfigurationError for what is no such file."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise ConfigurationError(
                f"{path} is no record of contracts ({explain(error)}): restore it from version control."
            ) from error

    def write(self, path: Path) -> None:
        """One line for each fact, so that a change reads well in a review."""
        path.write_text(json.dumps(self.model_dump(), indent=2, ensure_ascii=False) + "\n", "utf-8")


@dataclass(frozen=True, slots=True)
class Change:
    """Something that callers of an agent will notice; a `breaking` one may be their end."""

    what: str
    breaking: bool


def changes(published: Published, present: Published) -> list[Change]:
    """What an agent's code promises otherwise than was published."""
    found: list[Change] = []
    for name in sorted(published.skills.keys() | present.skills.keys()):
        before, now = published.skills.get(name), present.skills.get(name)
        if before is None:
            found.append(Change(f"{name} is new", breaking=False))
        elif now is None:
            found.append(Change(f"{name} is gone", breaking=True))
        else:
            found.extend(_changed(name, before, now))
    return found


def version_due(published: str, found: list[Change]) -> str:
    """The lowest version that an agent may have after these changes."""
    major, minor, patch = number_of(published)
    if not found:
        return f"{major}.{minor}.{patch}"
    if any(change.breaking for change in found) and major:
        return f"{major + 1}.0.0"
    return f"{major}.{minor + 1}.0"


def number_of(version: str) -> tuple[int, int, int]:
    """Major, minor and patch of a version. Raises ConfigurationError when it has none."""
    found = _SEMVER.fullmatch(version)
    if not found:
        raise ConfigurationError(f"{version!r} is no version: write MAJOR.MINOR.PATCH, such as 1.0.0.")
    return int(found[1]), int(found[2]), int(found[3])


def _changed(name: str, before: Contract, now: Contract) -> Iterator[Change]:
    for key in sorted(before.keys() | now.keys()):
        was, is_now = before.get(key), now.get(key)
        if was == is_now:
            continue
        if key in {"input", "output"}:
            narrower = (
                gaps(was or {}, is_now or {}) if key == "input" else gaps(is_now or {}, was or {}, guaranteed=True)
            )
            yield from (Change(f"{name}, {key}: {gap}", breaking=True) for gap in narrower)
            if not narrower:
                yield Change(f"{name}, {key}: it has changed, and breaks nobody", breaking=False)
        else:
            yield Change(f"{name}: {key} is {is_now!r}, was {was!r}", breaking=key in {"scope", "idempotent"})
