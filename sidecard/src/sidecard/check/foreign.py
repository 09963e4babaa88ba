"""agents/foreign.yaml: agents of others, against the publishers that are pinned, the issuers, and who delegates."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from sidecard.callers.addresses import is_safe
from sidecard.check.estate import Estate
from sidecard.check.finding import Finding
from sidecard.delegation.foreign import ForeignAgent, ForeignFile
from sidecard.errors import ConfigurationError
from sidecard.trust import TrustStore
from sidecard.validation import explain

FILE = "agents/foreign.yaml"
SECRETS = ".sidecard/secrets.json"


def check(estate: Estate) -> Iterator[Finding]:
    """Each is reached safely, proven by a key that is pinned, and called by tokens that callers can come with."""
    agents: dict[str, ForeignAgent] = {}
    if (estate.root / FILE).exists():
        try:
            agents = ForeignFile.model_validate(estate.document(FILE)).agents
        except ValidationError as error:
            yield Finding(
                FILE, f"is not a list of foreign agents: {explain(error)}", "see sidecard/delegation/foreign.py"
            )
            return
    trust = _trust(estate)
    for name, agent in agents.items():
        if name in estate.run_file or name in estate.apps:
            yield Finding(FILE, f"{name!r} is an app of the mesh too", "call one of them otherwise")
        if trust is not None and agent.publisher and not trust.knows(agent.publisher):
            yield Finding(FILE, f"no key is pinned of {agent.publisher!r}, who publishes {name!r}",
                          f"`sidecard trust pin {agent.publisher!r} FILE`, once they have confirmed it")  # fmt: skip
        yield from _reached(name, agent)
        yield from _exchanged(estate, name, agent)
    for file, name in _delegated(estate):
        if name not in estate.run_file and name not in estate.apps and name not in agents:
            yield Finding(file, f"delegates to {name!r}, which is no agent of agents/ or of {FILE}",
                          "name one of those; if it is enrolled in the registry (`sidecard enrol`) all is well",
                          "warning")  # fmt: skip


def _reached(name: str, agent: ForeignAgent) -> Iterator[Finding]:
    issuer = agent.credentials.issuer if agent.credentials else ""
    for url, what in ((agent.url, "messages and tokens"), (issuer, "secrets and tokens")):
        if url and not is_safe(url):
            yield Finding(FILE, f"{url}, of {name!r}, is not https", f"use https: {what} go there as they are")


def _exchanged(estate: Estate, name: str, agent: ForeignAgent) -> Iterator[Finding]:
    ours = agent.credentials
    if ours is None or not ours.exchange:
        return
    if ours.issuer not in {issuer.url for issuer in estate.callers_file.issuers.values()}:
        problem = f"{name!r} is called by callers' own tokens of {ours.issuer}, which nobody comes with"
        yield Finding(FILE, problem, "list it, to the letter, under issuers: in agents/callers.yaml, or drop exchange")


def _trust(estate: Estate) -> TrustStore | None:
    """The publishers that are pinned on this machine; None where there are none yet, or the platform has them."""
    try:
        return TrustStore.parse(json.loads((estate.root / SECRETS).read_text())["trust"]["publishers"])
    except (OSError, ValueError, LookupError, TypeError, ConfigurationError):
        return None  # `sidecard bootstrap` says what is wrong with it


def _delegated(estate: Estate) -> set[tuple[str, str]]:
    """Each agent that is named where the code of agents/ delegates: the file, and the name."""
    found = set()
    for path in sorted((estate.root / "agents").glob("*/*.py")):
        file = str(path.relative_to(estate.root))
        for node in ast.walk(_parsed(path)):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)) or not node.args:
                continue
            named = node.args[0]
            if node.func.attr == "delegate" and isinstance(named, ast.Constant) and isinstance(named.value, str):
                found.add((file, named.value))
    return found


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text("utf-8"))
    except (SyntaxError, ValueError, OSError):
        return ast.Module([], [])  # that it can't be imported is said already
