"""Where callers may have this agent send: public addresses, checked when they are connected to, and allowed origins."""

import ipaddress

import httpcore
import pytest

from sidecard.egress import DestinationRefused, Destinations, Origin, SafeBackend, check_address
from sidecard.errors import ConfigurationError

PRIVATE = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.1",
    "192.0.0.192",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.1.2.3",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:10.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:a00:1::1",
    "2002:808:808::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]
PUBLIC = ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1"]


@pytest.mark.parametrize("address", PRIVATE)
def test_only_public_addresses_are_public(address):
    """Private, shared, local, reserved, multicast, documentation, platforms' own, and IPv4 in any disguise."""
    with pytest.raises(DestinationRefused, match="not a public address"):
        check_address(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are(address):
    """Also where IPv4 is reached through IPv6."""
    check_address(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://example.org/", "not https"),
        ("https://127.0.0.1/", "not a public address"),
        ("https://[::1]/", "not a public address"),
        ("https://[::ffff:192.168.0.1]:8443/", "not a public address"),
        ("https://user:secret@example.org/", "authentication"),
        ("https://user@example.org/", "authentication"),
        ("ftp://example.org/", "not https"),
        ("https:///path", "not https"),
        ("https://x:99999999/", "not https"),
        ("https://x:0/", "not https"),
        ("https://[/", "not https"),
        ("https://a b/", "not https"),
        ("https://[fe80::1%25eth0]/", "not https"),
        ("https://" + "x" * 300, "not https"),
        ("https://\x00/", "not an address"),
        ("//example.org/", "not https"),
    ],
)
def test_what_needs_no_look_up_is_refused_at_once(url, why):
    """By scheme, literal address and form; nothing that the caller wrote besides the origin comes back."""
    with pytest.raises(DestinationRefused, match=why) as refused:
        Destinations.parse("public").check(url)
    assert "secret" not in str(refused.value)


def test_the_setting_says_where():
    """Nowhere; public; origins alone, exactly as they are named, whatever address they have."""
    assert not Destinations.parse("")
    assert Destinations.parse("public").check("https://Example.org:8443/x") == Origin("https", "example.org", 8443)
    only = Destinations.parse("http://127.0.0.1:9000, https://hooks.internal/")
    assert str(only.check("http://127.0.0.1:9000/a?b")) == "http://127.0.0.1:9000"
    assert str(only.check("https://HOOKS.internal:443/a")) == "https://hooks.internal"
    for other in (
        "http://127.0.0.1:9001/",
        "https://127.0.0.1:9000/",
        "http://hooks.internal/",
        "https://example.org/",
    ):
        with pytest.raises(DestinationRefused, match="operator allows"):
            only.check(other)


@pytest.mark.parametrize("setting", ["on", "true", "ftp://x", "https://x/path", "https://u:p@x", "public on"])
def test_a_setting_that_says_nothing_clear_is_refused(setting):
    """Rather than taken for more, or less, than was meant."""
    with pytest.raises(ConfigurationError, match="SIDECARD_WEBHOOKS"):
        Destinations.parse(setting)


class Dns:
    """Names and what they resolve to, in turn; the last answer stays. And what was then connected to."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.connected = []
        self.refuses = set()

    async def resolve(self, host, port):
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    async def connect_tcp(self, host, port, timeout=None, local_address=None, socket_options=None):  # noqa: ASYNC109
        self.connected.append((host, port))
        if host in self.refuses:
            raise httpcore.ConnectError("refused")
        return httpcore.AsyncMockStream([])


def backend(dns, setting="public"):
    return SafeBackend(Destinations.parse(setting), dns.resolve, dns)


async def test_the_connection_goes_to_the_address_that_was_checked():
    """Not to the name, which could be looked up once more."""
    dns = Dns(["93.184.216.34"])
    await backend(dns).connect_tcp("example.org", 443, 1.0)
    assert dns.connected == [("93.184.216.34", 443)]


async def test_a_name_that_changes_its_mind_gains_nothing():
    """DNS rebinding: public when first asked, private the next time; each connection is checked by itself."""
    dns = Dns(["93.184.216.34"], ["127.0.0.1"])
    guarded = backend(dns)
    await guarded.connect_tcp("rebind.example", 443, 1.0)
    with pytest.raises(DestinationRefused):
        await guarded.connect_tcp("rebind.example", 443, 1.0)
    assert dns.connected == [("93.184.216.34", 443)]


@pytest.mark.parametrize("addresses", [["10.0.0.1"], ["1.1.1.1", "10.0.0.1"], ["fe80::1%eth0"], ["::ffff:127.0.0.1"]])
async def test_a_name_with_a_private_address_is_never_connected_to(addresses):
    """Not even to its public ones."""
    dns = Dns(addresses)
    with pytest.raises(DestinationRefused):
        await backend(dns).connect_tcp("example.org", 443, 1.0)
    assert not dns.connected


async def test_an_allowed_origin_may_be_private():
    """That host and port, and no other port of it."""
    dns = Dns(["10.0.0.1"])
    guarded = backend(dns, "public http://hooks:9000")
    await guarded.connect_tcp("hooks", 9000, 1.0)
    assert dns.connected == [("10.0.0.1", 9000)]
    with pytest.raises(DestinationRefused):
        await guarded.connect_tcp("hooks", 9001, 1.0)


async def test_other_addresses_are_tried_when_one_does_not_answer():
    """Three of them at most."""
    dns = Dns(["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"])
    dns.refuses = {"1.1.1.1", "1.1.1.2", "1.1.1.3"}
    with pytest.raises(httpcore.ConnectError):
        await backend(dns).connect_tcp("example.org", 443, 1.0)
    assert [host for host, _ in dns.connected] == ["1.1.1.1", "1.1.1.2", "1.1.1.3"]


@pytest.mark.parametrize("host", ["localhost", "127.1", "0x7f.1", "2130706433"])
async def test_whatever_the_real_resolver_makes_of_a_host_is_checked(host):
    """Also the forms of loopback that only it knows."""
    guarded = SafeBackend(Destinations.parse("public"), connect=Dns())
    with pytest.raises((DestinationRefused, httpcore.ConnectError)) as refused:
        await guarded.connect_tcp(host, 443, 5.0)
    assert host != "localhost" or refused.type is DestinationRefused
    guarded.close()
