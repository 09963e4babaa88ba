"""What callers can make an agent connect to, and what others can make a receiver of its webhooks believe: nothing."""

import asyncio
import base64
import contextlib
import itertools
import socket

import httpcore
import httpx
import pytest
from a2a.types import TaskPushNotificationConfig
from pydantic import BaseModel

from sidecard import Agent, Task, egress, push
from sidecard.agent import File
from sidecard.egress import DestinationRefused, Destinations
from sidecard.errors import AgentUnavailable, CardRejected, WebhookRejected
from sidecard.foreign import fetch_foreign
from sidecard.outbound import Outbound
from sidecard.push import Webhooks, sign, verify
from sidecard.testing import MemoryStore, served
from sidecard.trust import TrustStore
from tests.sidecard.receiver import receiving

METADATA, HERE = "169.254.169.254", "127.0.0.1"
HOSTS = [
    METADATA, HERE, "0.0.0.0", "0", "127.1", "127.0.1", "2130706433", "2852039166", "0x7f000001", "0x7f.0.0.1",
    "0x7f.1", "0177.0.0.1", "017700000001", "0251.0376.0251.0376", "0xa9fea9fe", "0xa9.0xfe.0xa9.0xfe",
    "169.254.43518", "0127.0.0.1", "127.0.0.1.", "127.000.000.001", "169.254.169.254.", "localhost", "localhost.",
    "LOCALHOST", "ip6-localhost", "[::]", "[::1]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
    "[::ffff:169.254.169.254]", "[0:0:0:0:0:ffff:a9fe:a9fe]", "[::127.0.0.1]", "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2002:a9fe:a9fe::1]",
    "[2001:0:7f00:1::]", "[fe80::1]", "[fe80::1%25lo]", "[fc00::1]", "[fd00:ec2::254]", "[ff02::1]", "[::1%25lo]",
    "100.100.100.200", "168.63.129.16", "192.0.0.192", "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1",
    "198.18.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1", "\uff11\uff12\uff17.0.0.1",
    "127\u30020\u30020\u30021", "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460", "\u24dbocalhost", "loc\xadalhost",
    "localho\u017ft", "127.0.0.1%00.example.org", "127.0.0.1%2eexample.org", "%31%32%37.0.0.1",
    "example.org@127.0.0.1", "example.org:x@127.0.0.1", "example.org%40127.0.0.1", "example.org\\@127.0.0.1",
    "127.0.0.1\\.example.org", "127.0.0.1 .example.org", "127.0.0.1\t", "127.0.0.1#.example.org",
    "127.0.0.1?.example.org", "127.0.0.1;.example.org", "[127.0.0.1]", "[::1].example.org", "xn--localhost-",
    "127.0.0.1:80", "127.0.0.1:00443", "127.0.0.1:0x50", "127.0.0.1:+443", "127.0.0.1:443@example.org",
    "private.test", "both.test", "mapped.test", "nat64.test", "zone.test", "turns.test", "here.test",
    "PRIVATE.test.", "metadata.google.internal",
]  # fmt: skip
"""Hosts of URLs, as whoever wants in would write them; names under .test resolve to what NAMES says, in turn."""
NAMES = {
    "private.test": [["10.0.0.1"]],
    "both.test": [["93.184.216.34", METADATA]],
    "mapped.test": [["::ffff:127.0.0.1"]],
    "nat64.test": [["64:ff9b::7f00:1"]],
    "zone.test": [["fe80::1%lo"]],
    "turns.test": [["93.184.216.34"], [HERE], [METADATA]],
    "here.test": [[HERE]],
    "metadata.google.internal": [[METADATA]],
}
PUBLIC = "93.184.216.34"


class Network:
    """Names by NAMES, numbers by the real resolver, which then asks nobody; `reached` is what was connected to."""

    def __init__(self):
        self.reached = []
        self.answers = {name: list(answers) for name, answers in NAMES.items()}

    async def resolve(self, host, port):
        if answers := self.answers.get(host.rstrip(".").lower()):
            return answers.pop(0) if len(answers) > 1 else answers[0]
        loop = asyncio.get_running_loop()
        flags = 0 if host.rstrip(".").lower() in {"localhost", "ip6-localhost"} else socket.AI_NUMERICHOST
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
        return [str(address[0]) for *_, address in found]

    async def connect_tcp(self, host, port, timeout=None, local_address=None, socket_options=None):  # noqa: ASYNC109
        self.reached.append(host)
        raise httpcore.ConnectError("nobody is there")


