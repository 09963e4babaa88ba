"""The app's half of access control: agents/callers.yaml against the skills in the agents' code."""

from collections.abc import Iterator, Mapping

from sidecard.callers import Grant
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
        yield from _more_than_it_needs(estate, caller, grant)
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
    yield from _escalated(estate, granted)


def _escalated(estate: Estate, granted: Mapping[str, set[str]]) -> Iterator[Finding]:
    """Who delegates asks somebody with the right that a skill's author has named: so somebody must hold it there."""
    for name, agent in estate.agents.items():
        asking = [one for one in estate.agents if one in estate.callers and estate.callers[one].grants.get(name)]
        for skill, scopes in agent.escalates.items():
            for scope in scopes:
                for delegating in asking or [name]:
                    if scope not in granted.get(delegating, set()):
                        yield Finding(
                            FILE,
                            f"nobody holds {scope!r} of {delegating!r}, to whom {skill!r} of {name!r} escalates",
                            f"grant it there to a person, and add it to asks in agents/{delegating}/agent.py",
                        )


def _more_than_it_needs(estate: Estate, caller: str, grant: Grant) -> Iterator[Finding]:
    """What may be meant, and gives whoever has it more than the caller's scopes alone."""
    is_agent = caller in estate.apps and estate.apps[caller].kind == "agent"
    if grant.speaks_for_others and not (is_agent and any(grant.grants.values())):
        yield Finding(FILE, f"{caller!r} is believed whomever it says it acts for, and is no agent that calls others",
                      "remove speaks_for_others, unless it stands before people whom it has verified",
                      "warning")  # fmt: skip
    if grant.sidecar and grant.api_key and is_agent:
        yield Finding(FILE, f"whoever holds the key of {caller!r} is taken for that agent",
                      "remove api_key: its sidecar proves who it is", "warning")  # fmt: skip


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
