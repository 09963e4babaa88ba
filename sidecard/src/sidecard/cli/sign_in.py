"""Signing a person in at an OpenID provider: with a browser on this machine, or with a code on another device.

Authorization code with PKCE and a loopback redirect (RFC 6749, 7636, 8252), whose answer is believed only with the
`state` that it was asked with, and from the issuer that it was asked of (RFC 9207); device code (RFC 8628). The token
is for one agent (RFC 8707); who it is of is read from the ID token (OpenID Connect Core §3.1.3.7).
"""

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import OAuth2Client
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jwt import ClaimsOption, JWTClaimsRegistry

from sidecard.callers.addresses import is_safe
from sidecard.callers.discovery import Metadata
from sidecard.cli.redirect import Redirect
from sidecard.cli.sessions import AgentToken
from sidecard.errors import SignInFailed

PATIENCE = 300.0
"""Seconds that a person has to sign in."""
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
SLOW_DOWN_SECONDS = 5
SHORT_LIVED = 60
"""Seconds that a token lives whose issuer does not say."""
SKEW_SECONDS = 60
MOST_SECONDS = 365 * 86_400
_OF_ID_TOKENS = ["RS256", "PS256", "ES256", "EdDSA", "Ed25519"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of an issuer: a token for the agent that calls itself `resource`, with these scopes."""

    metadata: Metadata
    keys: KeySet
    client: str
    resource: str
    scopes: tuple[str, ...]
    hint: str = ""

    @property
    def scope(self) -> str:
        """With what makes the answer say who signed in, and last longer than a token."""
        lasting = ("offline_access",) if self.metadata.supports("scopes_supported", "offline_access") else ()
        return " ".join(("openid", *lasting, *self.scopes))

    def endpoint(self, name: str) -> str:
        """An address of the issuer. Raises SignInFailed when it has none."""
        url = self.metadata.endpoint(name)
        if not url:
            raise SignInFailed(f"{self.metadata.issuer} has no {name}: this way to sign in is not offered there.")
        return url


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who has signed in, and the token that came of it."""

    subject: str
    token: AgentToken


def by_browser(asked: Asked, show: Callable[[str], object], patience: float = PATIENCE) -> SignedIn:
    """Sign in with a browser on this machine; `show` is given the address to open in it. Raises SignInFailed."""
    authorize, verifier, nonce = asked.endpoint("authorization_endpoint"), _secret(), _secret()
    with Redirect() as redirect, _client(asked, redirect.uri) as client:
        hint = {"login_hint": asked.hint} if asked.hint else {}
        url, state = client.create_authorization_url(
            authorize,
            state=_secret(),
            code_verifier=verifier,
            nonce=nonce,
            scope=asked.scope,
            resource=asked.resource,
            **hint,
        )
        show(url)
        answer = redirect.wait(state, patience)
        _check_issuer(answer, asked.metadata)
        if "error" in answer:
            raise _refused(answer)
        if "code" not in answer:
            raise SignInFailed("The issuer answered without a code: sign in again.")
        told = _token(
            client, asked, grant_type="authorization_code", code=answer["code"], code_verifier=verifier,
            redirect_uri=redirect.uri,
        )  # fmt: skip
    return SignedIn(_subject(told, asked, nonce), _agent_token(told, asked))


def by_device(
    asked: Asked, show: Callable[[str, str, str], object], sleep: Callable[[float], object] = time.sleep
) -> SignedIn:
    """Sign in on another device; `show` gets the address to open there, the code to type, and both as one address.

    Raises SignInFailed.
    """
    form = {"client_id": asked.client, "scope": asked.scope, "resource": asked.resource}
    with _client(asked) as client:
        device = _post(client, asked.endpoint("device_authorization_endpoint"), form)
        page, complete = str(device.get("verification_uri", "")), str(device.get("verification_uri_complete", ""))
        code, user_code = str(device.get("device_code", "")), str(device.get("user_code", ""))
        if not code or not user_code.isprintable() or not is_safe(page) or (complete and not is_safe(complete)):
            raise SignInFailed("The issuer does not say where to sign in, or not at a safe address.")
        show(page, user_code, complete)
        interval = _seconds(device.get("interval"), 5.0)
        deadline = time.monotonic() + min(_seconds(device.get("expires_in"), PATIENCE), 3_600.0)
        while time.monotonic() < deadline:
            sleep(interval)
            try:
                told = _token(client, asked, grant_type=DEVICE_GRANT, device_code=code)
            except _Refused as refusal:
                if refusal.error not in {"authorization_pending", "slow_down"}:
                    raise
                interval += SLOW_DOWN_SECONDS if refusal.error == "slow_down" else 0
            else:
                return SignedIn(_subject(told, asked, None), _agent_token(told, asked))
    raise SignInFailed("Nobody has signed in with the code in time: try again.")


def refreshed(asked: Asked, token: AgentToken) -> AgentToken:
    """A new token for one that has expired. Raises SignInFailed when the issuer wants the person again."""
    if not token.refresh_token:
        raise SignInFailed("The session has ended.")
    with _client(asked) as client:
        told = _token(client, asked, grant_type="refresh_token", refresh_token=token.refresh_token)
    return _agent_token({"refresh_token": token.refresh_token, "scope": token.scope} | told, asked)


def ended(asked: Asked, token: AgentToken) -> None:
    """Tell the issuer that a session is over (RFC 7009), if it wants to know. Raises SignInFailed."""
    url = asked.metadata.endpoint("revocation_endpoint")
    if url and token.refresh_token:
        with _client(asked) as client, _in_our_words():
            client.revoke_token(url, token=token.refresh_token, token_type_hint="refresh_token")  # noqa: S106


class _Refused(SignInFailed):
    """The issuer refuses, by the name that RFC 6749 §5.2 gives to it."""

    def __init__(self, error: str, words: str) -> None:
        super().__init__(words)
        self.error = error


def _client(asked: Asked, redirect_uri: str = "") -> OAuth2Client:
    """A public client: it has no secret, as nothing on a person's machine is one (RFC 8252 §8.5)."""
    return OAuth2Client(
        client_id=asked.client,
        redirect_uri=redirect_uri or None,
        token_endpoint_auth_method="none",  # noqa: S106 -- a method's name
        code_challenge_method="S256",
        timeout=10.0,
    )


def _token(client: OAuth2Client, asked: Asked, **form: str) -> dict[str, Any]:
    """The token endpoint's answer. Raises _Refused, SignInFailed."""
    with _in_our_words():
        told = client.fetch_token(asked.endpoint("token_endpoint"), resource=asked.resource, **form)
        return dict(told)


def _post(client: OAuth2Client, url: str, form: Mapping[str, str]) -> dict[str, Any]:
    with _in_our_words():
        answer = client.request("POST", url, data=form, withhold_token=True, headers={"Accept": "application/json"})
        told = answer.json()
        if not isinstance(told, dict):
            raise SignInFailed(f"{url} answers no JSON object.")
        if "error" in told:
            raise _refused({name: str(value) for name, value in told.items()})
        answer.raise_for_status()
        return told


@contextlib.contextmanager
def _in_our_words() -> Iterator[None]:
    try:
        yield
    except OAuthError as error:
        raise _refused({"error": error.error or "", "error_description": error.description or ""}) from None
    except httpx2.HTTPError as error:
        raise SignInFailed(f"The issuer does not answer as it should ({error or type(error).__name__}).") from error
    except ValueError as error:
        raise SignInFailed("The issuer answers no JSON.") from error


def _refused(answer: Mapping[str, str]) -> _Refused:
    """In the issuer's words, as far as they can be shown."""
    told = answer.get("error_description") or answer["error"]
    words = "".join(character for character in told if character.isprintable())[:300]
    return _Refused(answer["error"], f"The issuer refuses: {words or 'it does not say why'}.")


def _check_issuer(answer: Mapping[str, str], metadata: Metadata) -> None:
    """RFC 9207 §2.4: an answer of another issuer would have our code shown to that one, or its code to ours."""
    promised = metadata.document.get("authorization_response_iss_parameter_supported") is True
    if answer.get("iss", "" if promised else metadata.issuer) != metadata.issuer:
        raise SignInFailed("The answer is not of the issuer that was asked: sign in again, from here.")


def _subject(told: Mapping[str, Any], asked: Asked, nonce: str | None) -> str:
    """Whom the ID token names, once it is proven to be of this issuer, for this client, and for this sign-in."""
    try:
        decoded = jwt.decode(str(told.get("id_token", "")), asked.keys, algorithms=_OF_ID_TOKENS)
        expected: dict[str, ClaimsOption] = {
            "iss": {"essential": True, "value": asked.metadata.issuer},
            "aud": {"essential": True, "value": asked.client},
            "exp": {"essential": True},
            "sub": {"essential": True},
        }
        if nonce is not None:
            expected["nonce"] = {"essential": True, "value": nonce}
        JWTClaimsRegistry(None, SKEW_SECONDS, **expected).validate(decoded.claims)
    except (JoseError, ValueError) as error:
        raise SignInFailed(f"The issuer does not prove who signed in: its ID token is wrong ({error}).") from None
    if decoded.claims.get("azp", asked.client) != asked.client or decoded.claims["aud"] not in (
        asked.client,
        [asked.client],
    ):
        raise SignInFailed("The issuer's ID token is for others, too: it proves nothing here.")
    return str(decoded.claims["sub"])


def _agent_token(told: Mapping[str, Any], asked: Asked) -> AgentToken:
    token = told.get("access_token")
    if not isinstance(token, str) or not token or str(told.get("token_type", "")).lower() != "bearer":
        raise SignInFailed("The issuer gives no bearer token.")
    return AgentToken(
        access_token=token,
        expires_at=time.time() + min(_seconds(told.get("expires_in"), SHORT_LIVED), MOST_SECONDS),
        scope=str(told.get("scope") or " ".join(asked.scopes)),
        refresh_token=str(told.get("refresh_token") or ""),
    )


def _seconds(told: object, default: float) -> float:
    return float(told) if isinstance(told, int | float) and told > 0 else default


def _secret() -> str:
    return secrets.token_urlsafe(32)
