"""Reads k8s/base as `kustomize build` would, as far as this project uses it: resources, components, and their patches.

Names, labels, generators and replacements are left as the files have them.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import yaml

from sidecard.check.estate import Estate, dig

_MERGE_KEYS = ("name", "containerPort", "port", "mountPath")
Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Resource:
    """One Kubernetes object and the file that it was written in."""

    file: str
    object: Object

    @property
    def kind(self) -> str:
        """Its kind."""
        return str(self.object.get("kind"))

    @property
    def name(self) -> str:
        """Its metadata.name."""
        return str(dig(self.object, "metadata", "name"))


def build(estate: Estate, folder: str) -> list[Resource]:
    """Every object of a kustomization, patched. Files that are missing become the estate's findings."""
    kustomization = estate.document(f"{folder}/kustomization.yaml")
    resources: list[Resource] = []
    for entry in kustomization.get("resources") or []:
        path = _join(folder, str(entry))
        if (estate.root / path).is_dir():
            resources += build(estate, path)
        else:
            resources += [Resource(path, copy.deepcopy(document)) for document in estate.documents(path)]
    for entry in kustomization.get("components") or []:
        path = _join(folder, str(entry))
        _patch(estate, path, estate.document(f"{path}/kustomization.yaml"), resources)
    _patch(estate, folder, kustomization, resources)
    return resources


def files(estate: Estate, folder: str) -> set[str]:
    """The YAML files of a folder that its kustomization does not list."""
    kustomization = estate.document(f"{folder}/kustomization.yaml")
    listed = {str(entry).removeprefix("./") for entry in kustomization.get("resources") or []}
    return {path.name for path in (estate.root / folder).glob("*.yaml")} - listed - {"kustomization.yaml"}


def images(kustomization: Object) -> dict[str, str]:
    """The image that stands for each name in the manifests."""
    found = {}
    for entry in kustomization.get("images") or []:
        name = str(entry.get("newName") or entry.get("name"))
        tag = f":{entry['newTag']}" if "newTag" in entry else ""
        found[str(entry.get("name"))] = f"{name}@{entry['digest']}" if "digest" in entry else name + tag
    return found


def _join(folder: str, entry: str) -> str:
    parts: list[str] = []
    for part in PurePosixPath(folder, entry).parts:
        if part == "..":
            parts = parts[:-1]
        else:
            parts.append(part)
    return "/".join(parts)


def _patch(estate: Estate, folder: str, kustomization: Object, resources: Iterable[Resource]) -> None:
    for entry in kustomization.get("patches") or []:
        if "path" not in entry:
            continue
        path = _join(folder, str(entry["path"]))
        patch: Any = estate.documents(path) or _operations(estate, path)
        for one in patch:
            target = entry.get("target") or {"kind": one.get("kind"), "name": dig(one, "metadata", "name")}
            for resource in resources:
                if target.get("kind") == resource.kind and target.get("name") in {None, resource.name}:
                    _apply(resource.object, one)


def _operations(estate: Estate, path: str) -> list[Object]:
    """A JSON 6902 patch is a list, which `documents` leaves out."""
    try:
        loaded = yaml.safe_load((estate.root / path).read_text("utf-8"))
    except (OSError, yaml.YAMLError):
        return []
    return [operation for operation in loaded if isinstance(operation, dict)] if isinstance(loaded, list) else []


def _apply(target: Object, patch: Object) -> None:
    if "op" not in patch:
        kept = copy.deepcopy(target.get("metadata", {}).get("name"))
        _merge(target, patch, by_key=target.get("kind") == "Deployment")
        target["metadata"]["name"] = kept
        return
    *path, last = str(patch["path"]).strip("/").split("/")
    parent = dig(target, *path) if path else target
    if isinstance(parent, dict):
        if patch["op"] == "remove":
            parent.pop(last, None)
        else:
            parent[last] = copy.deepcopy(patch.get("value"))


def _merge(target: Object, patch: Object, *, by_key: bool) -> None:
    """Lists of a Deployment are merged by their items' key, those of a custom resource replaced as a whole."""
    for key, value in patch.items():
        present = target.get(key)
        if isinstance(value, dict) and isinstance(present, dict):
            _merge(present, value, by_key=by_key)
        elif by_key and isinstance(value, list) and isinstance(present, list) and (by := _merge_key(present + value)):
            target[key] = _merge_lists(present, value, by)
        else:
            target[key] = copy.deepcopy(value)


def _merge_key(items: list[Any]) -> str | None:
    return next((key for key in _MERGE_KEYS if items and all(isinstance(i, dict) and key in i for i in items)), None)


def _merge_lists(present: list[Object], patch: list[Object], by: str) -> list[Object]:
    merged = {item[by]: item for item in copy.deepcopy(present)}
    for item in patch:
        if item[by] in merged:
            _merge(merged[item[by]], item, by_key=True)
        else:
            merged[item[by]] = copy.deepcopy(item)
    return list(merged.values())
