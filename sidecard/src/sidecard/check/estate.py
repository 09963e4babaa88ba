"""What a project says of itself: its apps, its agents' code, its callers, and who therefore calls whom."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError

from sidecard.callers import CallersFile, Grant
from sidecard.check.finding import Finding
from sidecard.registry import OPERATE, REGISTRY
from sidecard.validation import explain

CARD, A2A, MCP = "/.well-known/agent-card.json", "/a2a", "/mcp"
AGENTS, ESTATE, REVOKED = "/agents", "/estate", "/revoked"

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same, several times faster, where PyYAML has it

Kind = Literal["agent", "tools", "registry"]
Calls = dict[str, dict[str, dict[str, frozenset[str]]]]
"""Callee, caller, path: HTTP methods."""

# An interpreter of its own: agents of the project under check are imported, not those of whoever checks.
_IMPORT_AGENTS = """
import importlib, json, sys
from sidecard.actions import escalated_to
from sidecard.contract import contract_of
found = {}
for name in sys.argv[1:]:
    try:
        agent = importlib.import_module(f"agents.{name}.agent").agent
        skills = {key: skill.scope for key, skill in agent.skills.items()}
        escalates = {key: escalated_to(skill.failed, skill.rejected) for key, skill in agent.skills.items()}
        contracts = {key: contract_of(skill) for key, skill in agent.skills.items()}
        found[name] = {"name": agent.name, "version": agent.version, "skills": skills, "asks": sorted(agent.asks),
                       "contracts": contracts, "escalates": escalates}
    except Exception as error:
        found[name] = {"error": f"{type(error).__name__}: {error}"}
