"""One delivery: what is sent, to whom it is not, how it is signed, and what a receiver makes of it."""

import asyncio
import base64
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from a2a.types import AuthenticationInfo, TaskPushNotificationConfig

from sidecard.egress import DestinationRefused, Destinations
from sidecard.errors import WebhookRejected
from sidecard.push import MOST_RESPONSE_BYTES, Webhooks, sign, verify
from sidecard.telemetry import continue_trace
from tests.sidecard.receiver import receiving

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + base64.b64encode(b"x" * 24).decode()
BODY = b'{"statusUpdate":{"taskId":"t"}}'


@pytest.fixture
async def receiver():
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
async def webhooks(receiver):
    webhooks = Webhooks(Destinations.parse(receiver.origin), timeout=2.0)
    yield webhooks
    await webhooks.aclose()


def config(receiver, path="/hook", **fields):
    return TaskPushNotificationConfig(url=receiver.origin + path, **fields)


async def test_a_delivery_is_what_the_specification_says(webhooks, receiver):
    """A POST of the StreamResponse as application/a2a+json, with the token and the credentials, to the whole URL."""
    authentication = AuthenticationInfo(scheme="Bearer", credentials="hush")
    with continue_trace("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"):
        outcome = await webhooks.send(
            config(receiver, "/hook?x=1", token="mine", authentication=authentication), "msg_1", BODY
        )
    assert outcome.delivered
    [(line, headers, body)] = receiver.requests
    assert (line, body) == ("POST /hook?x=1 HTTP/1.1", BODY)
    assert headers["content-type"] == "application/a2a+json"
    assert headers["host"] == receiver.origin.removeprefix("http://")
    assert headers["authorization"] == "Bearer hush"
    assert headers["x-a2a-notification-token"] == "mine"
    assert headers["webhook-id"] == "msg_1"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 5
    assert headers["traceparent"].startswith("00-0af7651916cd43dd8448eb211c80319c-")
    assert "webhook-signature" not in headers


async def test_a_delivery_signed_with_the_configurations_secret_verifies(webhooks, receiver):
    """The secret itself is not sent along; the receiver's check gives the delivery's id."""
    await webhooks.send(config(receiver, token=SECRET), "msg_1", BODY)
    [(_, headers, body)] = receiver.requests
    assert verify(headers, body, SECRET) == "msg_1"
    assert verify({name.upper(): value for name, value in headers.items()}, body, [OTHER, SECRET]) == "msg_1"
    assert SECRET not in str(headers)


def test_signatures_are_those_of_standard_webhooks():
    """The example that its libraries test with."""
    signature = sign(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


SIGNED = {"webhook-id": "msg_1", "webhook-timestamp": "1000", "webhook-signature": sign(SECRET, "msg_1", 1000, BODY)}


def test_one_signature_that_fits_is_enough():
    """While secrets change a delivery may carry several, also of kinds that we don't know."""
    several = SIGNED | {"webhook-signature": f"v1a,xyz v1,AAAA {SIGNED['webhook-signature']}"}
    assert verify(several, BODY, SECRET, now=1300) == "msg_1"


@pytest.mark.parametrize(
    ("headers", "body", "secrets", "now"),
    [
        (SIGNED, BODY, OTHER, 1000),
        (SIGNED, BODY, [], 1000),
        (SIGNED, BODY + b" ", SECRET, 1000),
        (SIGNED, BODY, SECRET, 1301),
        (SIGNED, BODY, SECRET, 699),
        (SIGNED | {"webhook-id": "msg_2"}, BODY, SECRET, 1000),
        (SIGNED | {"webhook-timestamp": "1001"}, BODY, SECRET, 1000),
        (SIGNED | {"webhook-timestamp": "1e3"}, BODY, SECRET, 1000),
        (SIGNED | {"webhook-signature": SIGNED["webhook-signature"].replace("v1,", "v2,")}, BODY, SECRET, 1000),
        (SIGNED | {"webhook-signature": ""}, BODY, SECRET, 1000),
        (SIGNED | {"webhook-signature": "v1,é"}, BODY, SECRET, 1000),
        ({}, BODY, SECRET, 1000),
        *[({k: v for k, v in SIGNED.items() if k != name}, BODY, SECRET, 1000) for name in SIGNED],
    ],
)
def test_what_was_altered_is_old_or_is_not_signed_is_rejected(headers, body, secrets, now):
    """By another secret or none, another body, id or time, outside the tolerance, or with a header missing."""
    with pytest.raises(WebhookRejected):
        verify(headers, body, secrets, now=now)


@pytest.mark.parametrize(
    "secret", ["", "hush", "whsec_", "whsec_!!!!", "whsec_" + base64.b64encode(b"x" * 23).decode()]
)
def test_a_weak_secret_is_no_secret(secret):
    """Neither to sign nor to verify with."""
    with pytest.raises(ValueError, match="whsec_"):
        verify(SIGNED, BODY, secret, now=1000)


async def test_redirects_are_not_followed(webhooks, receiver):
    """Whoever may be sent to has no say in where else."""
    receiver.answers = [b"HTTP/1.1 307 X\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n"]
    outcome = await webhooks.send(config(receiver), "msg_1", BODY)
    assert not outcome.delivered
    assert "307" in outcome.problem
    assert len(receiver.requests) == 1


async def test_private_addresses_are_not_connected_to(receiver):
    """A public name that leads to this machine is refused at the moment of connecting."""

    async def rebound(host, port):
        return ["127.0.0.1"]

    port = receiver.origin.rpartition(":")[2]
    webhooks = Webhooks(Destinations.parse("public"), resolve=rebound)
    outcome = await webhooks.send(TaskPushNotificationConfig(url=f"https://example.org:{port}/"), "msg_1", BODY)
    await webhooks.aclose()
    assert "refused" in outcome.problem
    assert receiver.connections == 0


async def test_what_the_operator_no_longer_allows_is_not_sent(receiver):
    """Whatever was allowed when the webhook was registered."""
    port = receiver.origin.rpartition(":")[2]
    webhooks = Webhooks(Destinations.parse(f"https://127.0.0.1:{port}"))
    outcome = await webhooks.send(config(receiver), "msg_1", BODY)
    await webhooks.aclose()
    assert "operator" in outcome.problem
    assert receiver.connections == 0


async def test_the_environments_proxies_are_not_used(webhooks, receiver, monkeypatch):
    """Else what is checked here would be connected to by somebody else."""
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert (await Webhooks(Destinations.parse(receiver.origin)).send(config(receiver), "msg_1", BODY)).delivered


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", (True, False, 0)),
        (b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n", (False, True, 0)),
        (b"HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n", (False, False, 0)),
        (b"HTTP/1.1 503 X\r\nretry-after: 120\r\ncontent-length: 0\r\n\r\n", (False, False, 120)),
        (b"HTTP/1.1 429 X\r\nRetry-After: -5\r\ncontent-length: 0\r\n\r\n", (False, False, 0)),
        (b"HTTP/1.1 429 X\r\nRetry-After: nan\r\ncontent-length: 0\r\n\r\n", (False, False, 0)),
        (b"HTTP/1.1 429 X\r\nRetry-After: soon\r\ncontent-length: 0\r\n\r\n", (False, False, 0)),
        (b"nonsense\r\n\r\n", (False, False, 0)),
    ],
)
async def test_what_an_answer_means(webhooks, receiver, answer, outcome):
    """2xx is delivered, 410 means never again, all else is tried again, when the receiver likes."""
    receiver.answers = [answer]
    given = await webhooks.send(config(receiver), "msg_1", BODY)
    assert (given.delivered, given.gone, given.retry_after) == outcome
    assert bool(given.problem) != given.delivered


