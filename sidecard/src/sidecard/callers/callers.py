"""The callers that one agent knows, each by what it can prove."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from sidecard.callers.caller import Caller, Presented
from sidecard.callers.certificates import read_certificate
from sidecard.callers.claims import Claims
from sidecard.callers.denied import Denied, mark_of
from sidecard.callers.file import CallersFile, Rights
from sidecard.callers.tokens import BearerTokens, Token
from sidecard.refusals import Forbidden, Unauthenticated


class Callers:
    """The callers that one agent knows. Whoever is not listed is nobody."""

    def __init__(
        self,
        agent: str,
        file: CallersFile,
        *,
        app_token: str,
        api_keys: Mapping[str, str],
        tokens: BearerTokens | None = None,
        denied: Denied | None = None,
    ) -> None:
        """`api_keys` maps the SHA-256 (hex) of a key to its caller's name; a caller may have several."""
        self._agent, self._grants, self._app_token, self._tokens = agent, file.callers, app_token, tokens
        self._everyone = {name: issuer.everyone for name, issuer in file.issuers.items() if issuer.everyone}
        self._denied = denied or Denied()
        self._urls = {name: issuer.url for name, issuer in file.issuers.items()}
        holders = {name: grant.token for name, grant in file.callers.items() if grant.token}
        self._clients = {(held.issuer, held.client): name for name, held in holders.items() if held.client}
        self._people = {(held.issuer, held.subject): name for name, held in holders.items() if held.subject}
        listed = file.callers.items()
        self._by_app_id = {
            name: self._caller(name, f"sidecar:{name}", f"app:{name}") for name, grant in listed if grant.sidecar
        }
        self._by_certificate = {
            known_by: self._caller(name, "") for name, grant in listed for known_by in grant.certificates
        }
        self._by_key = {
            digest: self._caller(name, f"key:{name}", mark_of(f"key:{digest}"))
            for digest, name in api_keys.items()
            if name in self._grants and self._grants[name].api_key
        }

    async def identify(self, claims: Claims) -> Caller | None:
        """The caller behind what a request claims; None for nobody we know, or somebody who is revoked."""
        caller = await self._proven(claims)
        if caller is None or self._denied.covers(caller.marks):
            return None
        return None if claims.certificate and self._is_denied(claims.certificate) else caller

    async def _proven(self, claims: Claims) -> Caller | None:
        """The caller whose identity the claims prove.

        Through the own sidecar, only the sidecar's word counts. Elsewhere a request presents one credential: of two
        kinds, which counts is what an attacker would like to choose. A certificate counts where nothing else is
        presented: all connections of a client may show it, whoever its requests are by.

        Raises:
            Unauthenticated: a token is refused; the words say why.
            Forbidden: a token is good, but gives no right that its caller holds here.
            Unavailable: a token can't be checked now.
        """
        if claims.came_through_sidecar(self._app_token):
            return self._by_app_id.get(claims.app_id)
        if claims.authorization:
            return None if claims.key else await self._by_token(claims)
        if claims.key:
            return self._by_key.get(hashlib.sha256(claims.key.encode()).hexdigest())
        if claims.certificate:
            return self._certified(claims.certificate)
        return None

    def scopes_of(self, name: str) -> frozenset[str]:
        """What somebody holds at this agent by now; nothing, when not known or revoked.

        People who are not listed are issuer/subject.
        """
        return frozenset() if self._denied.covers((f"caller:{name}",)) else self._granted(self._rights(name))

    def enters(self, name: str, agent: str, scope: str = "") -> bool:
        """Whether somebody may come in at an agent's own door by now, with a right if one is named.

        Then that agent's signed word is taken on what they said there; see `vouching`.
        """
        rights = self._rights(name)
        if rights is None or any(self._denied.covers((f"caller:{one}",)) for one in (name, agent)):
            return False
        held = rights.grants.get(agent, [])
        return scope in held if scope else bool(held)

    def _granted(self, rights: Rights | None) -> frozenset[str]:
        return frozenset(rights.grants.get(self._agent, ())) if rights else frozenset()

    def _rights(self, name: str) -> Rights | None:
        if name in self._grants:
            return self._grants[name]
        issuer, of_issuer, subject = name.partition("/")
        return self._everyone.get(issuer) if of_issuer and (issuer, subject) not in self._people else None

    def _certified(self, der: bytes) -> Caller | None:
        """The caller that a certificate is listed for; none where its names are those of several."""
        certificate = read_certificate(der)
        if certificate is None or not certificate.is_valid():
            return None
        callers = {self._by_certificate[name] for name in certificate.names if name in self._by_certificate}
        caller = callers.pop() if len(callers) == 1 else None
        if caller is None:
            return None
        mark = f"certificate:{certificate.thumbprint}"
        return replace(caller, identity=mark, marks=(*caller.marks, mark))

    def _is_denied(self, der: bytes) -> bool:
        """Whether a certificate is revoked that came beside whatever proves the caller."""
        certificate = read_certificate(der)
        return certificate is not None and self._denied.covers((f"certificate:{certificate.thumbprint}",))

    def _caller(self, name: str, identity: str, *marks: str) -> Caller | None:
        """A known caller; None, where it holds nothing at this agent."""
        rights = self._rights(name)
        scopes = self._granted(rights)
        if rights is None or not scopes:
            return None
        return Caller(
            name=name,
            subject=name,
            scopes=scopes,
            tenants=frozenset({"", *rights.tenants}),
            speaks_for_others=name in self._grants and self._grants[name].speaks_for_others,
            identity=identity,
            marks=(f"caller:{name}", *marks),
        )

    async def _by_token(self, claims: Claims) -> Caller | None:
        scheme, _, sent = claims.authorization.partition(" ")
        if scheme.lower() != "bearer" or self._tokens is None:
            return None
        sent = sent.strip()
        token = await self._tokens.verify(sent, claims.certificate)
        who = (("client", token.client), ("client", token.actor), ("token", token.id))
        marks = (f"{kind}:{said}" for kind, said in who if said)
        caller = self._caller(self._name(token), f"token:{token.issuer}#{token.subject or token.client}", *marks)
        if caller is None:
            raise Unauthenticated("The token is good, but whose it is holds no rights here: see agents/callers.yaml")
        scopes = caller.scopes & token.scopes
        if not scopes:
            raise Forbidden(f"The token gives no right that is held here: ask for {' '.join(sorted(caller.scopes))}")
        presented = Presented(sent, self._urls[token.issuer], token.expires, caller.marks)
        return replace(caller, scopes=scopes, actor=token.actor, narrowed=scopes != caller.scopes, token=presented)

    def _name(self, token: Token) -> str:
        """A client for itself is never taken for a person, though their names in tokens may be the same."""
        if token.is_clients:
            return self._clients.get((token.issuer, token.client), "")
        return self._people.get((token.issuer, token.subject), f"{token.issuer}/{token.subject}")
