"""The ways to be known as a caller of an agent, as its card declares them (A2A 1.0 §4.5): those that can be gone."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from a2a.types import (
    APIKeySecurityScheme,
    AuthorizationCodeOAuthFlow,
    ClientCredentialsOAuthFlow,
    DeviceCodeOAuthFlow,
    HTTPAuthSecurityScheme,
    MutualTlsSecurityScheme,
    OAuth2SecurityScheme,
    OAuthFlows,
    OpenIdConnectSecurityScheme,
    SecurityScheme,
)

from sidecard.callers import KEY_HEADER, CallersFile
from sidecard.callers.discovery import Metadata
from sidecard.callers.file import Rights

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_DEFAULT_GRANTS = ("authorization_code", "implicit")
"""Of an issuer that lists none (RFC 8414 §2)."""


@dataclass(frozen=True, slots=True)
class Way:
    """One scheme, and the scopes at this agent that callers who come by it may hold.

    With `asks_scopes`, a requirement names the scope: it is what a token is asked for with.
    """

    name: str
    scheme: SecurityScheme
    scopes: frozenset[str]
    asks_scopes: bool = False


def ways_in(
    agent: str, file: CallersFile, metadata: Mapping[str, Metadata], *, certificates: bool = False
) -> list[Way]:
    """The ways to this agent that a caller in the file can go.

    `metadata` is what the issuers say of themselves: of one that could not be asked, only that its tokens are taken is
    declared. `certificates` says whether the agent asks for those of its clients.
    """
    ways = [*_ways_of_ours(agent, file, certificates=certificates), *_ways_by_token(agent, file, metadata)]
    return [way for way in ways if way.scopes]


def _held(agent: str, grants: Iterable[Rights]) -> frozenset[str]:
    return frozenset(scope for grant in grants for scope in grant.grants.get(agent, ()))


def _ways_of_ours(agent: str, file: CallersFile, *, certificates: bool) -> Iterator[Way]:
    callers = file.callers.values()
    mesh = MutualTlsSecurityScheme(description="Inside the mesh: the caller's Dapr identity.")
    yield Way("sidecar", SecurityScheme(mtls_security_scheme=mesh), _held(agent, (c for c in callers if c.sidecar)))
    key = APIKeySecurityScheme(
        location="header", name=KEY_HEADER, description="Outside the mesh: a key that the agent's owner gave out."
    )
    yield Way("apiKey", SecurityScheme(api_key_security_scheme=key), _held(agent, (c for c in callers if c.api_key)))
    if certificates:
        listed = MutualTlsSecurityScheme(
            description="Outside the mesh: a client certificate that the agent's owner has listed."
        )
        held = _held(agent, (c for c in callers if c.certificates))
        yield Way("mutualTLS", SecurityScheme(mtls_security_scheme=listed), held)


def _ways_by_token(agent: str, file: CallersFile, metadata: Mapping[str, Metadata]) -> Iterator[Way]:
    of_all: frozenset[str] = frozenset()
    by_issuer: list[Way] = []
    for name, issuer in file.issuers.items():
        theirs = [(c.token, c) for c in file.callers.values() if c.token and c.token.issuer == name]
        clients = _held(agent, (caller for holder, caller in theirs if holder.client))
        people = _held(agent, (caller for holder, caller in theirs if holder.subject))
        people |= _held(agent, [issuer.everyone] if issuer.everyone else [])
        of_all |= clients | people
        if name in metadata:
            by_issuer += _issuer_ways(agent, name, metadata[name], clients, people)
    token = HTTPAuthSecurityScheme(
        scheme="Bearer", bearer_format="JWT", description="Outside the mesh: an access token (RFC 9068) for this agent."
    )
    yield Way("bearer", SecurityScheme(http_auth_security_scheme=token), of_all, asks_scopes=True)
    yield from by_issuer


def _issuer_ways(
    agent: str, issuer: str, told: Metadata, clients: frozenset[str], people: frozenset[str]
) -> Iterator[Way]:
    """How a token is got there: OpenID Connect, and each OAuth flow that the issuer supports."""
    token, device = told.endpoint("token_endpoint"), told.endpoint("device_authorization_endpoint")
    authorization = told.endpoint("authorization_endpoint")

    def oauth(flow: str, flows: OAuthFlows, scopes: frozenset[str]) -> Way:
        scheme = OAuth2SecurityScheme(flows=flows, oauth2_metadata_url=told.url)
        return Way(f"{issuer}-{flow}", SecurityScheme(oauth2_security_scheme=scheme), scopes, asks_scopes=True)

    def named(scopes: frozenset[str]) -> dict[str, str]:
        return dict.fromkeys(sorted(scopes), f"at {agent}")

    if told.is_openid:
        openid = OpenIdConnectSecurityScheme(open_id_connect_url=told.url)
        scheme = SecurityScheme(open_id_connect_security_scheme=openid)
        yield Way(issuer, scheme, clients | people, asks_scopes=True)
    if token and told.supports("grant_types_supported", "client_credentials", _DEFAULT_GRANTS):
        credentials = ClientCredentialsOAuthFlow(token_url=token, scopes=named(clients))
        yield oauth("client", OAuthFlows(client_credentials=credentials), clients)
    if token and authorization and told.supports("code_challenge_methods_supported", "S256"):
        code = AuthorizationCodeOAuthFlow(
            authorization_url=authorization, token_url=token, scopes=named(people), pkce_required=True
        )
        yield oauth("code", OAuthFlows(authorization_code=code), people)
    if token and device and told.supports("grant_types_supported", DEVICE_GRANT, _DEFAULT_GRANTS):
        codes = DeviceCodeOAuthFlow(device_authorization_url=device, token_url=token, scopes=named(people))
        yield oauth("device", OAuthFlows(device_code=codes), people)
