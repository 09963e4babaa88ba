"""The callers that one agent knows, each by what it can prove."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from sidecard.callers.caller import Caller
from sidecard.callers.certificates import read_certificate
from sidecard.callers.claims import Claims
from sidecard.callers.file import CallersFile


class Callers:
    """The callers that one agent knows. Whoever is not listed is nobody."""

    def __init__(self, agent: str, file: CallersFile, *, app_token: str, api_keys: Mapping[str, str]) -> None:
        """`api_keys` maps the SHA-256 (hex) of a key to its caller's name; a caller may have several."""
        self._agent, self._grants, self._app_token = agent, file.callers, app_token
        listed = file.callers.items()
        self._by_app_id = {name: self._caller(name, f"sidecar:{name}") for name, grant in listed if grant.sidecar}
        with_key = {name: self._caller(name, f"key:{name}") for name, grant in listed if grant.api_key}
        self._by_certificate = {
            known_by: self._caller(name, "") for name, grant in listed for known_by in grant.certificates
        }
        self._by_key = {digest: with_key[name] for digest, name in api_keys.items() if name in with_key}

    async def identify(self, claims: Claims) -> Caller | None:
        """The caller behind what a request claims, or None.

        Through the own sidecar, only the sidecar's word counts. Elsewhere a request presents one credential: of two
        kinds, which counts is what an attacker would like to choose. A certificate counts where nothing else is
        presented: all connections of a client may show it, whoever its requests are by.
        """
        if claims.came_through_sidecar(self._app_token):
            return self._by_app_id.get(claims.app_id)
        if claims.key and not claims.authorization:
            return self._by_key.get(hashlib.sha256(claims.key.encode()).hexdigest())
        if claims.certificate and not claims.key and not claims.authorization:
            return self._certified(claims.certificate)
        return None

    def scopes_of(self, name: str) -> frozenset[str]:
        """What somebody holds at this agent; nothing, when not listed."""
        grant = self._grants.get(name)
        return frozenset(grant.grants.get(self._agent, ())) if grant else frozenset()

    def _certified(self, der: bytes) -> Caller | None:
        """The caller that a certificate is listed for; none where its names are those of several."""
        certificate = read_certificate(der)
        if certificate is None or not certificate.is_valid():
            return None
        callers = {self._by_certificate[name] for name in certificate.names if name in self._by_certificate}
        caller = callers.pop() if len(callers) == 1 else None
        return replace(caller, identity=f"certificate:{certificate.thumbprint}") if caller else None

    def _caller(self, name: str, identity: str) -> Caller | None:
        """A listed caller; None, where it holds nothing at this agent."""
        grant, scopes = self._grants[name], self.scopes_of(name)
        tenants = frozenset({"", *grant.tenants})
        return Caller(name, name, scopes, tenants, grant.speaks_for_others, identity) if scopes else None