async def test_retry_after_may_be_a_date(webhooks, receiver):
    """As RFC 9110 has it."""
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    receiver.answers = [f"HTTP/1.1 503 X\r\nretry-after: {moment}\r\ncontent-length: 0\r\n\r\n".encode()]
    assert 90 < (await webhooks.send(config(receiver), "msg_1", BODY)).retry_after <= 100


async def test_little_of_an_answer_is_read_and_connections_are_used_again(webhooks, receiver):
    """A short answer leaves the connection open; an endless one does not keep us."""
    for _ in range(3):
        assert (await webhooks.send(config(receiver), "msg_1", BODY)).delivered
    assert receiver.connections == 1
    receiver.answers = [b"HTTP/1.1 200 OK\r\ncontent-length: 9000000\r\n\r\n" + b"x" * (MOST_RESPONSE_BYTES + 1)]
    async with asyncio.timeout(1):
        assert (await webhooks.send(config(receiver), "msg_1", BODY)).delivered


async def test_a_receiver_that_never_answers_costs_its_time_only(receiver):
    """Also one that drips: the time is for the whole delivery."""
    receiver.answers = [b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nx"]
    webhooks = Webhooks(Destinations.parse(receiver.origin), timeout=0.2)
    outcome = await webhooks.send(config(receiver), "msg_1", BODY)
    await webhooks.aclose()
    assert "within 0.2 s" in outcome.problem


async def test_problems_name_the_origin_and_nothing_else(webhooks, receiver):
    """They are logged: paths, tokens and credentials are the caller's secrets."""
    authentication = AuthenticationInfo(scheme="Bearer", credentials="hush")
    sent = config(receiver, "/hush?key=hush", token="hush", authentication=authentication)
    for answer in (b"HTTP/1.1 500 hush\r\ncontent-length: 4\r\n\r\nhush", b"hush\r\n\r\n"):
        receiver.answers = [answer]
        problem = (await webhooks.send(sent, "msg_1", BODY)).problem
        assert receiver.origin in problem
        assert "hush" not in problem


@pytest.mark.parametrize(
    "fields",
    [
        {"token": "a\r\nx: y"},
        {"token": "ü"},
        {"token": " a"},
        {"token": "x" * 5000},
        {"token": "whsec_short"},
        {"authentication": AuthenticationInfo(scheme="Bea\nrer", credentials="x")},
        {"authentication": AuthenticationInfo(scheme="Bearer", credentials="x\r\ny: z")},
    ],
)
def test_what_is_no_header_is_refused_beforehand(fields):
    """Nobody writes headers of their own, and no weak secret is taken for a good one."""
    webhooks = Webhooks(Destinations.parse("public"))
    with pytest.raises(ValueError, match=r"header|whsec_"):
        webhooks.check(TaskPushNotificationConfig(url="https://example.org/", **fields))
    with pytest.raises(DestinationRefused):
        webhooks.check(TaskPushNotificationConfig(url="https://10.0.0.1/"))