sys.stdout.write("\\n" + json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """What an agent's code says: its name, its version, the scope of each skill, and those its questions demand.

    `contracts` is what each skill promises, see `contract`; `escalates` has the rights of those to whom an end of it
    without success is escalated, see `actions`.
    """

    name: str
    version: str
    skills: Mapping[str, str]
    asks: frozenset[str]
    contracts: Mapping[str, dict[str, Any]]
    escalates: Mapping[str, list[str]]

    @property
    def scopes(self) -> frozenset[str]:
        """Every scope that means something at this agent."""
        return frozenset(self.skills.values()) | self.asks


@dataclass(frozen=True, slots=True)
class App:
    """One folder of agents/: an app-id. `run` is its entry in dapr.yaml, empty when it has none."""

    name: str
    kind: Kind
    run: Mapping[str, Any]

    @property
    def port(self) -> int | None:
        """Where it serves HTTP, on every platform."""
        port = self.run.get("appPort")
        return port if isinstance(port, int) else None

    @property
    def grpc_port(self) -> int | None:
        """Where an agent serves A2A's gRPC binding, on every platform."""
        port = str(dig(self.run, "env", "SIDECARD_GRPC_PORT") or "")
        return int(port) if port.isdigit() else None


@dataclass
class Estate:
    """A project, read once. What could not be read is in `findings`."""

    root: Path
    findings: list[Finding] = field(default_factory=list)
    _documents: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def documents(self, file: str) -> list[dict[str, Any]]:
        """The YAML objects of a file. One that is missing or broken is a finding, and empty."""
        if file not in self._documents:
            self._documents[file] = []
            try:
                loaded = list(yaml.load_all((self.root / file).read_text("utf-8"), _LOADER))
                self._documents[file] = [document for document in loaded if isinstance(document, dict)]
            except OSError:
                self.report(file, "is missing", "write it, or restore it from version control")
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                line = str(error).replace("\n", " ")
                self.report(file, f"is not YAML: {line}", "mend the line it names")
        return self._documents[file]

    def document(self, file: str) -> dict[str, Any]:
        """The only YAML object of a file, or an empty one."""
        return next(iter(self.documents(file)), {})

    def report(self, file: str, problem: str, fix: str) -> None:
        """Something that could not be read."""
        self.findings.append(Finding(file, problem, fix))

    @cached_property
    def run_file(self) -> dict[str, dict[str, Any]]:
        """The apps of dapr.yaml by app-id."""
        apps = self.document("dapr.yaml").get("apps") or []
        return {str(app["appID"]): app for app in apps if isinstance(app, dict) and "appID" in app}

    @cached_property
    def apps(self) -> dict[str, App]:
        """One for each folder of agents/ that holds Python."""
        folders = sorted(path.name for path in (self.root / "agents").glob("*/") if any(path.glob("*.py")))
        return {name: App(name, self._kind(name), self.run_file.get(name, {})) for name in folders}

    def _kind(self, name: str) -> Kind:
        if name == REGISTRY:
            return "registry"
        folder = self.root / "agents" / name
        return "tools" if (folder / "server.py").exists() and not (folder / "agent.py").exists() else "agent"

    def of_kind(self, *kinds: Kind) -> Iterator[App]:
        """The apps of these kinds."""
        return (app for app in self.apps.values() if app.kind in kinds)

    @cached_property
    def agents(self) -> dict[str, AgentFacts]:
        """What each agent's code says. One that can't be imported is a finding, and left out."""
        names = [app.name for app in self.of_kind("agent")]
        path = os.pathsep.join([str(self.root), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        done = subprocess.run(  # noqa: S603 -- our own interpreter and code
            [sys.executable, "-c", _IMPORT_AGENTS, *names],
            cwd=self.root, env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        try:
            found: dict[str, Any] = json.loads(done.stdout.rpartition("\n")[2])
        except ValueError:
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            found = {name: {"error": last} for name in names}
        facts = {}
        for name, told in found.items():
            if "error" in told:
                self.report(f"agents/{name}/agent.py", f"can't be imported: {told['error']}", "mend it first")
                continue
            facts[name] = AgentFacts(
                told["name"], told["version"], told["skills"], frozenset(told["asks"]), told["contracts"],
                told["escalates"],
            )  # fmt: skip
        return facts

    @cached_property
    def callers_file(self) -> CallersFile:
        """agents/callers.yaml; without anybody in it, when it can't be read."""
        file = "agents/callers.yaml"
        try:
            return CallersFile.model_validate(self.document(file))
        except ValidationError as error:
            problem = f"is not a list of callers: {explain(error)}"
            self.report(file, problem, "see the comment at its top for what may stand there")
            return CallersFile(callers={})

    @property
    def callers(self) -> dict[str, Grant]:
        """Those listed in agents/callers.yaml."""
        return self.callers_file.callers

    def access(self, app_id: str) -> dict[str, Any]:
        """The access rules of an app-id: the `spec` of its Configuration."""
        return dict(self.document(f"components/access/{app_id}.yaml").get("spec") or {})

    @cached_property
    def calls(self) -> Calls:
        """Who may call whom through the sidecars, as agents/callers.yaml and the kinds of the apps imply it.

        The registry reads every agent's card; every app enrols itself in the registry and reads it, and who is revoked;
        a caller with a sidecar but no app reads it, and an operator enrols, dismisses and revokes; who holds a scope at
        an agent gets its card and its JSON-RPC endpoint. Scopes say nothing of a tool server: there the access rules
        name the callers.
        """
        calls: Calls = {name: {} for name in self.run_file}
        in_mesh = {name: grant for name, grant in self.callers.items() if grant.sidecar}
        for app in self.apps.values():
            into = calls.setdefault(app.name, {})
            if app.kind == "agent":
                if REGISTRY in self.apps:
                    into[REGISTRY] = {CARD: frozenset({"GET"})}
                for caller, grant in in_mesh.items():
                    if grant.grants.get(app.name):
                        into[caller] = {CARD: frozenset({"GET"}), A2A: frozenset({"POST"})}
            elif app.kind == "registry":
                into |= {name: {AGENTS: frozenset({"GET"})} for name in in_mesh}
                own = {AGENTS: frozenset({"GET", "PUT"}), REVOKED: frozenset({"GET"})}
                into |= {name: own for name in self.apps if name != app.name}
                for caller in (name for name, grant in in_mesh.items() if OPERATE in grant.grants.get(app.name, ())):
                    into[caller] = into[caller] | {
                        ESTATE: frozenset({"POST", "PUT", "DELETE"}),
                        REVOKED: frozenset({"GET", "PUT", "DELETE"}),
                    }
            else:
                policies = dig(self.access(app.name), "accessControl", "policies") or []
                known = [str(policy.get("appId")) for policy in policies if policy.get("appId") in self.run_file]
                into |= {name: {MCP: frozenset({"POST"})} for name in known}
        return calls


def dig(value: object, *keys: str | int) -> Any:  # noqa: ANN401 -- YAML holds anything
    """What lies under these keys and indices, or None where one is missing."""
    for key in keys:
        if isinstance(value, dict) and isinstance(key, str):
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and key < len(value):
            value = value[key]
        else:
            return None
    return value
