"""A copy of this project whose agents are stubs: what their code says is just what agents/callers.yaml grants."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecard.check import check

ROOT = Path(__file__).parents[3]

STUB = """
from types import SimpleNamespace

from pydantic import TypeAdapter

text = dict(input=str, output=TypeAdapter(str), version="1", failed="retry", rejected="surface")
agent = SimpleNamespace(name={name!r}, version="1.0.0", asks=(), skills={{
    scope: SimpleNamespace(scope=scope, idempotent=True, **text) for scope in {scopes!r}
}})
"""
TEXT = {"input": {"type": "string"}, "output": {"type": "string"}, "idempotent": True, "version": "1",
        "failed": "retry", "rejected": "surface"}  # fmt: skip


class Copy:
    """The project's configuration in a folder of its own, to break one thing in and look what is found."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("agents", "components", "resiliency", "k8s"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("dapr.yaml", "docker-compose.yml", "Dockerfile", ".gitignore"):
            shutil.copy(ROOT / name, root / name)
        granted: dict[str, set[str]] = {}
        for caller in yaml.safe_load((root / "agents/callers.yaml").read_text())["callers"].values():
            for name, scopes in caller["grants"].items():
                granted.setdefault(name, set()).update(scopes)
        for init in (root / "agents").glob("**/__init__.py"):
            init.write_text("")
        for name in granted.keys() - {"registry"}:
            scopes = granted[name]
            self.stub(name, sorted(scopes))

    def stub(self, name: str, scopes: list[str]) -> None:
        """An agent with one skill for each of these scopes, which it has published."""
        self.write(f"agents/{name}/agent.py", STUB.format(name=name, scopes=scopes))
        contracts = {scope: {**TEXT, "scope": scope} for scope in scopes}
        self.write(f"agents/{name}/contract.json", json.dumps({"version": "1.0.0", "skills": contracts}))

    def write(self, file: str, text: str) -> None:
        """Replaces a file."""
        (self.root / file).write_text(text)

    def change(self, file: str, how: Callable[..., Any], kind: str = "", name: str = "") -> None:
        """Changes a YAML file's documents, or those of one kind and name, in place."""
        documents = list(yaml.safe_load_all((self.root / file).read_text()))
        for document in documents:
            if not kind or (document["kind"] == kind and name in {"", document["metadata"]["name"]}):
                how(document)
        self.write(file, yaml.safe_dump_all(documents))

    def findings(self) -> list[tuple[str, str]]:
        """File and problem of everything that `sidecard check` finds."""
        return [(finding.file, finding.problem) for finding in check(self.root)]


@pytest.fixture
def project(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


def put(*path: str | int, value: Any = None) -> Callable[[Any], None]:
    """Sets what lies under a path of keys and indices; without a value, removes it."""

    def how(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        if value is None:
            del document[path[-1]]
        else:
            document[path[-1]] = value

    return how
