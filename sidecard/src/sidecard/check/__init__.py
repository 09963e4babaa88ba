"""Says what disagrees between a project's code, its Dapr files, its containers and its manifests.

The files stay the forker's own: they are checked, not generated. Each surface is a module with one function
`check(estate)`; a new rule belongs beside its kind.
"""

from pathlib import Path

from sidecard.check import (
    access,
    committed,
    components,
    compose,
    contracts,
    foreign,
    manifests,
    network,
    runfile,
    scopes,
)
from sidecard.check.estate import Estate
from sidecard.check.finding import Finding
from sidecard.errors import ConfigurationError

__all__ = ["Finding", "check"]

_SURFACES = (runfile, scopes, foreign, access, components, compose, manifests, network, committed, contracts)


def check(project: Path) -> list[Finding]:
    """Every disagreement in the project in this folder, sorted by file; empty when all agree.

    Imports the agents in an interpreter of its own. Raises ConfigurationError when the folder is no project.
    """
    if not (project / "dapr.yaml").is_file():
        raise ConfigurationError(
            f"there is no dapr.yaml in {project}: run this in the project's folder, or name it with --project"
        )
    estate = Estate(project.resolve())
    found = [finding for surface in _SURFACES for finding in surface.check(estate)]
    return sorted({*found, *estate.findings})