async def send_to(urls, setting="public", times=3):
    """The addresses that webhooks for these URLs were connected to, but for the public one; and how many were tried."""
    network = Network()
    webhooks = Webhooks(Destinations.parse(setting), resolve=network.resolve)
    webhooks._backend._connect = network
    try:
        for url in urls:
            for _ in range(times):
                await webhooks.send(TaskPushNotificationConfig(url=url), "msg_1", b"{}")
    finally:
        await webhooks.aclose()
    return [address for address in network.reached if address != PUBLIC]


def urls():
    """Every host in every form of URL that has one."""
    forms = (
        "https://{}/", "http://{}/", "https://{}:80/latest/meta-data", "https://{}:3500/v1.0/secrets", "HTTPS:{}",
        "//{}/", "https:/{}", "https:///{}/", "ftp://{}/", "gopher://{}/_x", "file://{}/etc/passwd", "unix://{}/x",
        "https+unix://{}/", "https://example.org@{}/", "\thttps://{}/", "https://{}/%0d%0ahost:%20x", "dict://{}:11211/",
    )  # fmt: skip
    return [form.format(host) for form, host in itertools.product(forms, HOSTS)]


async def test_no_webhook_is_sent_to_what_is_not_public():
    """Addresses in any notation or disguise, names that resolve there, then or later, users, ports, schemes."""
    tried = urls()
    reached = await send_to(tried)
    print(f"{len(tried)} webhook addresses, three times each: {len(reached)} connections to what is not public")
    assert reached == []
    assert len(tried) > 1_000


async def test_without_the_check_of_addresses_they_are_reached(monkeypatch):
    """What that is worth."""
    monkeypatch.setattr(egress, "check_address", lambda _: None)
    reached = set(await send_to(urls(), times=3))
    assert {METADATA, HERE, "10.0.0.1", "::1", "::ffff:7f00:1", "64:ff9b::7f00:1"} <= reached


async def fetch_cards(urls, times=3):
    """The addresses that agents' cards at these URLs were asked for at, but for the public one; how many were tried.

    As the registry does when it enrols an agent, and every caller of one: whoever names the address chooses it.
    """
    network, tried = Network(), 0
    outbound = Outbound(Destinations.parse("public", "SIDECARD_FOREIGN"), resolve=network.resolve)
    outbound._backend._connect = network
    async with outbound.client() as client:
        for url in urls:
            for _ in range(times):
                tried += 1
                with contextlib.suppress(AgentUnavailable, CardRejected, DestinationRefused):
                    await fetch_foreign(client, url, TrustStore({}))
    await outbound.aclose()
    return [address for address in network.reached if address != PUBLIC], tried


async def test_no_card_is_fetched_from_what_is_not_public():
    """In the same disguises; each is refused in our words, and by no other error."""
    reached, tried = await fetch_cards(urls())
    print(f"{tried} fetches of cards: {len(reached)} connections to what is not public")
    assert reached == []
    assert tried > 3_000


async def test_without_the_check_of_addresses_cards_are_fetched_there(monkeypatch):
    """What that is worth."""
    monkeypatch.setattr(egress, "check_address", lambda _: None)
    reached, _ = await fetch_cards(urls())
    assert {METADATA, HERE, "10.0.0.1", "::1", "::ffff:7f00:1", "64:ff9b::7f00:1"} <= set(reached)


async def test_an_allowed_origin_allows_nothing_like_it():
    """Not its neighbours, subdomains, ports, schemes, nor what begins or ends with it."""
    allowed = "http://127.0.0.1:9000"
    others = ["http://127.0.0.1:9001/", "https://127.0.0.1:9000/", "http://127.0.0.1:9000@10.0.0.1/", "http://127.0.0.1/",
              "http://127.0.0.1:9000.example.org/", "http://localhost:9000/", "http://2130706433:9000/", "http://127.1:9000/",
              "http://[::ffff:127.0.0.1]:9000/", "http://x.127.0.0.1:9000/", "http://10.0.0.1:9000/?http://127.0.0.1:9000/",
              "http://10.0.0.1:9000#127.0.0.1:9000"]  # fmt: skip
    assert await send_to(others, allowed) == []
    assert await send_to([f"{allowed}/x"], allowed, times=1) == [HERE]


