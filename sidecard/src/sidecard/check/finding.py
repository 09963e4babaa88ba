"""One disagreement between two places of a project, with the file to open and what to do there."""

from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """What is wrong in one file, and what to do.

    `file` is relative to the project. A `warning` is worth reading and fails nothing; an `error` means that the
    project would not run, or would run otherwise than one of its files says.
    """

    file: str
    problem: str
    fix: str
    level: Literal["error", "warning"] = "error"

    def as_dict(self) -> dict[str, str]:
        """For programs: the fields by name."""
        return asdict(self)
