"""The app's half of access control: agents/callers.yaml against the skills in the agents' code."""

from collections.abc import Iterator

from sidecard.check.estate import Estate
from sidecard.check.finding import Finding
from sidecard.registry import OPERATE, REGISTRY

FILE = "agents/callers.yaml"


def check(estate: Estate) -> Iterator[Finding]:
    """Every granted scope means something, every caller can be known, and every skill has somebody to use it."""
    granted: dict[str, set[str]] = {}
    for caller, grant in estate.callers.items():
        if not (grant.sidecar or grant.api_key or grant.token or grant.certificates):
            how = "set sidecar or api_key: true, a token, or certificates"
            yield Finding(FILE, f"caller {caller!r} can't be known", how)
        if grant.sidecar and caller not in estate.run_file:
            yield Finding(FILE, f"caller {caller!r} has no sidecar in dapr.yaml", "name it as its app-id")
        for name, scopes in grant.grants.items():
            granted.setdefault(name, set()).update(scopes)
            yield from _granted(estate, caller, name, set(scopes))
    for issuer, known in estate.callers_file.issuers.items():
        for name, scopes in known.everyone.grants.items() if known.everyone else ():
            granted.setdefault(name, set()).update(scopes)
            yield from _granted(estate, f"everyone of {issuer}", name, set(scopes))
    for name, agent in estate.agents.items():
        if agent.name != name:
            yield Finding(
                f"agents/{name}/agent.py",
                f"the agent calls itself {agent.name!r}",
                f"name it {name!r}, as its folder and app-id",
            )
        for scope in sorted(agent.scopes - granted.get(name, set())):
            yield Finding(FILE, f"nobody holds {scope!r} of {name!r}", "grant it to a caller, or remove it", "warning")


def _granted(estate: Estate, caller: str, name: str, scopes: set[str]) -> Iterator[Finding]:
    if name == REGISTRY and name in estate.apps:
        yield from _unknown(caller, name, scopes, frozenset({OPERATE}))
    elif name not in estate.apps or estate.apps[name].kind != "agent":
        yield Finding(FILE, f"{caller!r} holds scopes at {name!r}, which is no agent", "name a folder of agents/")
    elif name in estate.agents:
        yield from _unknown(caller, name, scopes, estate.agents[name].scopes)


def _unknown(caller: str, name: str, scopes: set[str], known: frozenset[str]) -> Iterator[Finding]:
    for scope in sorted(scopes - known):
        problem = f"{caller!r} holds {scope!r}, which means nothing at {name!r}"
        yield Finding(FILE, problem, f"use one of {', '.join(sorted(known))}")