async def redirect(status, also=False):
    """Connections to where a receiver, which may be sent to, redirects; `also` says whether that may be sent to."""
    async with receiving() as allowed, receiving() as inside:
        webhooks = Webhooks(Destinations.parse(f"{allowed.origin},{inside.origin}" if also else allowed.origin))
        allowed.answers = [f"HTTP/1.1 {status} X\r\nlocation: {inside.origin}/\r\ncontent-length: 0\r\n\r\n".encode()]
        await webhooks.send(TaskPushNotificationConfig(url=f"{allowed.origin}/"), "msg_1", b"{}")
        await webhooks.aclose()
        assert allowed.connections == 1
        return inside.connections


@pytest.mark.parametrize("also", [False, True])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(status, also):
    """A receiver that may be sent to has no say in where else, be it somewhere that may be sent to as well."""
    assert await redirect(status, also) == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_client_that_follows_redirects_would_be_led_inside(status, monkeypatch):
    """What that is worth: the same delivery by a client as many are, which goes where it is told."""

    async def follow(_, __, config, ___, body):
        async with httpx.AsyncClient(follow_redirects=True) as http:
            await http.post(config.url, content=body)
        return push.Outcome(delivered=True)

    monkeypatch.setattr(Webhooks, "_post", follow)
    assert await redirect(status) == 1


agent = Agent(name="shop", version="1", description="Sells.", publisher="Tests")
fetching = Agent(name="shop", version="1", description="Sells.", publisher="Tests")
CALLERS = {"ada": {"api_key": True, "grants": {"shop": ["read"]}}}


class Upload(BaseModel):
    """What the skills take."""

    file: File


@agent.skill(scope="read", idempotent=True)
async def read(sent: Upload, task: Task) -> str:
    """Says what it was sent."""
    return sent.file.url


@fetching.skill(scope="read", idempotent=True)
async def fetch(sent: Upload, task: Task) -> None:
    """Connects to whatever it is told to: what no skill should do."""
    await asyncio.open_connection(httpx.URL(sent.file.url).host, 80)


async def send_files(of, monkeypatch):
    """What an agent looks up or connects to when it is sent files behind these URLs."""
    looked_up = []

    def asked(host, *_, **__):
        looked_up.append(host)
        raise OSError("nobody is there")

    async def connected(_, __, host, *___, **____):
        asked(host)

    async with served(of, MemoryStore(), CALLERS) as desk, desk.http("ada") as client:
        with monkeypatch.context() as patched:
            patched.setattr(socket, "getaddrinfo", asked)
            patched.setattr(asyncio.BaseEventLoop, "create_connection", connected)
            for number, url in enumerate(urls()):
                if number % 16:
                    continue
                part = {"url": url, "mediaType": "text/csv", "filename": "a.csv"}
                message = {"messageId": f"m{number}", "role": "ROLE_USER", "parts": [part]}
                body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message}}
                answer = await client.post("/a2a", json=body)
                assert answer.status_code == 200
    return looked_up


async def test_a_file_behind_a_url_is_not_fetched(monkeypatch):
    """The library hands a skill the URL, and looks nothing up; a skill that fetches it would be seen here."""
    assert await send_files(agent, monkeypatch) == []
    assert METADATA in await send_files(fetching, monkeypatch)


# -- what a receiver believes ----------------------------------------------------------------------------------------

SECRET, OTHER = ("whsec_" + base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))
NOW = 1_800_000_000


class Receiver:
    """As docs/ tells receivers to be: it verifies, and takes each id once."""

    def __init__(self, secrets=SECRET):
        self.secrets = secrets
        self.believed = set()

    def take(self, headers, body, now=NOW):
        """Whether something new was believed."""
        try:
            webhook_id = verify(headers, body, self.secrets, now=now)
        except WebhookRejected:
            return False
        if webhook_id in self.believed:
            return False
        self.believed.add(webhook_id)
        return True


def delivery(number=1, body=b'{"statusUpdate":{"taskId":"t1"}}', secret=SECRET, at=NOW):
    return {
        "webhook-id": f"msg_t1_hook_{number}_0",
        "webhook-timestamp": str(at),
        "webhook-signature": sign(secret, f"msg_t1_hook_{number}_0", at, body),
    }, body


