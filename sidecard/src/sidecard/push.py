"""Push notifications over HTTP (A2A 1.0 §4.3): what a delivery looks like, how it is signed, and how it is verified.

A delivery carries the headers of Standard Webhooks (https://www.standardwebhooks.com): `webhook-id`, the same however
often an event is delivered; `webhook-timestamp`; and, when the configuration's `token` is a signing secret (`whsec_`
and the base64 of 24 to 64 random bytes), `webhook-signature`. A2A has no other field for handing over a secret. Such a
token signs and is never sent; any other is sent as `X-A2A-Notification-Token`. A receiver checks with `verify`.
"""

import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import math
import re
import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

import httpcore
import httpx
from a2a.types import TaskPushNotificationConfig

from sidecard.egress import DestinationRefused, Destinations, Origin, Resolver, SafeBackend
from sidecard.errors import WebhookRejected
from sidecard.telemetry import current_traceparent

SECRET_PREFIX = "whsec_"  # noqa: S105 -- no secret
SECRET_BYTES = range(24, 65)
TOLERANCE_SECONDS = 300.0
TIMEOUT_SECONDS = 15.0
"""For a whole delivery; A2A recommends 10 to 30 (§4.3.3)."""
CONNECT_SECONDS = 5.0
MOST_RESPONSE_BYTES = 4_096
MOST_HEADER_CHARACTERS = 4_096
CONNECTIONS = 64
GONE = 410
_PLAIN = re.compile(r"[\x21-\x7e]+(?: [\x21-\x7e]+)*")


def sign(secret: str, webhook_id: str, timestamp: int, body: bytes) -> str:
    """The signature `v1,…` of a delivery under a `whsec_` secret. Raises ValueError for what is no such secret."""
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(_key(secret), signed, hashlib.sha256).digest()).decode()


