"""No secret value is in a file that is committed."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sidecard.check.estate import Estate, dig
from sidecard.check.finding import Finding

_SECRET_NAME = re.compile(r"(PASSWORD|TOKEN|SECRET|API_KEY|PRIVATE_KEY|CONNECTION_STRING)$", re.IGNORECASE)
_SECRET_TEXT = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\"d\"\s*:\s*\"[\w-]{32,}\"|password=(?!…|\$|<|\{)[^\s\"']+", re.IGNORECASE
)
_FOLDERS = ("agents", "components", "resiliency", "k8s")
_FILES = ("dapr.yaml", "docker-compose.yml", "Dockerfile")


def check(estate: Estate) -> Iterator[Finding]:
    """Secrets come from `.sidecard/`, which git ignores, or from the platform."""
    ignored = estate.root / ".gitignore"
    lines = ignored.read_text("utf-8").splitlines() if ignored.exists() else []
    if not {"/.sidecard/", ".sidecard/", "/.sidecard", ".sidecard"} & {line.strip() for line in lines}:
        yield Finding(".gitignore", "git would take the keys in .sidecard/", "add the line /.sidecard/")
    for path in _paths(estate.root):
        file = path.relative_to(estate.root).as_posix()
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
            if _SECRET_TEXT.search(line):
                yield Finding(
                    file, f"line {number} holds a secret", "take it out, and replace the secret: it is known now"
                )
        if path.suffix in {".yaml", ".yml"}:
            for document in estate.documents(file):
                yield from _document(file, document)


def _paths(root: Path) -> Iterator[Path]:
    for folder in _FOLDERS:
        yield from sorted(
            p for p in (root / folder).rglob("*") if p.is_file() and p.suffix in {".py", ".yaml", ".yml", ".json"}
        )
    yield from (root / name for name in _FILES if (root / name).exists())


def _document(file: str, document: dict[str, Any]) -> Iterator[Finding]:
    if document.get("kind") == "Secret" and (document.get("data") or document.get("stringData")):
        name = dig(document, "metadata", "name")
        yield Finding(file, f"holds the values of the Secret {name!r}", "create it in the cluster; k8s/base says how")
    yield from _names(file, document)


def _names(file: str, value: object) -> Iterator[Finding]:
    """Values under telling names: `PASSWORD: x`, `- {name: PASSWORD, value: x}`, `- PASSWORD=x`."""
    if isinstance(value, list):
        for item in value:
            name, _, text = item.partition("=") if isinstance(item, str) else ("", "", "")
            yield from _named(file, name, text)
            yield from _names(file, item)
    elif isinstance(value, dict):
        if isinstance(value.get("name"), str):
            yield from _named(file, value["name"], value.get("value"))
        for name, item in value.items():
            yield from _named(file, str(name), item)
            yield from _names(file, item)


def _named(file: str, name: str, value: object) -> Iterator[Finding]:
    # Annotations, such as dapr.io/api-token-secret, name a Secret and hold none.
    if "/" not in name and _SECRET_NAME.search(name) and isinstance(value, str) and value and not value.startswith("$"):
        yield Finding(file, f"{name} is written out", "read it from the environment or from a secret store")