def forge():
    """Deliveries that the agent did not make, or not now, or not so."""
    true, body = delivery()
    second, other = delivery(2, b'{"statusUpdate":{"taskId":"t2"}}')
    signature = true["webhook-signature"]
    yield from ((delivery(secret=OTHER)), (true, body + b"\n"), (true, b""), (true, other), (second, body))
    for position in range(len(body)):
        yield true, body[:position] + bytes([body[position] ^ 1]) + body[position + 1 :]
    for position in range(3, len(signature)):
        swapped = "A" if signature[position] != "A" else "B"
        yield {**true, "webhook-signature": signature[:position] + swapped + signature[position + 1 :]}, body
    unlike = ["", "v1,", "v1", signature[3:], signature.replace("v1,", "v2,"), signature.replace("v1,", "v1a,"), " "]
    unlike += [signature[:-1], signature.upper(), "v1," + "A" * 44, "v1,\x00", f"{signature},x", signature[:20]]
    for value in unlike:
        yield {**true, "webhook-signature": value}, body
    for stamp in (
        "0",
        "-1",
        str(NOW + 1),
        str(NOW - 1),
        f"{NOW}.0",
        f"+{NOW}",
        "",
        "now",
        "1e9",
        "\u0660",
        str(10**20),
        f"{NOW} ",
    ):
        yield {**true, "webhook-timestamp": stamp}, body
    for name in ("", "msg_t2", "msg_t1_hook_1_0 ", "MSG_T1_HOOK_1_0", f"msg_t1_hook_1_0.{NOW}", "msg_t1_hook_1"):
        yield {**true, "webhook-id": name}, body
    yield (
        {**true, "webhook-id": "msg_t1_hook_1_0", "webhook-timestamp": str(NOW)[:5]},
        str(NOW)[5:].encode() + b"." + body,
    )
    for missing in true:
        yield {name: value for name, value in true.items() if name != missing}, body
    for age in (301, 3_600, 86_400, -301, -86_400):
        yield delivery(at=NOW - age)
    empty = sign("whsec_" + base64.b64encode(b"\0" * 32).decode(), true["webhook-id"], NOW, body)
    yield {**true, "webhook-signature": empty}, body


def deceive(receiver):
    """How many of the forgeries are believed, and how many there are."""
    forged, believed = list(forge()), 0
    for headers, body in forged:
        receiver.believed.clear()
        believed += receiver.take(headers, body)
    return believed, len(forged)


def test_no_forged_or_altered_delivery_is_believed():
    """Another secret, each byte of body and signature, other ids and times, old ones; the true one is."""
    believed, tried = deceive(Receiver())
    print(f"{tried} forged or altered deliveries, {believed} believed")
    assert (believed, tried > 100) == (0, True)
    assert Receiver().take(*delivery())


def test_without_signatures_forgeries_are_believed(monkeypatch):
    """What that is worth."""
    monkeypatch.setattr(push.hmac, "compare_digest", lambda *_: True)
    assert deceive(Receiver())[0] > 100


def replay(receiver, seconds, *, forgetful=False):
    """How often a true delivery is believed when it comes again, each of so many seconds later."""
    headers, body = delivery()
    assert receiver.take(headers, body)
    believed = 0
    for second in seconds:
        if forgetful:
            receiver.believed.clear()
        believed += receiver.take(headers, body, now=NOW + second)
    return believed


SOON, LATER = range(-300, 301, 10), range(301, 9_000, 100)


def test_a_delivery_that_is_replayed_is_believed_once():
    """Within the tolerance its id is known; afterwards its time is over: so ids are kept for as long as that."""
    assert replay(Receiver(), SOON) == 0
    assert replay(Receiver(), LATER, forgetful=True) == 0


def test_without_memory_or_tolerance_replays_are_believed(monkeypatch):
    """What each is worth: soon nothing but the memory of its id stops it, and later nothing but the tolerance."""
    assert replay(Receiver(), SOON, forgetful=True) == len(SOON)
    monkeypatch.setattr(push.verify, "__kwdefaults__", {**push.verify.__kwdefaults__, "tolerance": 1e9})
    assert replay(Receiver(), LATER, forgetful=True) == len(LATER)