def verify(
    headers: Mapping[str, str],
    body: bytes,
    secrets: str | Iterable[str],
    *,
    tolerance: float = TOLERANCE_SECONDS,
    now: float | None = None,
) -> str:
    """Check a delivery that a webhook received, and return its id: deliveries with the same id are the same event.

    Args:
        headers: The request's, in any case.
        body: The request's body, byte for byte as it came.
        secrets: The `whsec_` secrets that are valid now: one, or several while they change.
        tolerance: Seconds that the timestamp may lie in the past or the future, against replays.
        now: UTC in seconds; the clock's by default.

    Raises:
        WebhookRejected: headers are missing, the time is off, or no signature fits. Answer 401, and believe nothing.
        ValueError: one of `secrets` is no secret.
    """
    given = {name.lower(): value for name, value in headers.items()}
    try:
        webhook_id, stamp, signatures = (given[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
    except KeyError as missing:
        raise WebhookRejected(f"the header {missing} is missing: this delivery is not signed") from None
    if not re.fullmatch(r"[0-9]{1,15}", stamp):
        raise WebhookRejected("webhook-timestamp is no time")
    if abs((time.time() if now is None else now) - int(stamp)) > tolerance:
        raise WebhookRejected("webhook-timestamp is too far from now: an old delivery, or a wrong clock")
    known = [secrets] if isinstance(secrets, str) else list(secrets)
    expected = [sign(secret, webhook_id, int(stamp), body).encode() for secret in known]
    offered = [signature.encode() for signature in signatures.split(" ")]
    if not sum(hmac.compare_digest(one, other) for one in expected for other in offered):  # all, whichever fits
        raise WebhookRejected("webhook-signature fits none of the secrets")
    return webhook_id


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(SECRET_PREFIX) or len(key) not in SECRET_BYTES:
        raise ValueError(f"a signing secret is {SECRET_PREFIX} and the base64 of 24 to 64 random bytes")
    return key


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one attempt: `delivered`, `gone` (never again, said the receiver), or else what was wrong."""

    delivered: bool = False
    gone: bool = False
    problem: str = ""
    retry_after: float = 0.0
    """Seconds that the receiver asked to be left alone."""


class Webhooks:
    """Delivers to the webhooks that callers register, as far as the operator lets them.

    It follows no redirect, reads no proxy from the environment, and hardly anything of an answer.
    """

    def __init__(
        self,
        destinations: Destinations,
        *,
        resolve: Resolver | None = None,
        tls: ssl.SSLContext | None = None,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        """`resolve` stands in for DNS, and `tls` for the usual certificate authorities, in tests."""
        self.destinations = destinations
        self._timeout = timeout
        self._backend = SafeBackend(destinations, resolve)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls or httpx.create_ssl_context(),
            max_connections=CONNECTIONS,
            max_keepalive_connections=CONNECTIONS // 4,
            keepalive_expiry=15.0,
            network_backend=self._backend,
        )

    def check(self, config: TaskPushNotificationConfig) -> None:
        """Raises DestinationRefused for where nothing may be sent, ValueError for what can't be sent as asked."""
        self.destinations.check(config.url)
        for name, value in (
            ("token", config.token),
            ("authentication.scheme", config.authentication.scheme),
            ("authentication.credentials", config.authentication.credentials),
        ):
            if value and (len(value) > MOST_HEADER_CHARACTERS or not _PLAIN.fullmatch(value)):
                raise ValueError(f"{name} goes into a header: at most {MOST_HEADER_CHARACTERS} plain characters")
        if config.token.startswith(SECRET_PREFIX):
            _key(config.token)

    async def send(self, config: TaskPushNotificationConfig, webhook_id: str, body: bytes) -> Outcome:
        """Try once to deliver a StreamResponse (ProtoJSON). Raises nothing: what went wrong is the outcome's problem.

        No problem says anything that the caller entrusted to us but the origin: they are logged.
        """
        try:
            origin = self.destinations.check(config.url)
            async with asyncio.timeout(self._timeout):
                return await self._post(origin, config, webhook_id, body)
        except DestinationRefused as error:
            return Outcome(problem=f"refused: {error}")
        except TimeoutError:
            return Outcome(problem=f"{origin} did not answer within {self._timeout:g} s")
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            return Outcome(problem=f"{origin} could not be reached ({type(error).__name__})")
        except Exception as error:  # whatever a stranger's server makes a library raise
            return Outcome(problem=f"{origin} could not be told ({type(error).__name__})")

    async def _post(self, origin: Origin, config: TaskPushNotificationConfig, webhook_id: str, body: bytes) -> Outcome:
        parsed = httpx.URL(config.url)
        target = httpcore.URL(scheme=origin.scheme, host=origin.host.encode(), port=parsed.port, target=parsed.raw_path)
        timeouts = dict.fromkeys(("read", "write", "pool"), self._timeout) | {"connect": CONNECT_SECONDS}
        async with self._pool.stream(
            "POST",
            target,
            headers=_headers(config, webhook_id, int(time.time()), body),
            content=body,
            extensions={"timeout": timeouts},
        ) as response:
            outcome = _outcome(origin, response)
            await _drain(response)  # so that the connection can be used again
            return outcome

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pool.aclose()
        self._backend.close()


def _headers(config: TaskPushNotificationConfig, webhook_id: str, now: int, body: bytes) -> list[tuple[str, str]]:
    headers = {
        "content-type": "application/a2a+json",
        "user-agent": "sidecard",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(now),
    }
    if config.token.startswith(SECRET_PREFIX):
        headers["webhook-signature"] = sign(config.token, webhook_id, now, body)
    elif config.token:
        headers["x-a2a-notification-token"] = config.token
    if config.authentication.scheme and config.authentication.credentials:
        headers["authorization"] = f"{config.authentication.scheme} {config.authentication.credentials}"
    if trace := current_traceparent():
        headers["traceparent"] = trace
    return list(headers.items())


def _outcome(origin: Origin, response: httpcore.Response) -> Outcome:
    if 200 <= response.status < 300:  # noqa: PLR2004 -- the 2xx
        return Outcome(delivered=True)
    if response.status == GONE:
        return Outcome(gone=True, problem=f"{origin} is gone for good (410)")
    after = next((value for name, value in response.headers if name.lower() == b"retry-after"), b"")
    return Outcome(problem=f"{origin} answered {response.status}", retry_after=_seconds(after.decode("latin-1")))


def _seconds(retry_after: str) -> float:
    """Retry-After in seconds from now: it holds seconds or a date (RFC 9110 §10.2.3)."""
    with contextlib.suppress(ValueError):
        seconds = float(retry_after)
        return max(0.0, seconds) if math.isfinite(seconds) else 0.0
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    return max(0.0, (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - time.time())


async def _drain(response: httpcore.Response) -> None:
    left = MOST_RESPONSE_BYTES
    async for chunk in response.aiter_stream():
        left -= len(chunk)
        if left < 0:
            return
