"""The keys of a project on a laptop: those that its agents sign with, and those that it trusts.

Private keys are in `.sidecard/secrets.json`, several in one secret while they rotate; public ones are pinned in
`.sidecard/trust.json`, whose copy in secrets.json is what the agents see.
"""

import contextlib
import hmac
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from jwcrypto.common import JWException
from jwcrypto.jwk import JWK

from sidecard.cli import bootstrap
from sidecard.cli.project import Project
from sidecard.cli.way import agent_of
from sidecard.errors import ConfigurationError
from sidecard.signature import ALGORITHMS, MOST_KEYS, NOT_JSON, signing_keys
from sidecard.trust import TrustStore

Use = Literal["signs", "signs, to be retired", "no longer signs"]
RESTART = (
    "The sidecars read their secrets once, at their start: `make down up`. (In Kubernetes agents take a changed Secret "
    "within a minute.)"
)


@dataclass(frozen=True)
class Key:
    """A key of one of our agents, or of another publisher (`agent` is ""). `made` is None where nobody noted it."""

    publisher: str
    agent: str
    kid: str
    thumbprint: str
    made: datetime | None
    use: Use | Literal["trusted"]
    agents: tuple[str, ...] | None
    public: dict[str, Any]


class Keyring:
    """Reads and changes both files. Raises ConfigurationError where one is missing or broken."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._secrets = bootstrap.read_json(project.local / "secrets.json")
        self._trust = bootstrap.read_json(project.local / "trust.json")
        if not self._secrets or not self._trust:
            raise ConfigurationError(f"There are no keys in {project.local} yet: run `sidecard bootstrap`.")
        TrustStore.parse(json.dumps(self._trust))

    @property
    def publisher(self) -> str:
        """Who signs the cards of this project's agents."""
        return self._project.run_file.name

    def own(self) -> Iterator[Key]:
        """Every key of our agents, newest first: those that sign, then those that are pinned alone."""
        for app in self._project.apps:
            if not app.is_agent:
                continue
            private = self._private(app.app_id)
            for number, key in enumerate(private):
                use: Use = "signs, to be retired" if number else "signs"
                yield _key(self.publisher, app.app_id, key.export_public(as_dict=True), use)
            signing = {key["kid"] for key in private}
            for jwk in self._pinned(self.publisher):
                if jwk["kid"] not in signing and app.app_id in jwk.get("agents", ()):
                    yield _key(self.publisher, app.app_id, jwk, "no longer signs")

    def foreign(self) -> Iterator[Key]:
        """Every key that is pinned for another publisher."""
        for publisher in sorted(self._trust["publishers"].keys() - {self.publisher}):
            for jwk in self._pinned(publisher):
                yield _key(publisher, "", jwk, "trusted")

    def rotate(self, agent: str) -> Key:
        """Make an agent a new key beside its old one; until that is retired its cards are signed with both."""
        agent_of(self._project, agent)
        keys = self._private(agent)
        if len(keys) >= MOST_KEYS:
            raise ConfigurationError(f"{agent} has {len(keys)} keys already: `sidecard keys retire {agent}` first.")
        new = bootstrap.new_signing_key(agent)
        bootstrap.pin(self._pinned(self.publisher), new, agent)
        self._save_trust()  # first: whoever meets the new signature must know its key
        self._store(agent, [new, *keys])
        return _key(self.publisher, agent, new.export_public(as_dict=True), "signs")

    def retire(self, agent: str, kid: str = "") -> list[str]:
        """Remove a key of an agent, private and public half; without a `kid` all but the newest. Returns the kids."""
        agent_of(self._project, agent)
        keys = self._private(agent)
        known = [key.kid for key in self.own() if key.agent == agent]
        retired = [kid] if kid else known[1:]
        if kid and kid not in known:
            raise ConfigurationError(f"{agent} has no key {kid!r}; it has {', '.join(known)}.")
        if not retired or all(key["kid"] in retired for key in keys):
            raise ConfigurationError(
                f"{agent} has one key to sign with, which stays: `sidecard keys rotate {agent}` makes another first."
            )
        self._store(agent, [key for key in keys if key["kid"] not in retired])
        pinned = self._pinned(self.publisher)
        pinned[:] = [jwk for jwk in pinned if jwk["kid"] not in retired]
        self._save_trust()
        return retired

    def pin(self, publisher: str, keys: list[dict[str, Any]]) -> None:
        """Trust another publisher's public keys."""
        if publisher == self.publisher:
            raise ConfigurationError(f"'{publisher}' is this project: its keys are made by `sidecard keys rotate`.")
        apps = {app.app_id for app in self._project.apps}
        if ours := apps & {agent for jwk in keys for agent in jwk.get("agents", ())}:
            raise ConfigurationError(
                f"{', '.join(sorted(ours))} is an app of this project, whose card only '{self.publisher}' signs: leave "
                "out --agents, and enrol the partner's agent under another --name."
            )
        pinned = self._trust["publishers"].setdefault(publisher, {}).setdefault("keys", [])
        kids = {jwk["kid"] for jwk in keys}
        pinned[:] = [*(jwk for jwk in pinned if jwk["kid"] not in kids), *keys]
        TrustStore.parse(json.dumps(self._trust))
        self._save_trust()

    def unpin(self, publisher: str, kid: str = "") -> list[str]:
        """Trust a publisher's key no longer, or none of them. Returns the kids."""
        if publisher == self.publisher:
            raise ConfigurationError(f"'{publisher}' is this project: `sidecard keys retire` removes its old keys.")
        pinned = self._pinned(publisher)
        gone = [jwk["kid"] for jwk in pinned if kid in ("", jwk["kid"])]
        if not gone:
            raise ConfigurationError(f"No such key is pinned for '{publisher}': `sidecard trust` lists those that are.")
        pinned[:] = [jwk for jwk in pinned if jwk["kid"] not in gone]
        if not pinned:
            del self._trust["publishers"][publisher]
        self._save_trust()
        return gone

    def _private(self, agent: str) -> list[JWK]:
        own = self._secrets.get(agent, {})
        if "signing-key" not in own:
            raise ConfigurationError(f"{agent} has no key yet: run `sidecard bootstrap`.")
        return signing_keys(own["signing-key"])

    def _pinned(self, publisher: str) -> list[dict[str, Any]]:
        pinned: list[dict[str, Any]] = self._trust["publishers"].get(publisher, {}).get("keys", [])
        return pinned

    def _store(self, agent: str, keys: list[JWK]) -> None:
        private = [json.loads(key.export_private()) for key in keys]
        self._secrets[agent]["signing-key"] = json.dumps({"keys": private} if len(private) > 1 else private[0])
        self._save_secrets()

    def _save_trust(self) -> None:
        bootstrap.write(self._project.local / "trust.json", json.dumps(self._trust, indent=2))
        self._secrets["trust"] = {"publishers": json.dumps(self._trust)}
        self._save_secrets()

    def _save_secrets(self) -> None:
        bootstrap.write(self._project.local / "secrets.json", json.dumps(self._secrets, indent=2))


