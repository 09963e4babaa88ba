"""What the agents' code promises, against what they have published: agents/<name>/contract.json."""

from collections.abc import Iterator

from sidecard.check.estate import AgentFacts, Estate
from sidecard.check.finding import Finding
from sidecard.contract import Published, changes, number_of, version_due
from sidecard.errors import ConfigurationError


def file_of(agent: str) -> str:
    """Where an agent's published contracts are recorded."""
    return f"agents/{agent}/contract.json"


def check(estate: Estate) -> Iterator[Finding]:
    """Every agent's contracts are published, as the version that its card says, and no caller is broken unawares."""
    for name, agent in estate.agents.items():
        try:
            yield from judge(estate, name, agent)
        except ConfigurationError as error:
            yield Finding(file_of(name), f"can't be compared with the code: {error}", "mend what it names")


def judge(estate: Estate, name: str, agent: AgentFacts) -> Iterator[Finding]:
    """What disagrees for one agent. Raises ConfigurationError."""
    publish = f"run `sidecard publish {name}`, and commit what it writes"
    number_of(agent.version)
    published = Published.read(estate.root / file_of(name))
    if published is None:
        yield Finding(file_of(name), f"is missing: nobody knows what {name!r} has promised its callers", publish)
        return
    present = Published.of(agent.version, agent.contracts)
    refusals = list(refused(name, published, present))
    yield from refusals
    if not refusals and present != published:
        yield Finding(file_of(name), f"says other than the code of {name!r}, version {agent.version}", publish)


def refused(name: str, published: Published, present: Published) -> Iterator[Finding]:
    """Why an agent may not be published as it is, each with what changed and which version to write."""
    file, found = f"agents/{name}/agent.py", changes(published, present)
    due = version_due(published.version, found)
    if number_of(present.version) >= number_of(due):
        return
    write = f'write version="{due}", then `sidecard publish {name}`'
    breaking = [change for change in found if change.breaking]
    for change in breaking or found:
        kind = "breaks callers" if change.breaking else "is new to callers"
        yield Finding(file, f"{change.what}; that {kind} of version {published.version}", write)
    if not found:
        yield Finding(file, f"has version {present.version}, and {published.version} is published", write)