def read_public(path: Path, kid: str, agents: list[str]) -> list[dict[str, Any]]:
    """The public keys in a file: a JWK, a JWK Set, or PEM, which needs a `kid`; for these agents' cards, or all.

    Raises ConfigurationError for anything else, and for a private key.
    """
    try:
        text = path.read_bytes()
        if text.lstrip().startswith(b"{"):
            content = json.loads(text)
            found = list(content.get("keys", [content]))
        else:
            found = [JWK.from_pem(text).export(as_dict=True)]
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read: {error.strerror}.") from None
    except (JWException, *NOT_JSON):
        raise ConfigurationError(f"{path} holds no public key: it must be a JWK, a JWK Set, or PEM.") from None
    if kid and len(found) > 1:
        raise ConfigurationError(f"{path} holds {len(found)} keys, which have names of their own: leave out --kid.")
    keys = [_public(jwk, path, kid, agents) for jwk in found]
    TrustStore.parse(json.dumps({"publishers": {str(path): {"keys": keys}}}))
    return keys


def _public(jwk: object, path: Path, kid: str, agents: list[str]) -> dict[str, Any]:
    if not isinstance(jwk, dict) or "d" in jwk or "k" in jwk:
        raise ConfigurationError(f"{path} holds a private key, which nobody may give away: ask for the public one.")
    algorithms = {kind: algorithm for algorithm, kind in ALGORITHMS.items()}
    algorithm = jwk.get("alg") or algorithms.get((str(jwk.get("kty")), str(jwk.get("crv"))))
    named = kid or jwk.get("kid")
    if not named:
        raise ConfigurationError(f"The key in {path} has no name: give the one that its signatures bear, by --kid.")
    members = {name: jwk[name] for name in ("kty", "crv", "x", "y") if name in jwk}
    return {**members, "alg": algorithm, "kid": named, **({"agents": agents} if agents else {})}


def thumbprint(jwk: dict[str, Any]) -> str:
    """The SHA-256 thumbprint of a key. RFC 7638. Raises ConfigurationError when it is no key."""
    try:
        return str(JWK(**{name: jwk[name] for name in ("kty", "crv", "x", "y") if name in jwk}).thumbprint())
    except (JWException, *NOT_JSON):
        raise ConfigurationError("That is no public key: it must be EC P-256 or Ed25519.") from None


def confirmed(keys: list[dict[str, Any]], said: str) -> bool:
    """Whether somebody who named a thumbprint named that of each of the keys."""
    return all(hmac.compare_digest(thumbprint(jwk).encode(), said.encode()) for jwk in keys)


def _made(kid: str) -> datetime | None:
    """The day on which a key was made, by its id (`bootstrap.new_signing_key`)."""
    with contextlib.suppress(ValueError):
        return datetime.strptime(kid.split("-")[-2], "%Y%m%d").replace(tzinfo=UTC) if kid.count("-") > 1 else None
    return None


def _key(publisher: str, agent: str, jwk: dict[str, Any], use: Any) -> Key:  # noqa: ANN401 -- one of Key's
    agents = jwk.get("agents")
    return Key(
        publisher,
        agent,
        str(jwk["kid"]),
        thumbprint(jwk),
        _made(str(jwk["kid"])) if agent else None,
        use,
        None if agents is None else tuple(agents),
        {name: jwk[name] for name in ("kty", "crv", "x", "y", "alg", "kid") if name in jwk},
    )
