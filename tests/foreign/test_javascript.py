"""A client on A2A's JavaScript SDK calls an agent of ours: in both versions that it speaks, by both bindings."""

import pytest
from jwcrypto.jwk import JWK

from foreign.parties import FOREIGN, run
from sidecard.extension import URI
from sidecard.testing import key_of
from tests.foreign.conftest import public

CLIENT = ["node", str(FOREIGN / "node" / "client.mjs")]


def config(shop, **more):
    return {
        "agent": shop.url, "key": public(), "headers": {"x-api-key": key_of("guest")}, "text": "a hat",
        "slow": "a hat, slowly", "metadata": {URI: {"skill": "look"}},
    } | more  # fmt: skip


@pytest.mark.parametrize("version", ["1.0", "0.3"])
@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON"])
async def test_it_finds_verifies_sends_streams_gets_and_cancels(shop, binding, version):
    """Our card's signature holds in JavaScript, and one message is one task there too."""
    code, met = await run(CLIENT, config(shop, binding=binding, version=version))
    assert code == 0
    assert met["interface"]["version"] == version
    assert (met["sent"]["state"], met["sent"]["texts"]) == ("TASK_STATE_COMPLETED", ["found a hat"])
    assert met["sent"]["id"] == met["repeated"]["id"] == met["got"]["id"]
    assert met["got"] == met["sent"]
    assert met["streamed"][0] == "task"
    assert met["canceled"]["state"] == "TASK_STATE_CANCELED"
    assert shop.runs == ["a hat", "a hat", "a hat, slowly"]


async def test_it_refuses_a_card_that_another_has_signed(shop):
    """Under the pinned key's own name; nothing is sent."""
    other = JWK.generate(kty="EC", crv="P-256", kid="shop-1", alg="ES256")
    code, met = await run(CLIENT, config(shop, key=public(other)))
    assert (code, "not believed" in met["error"]) == (1, True)
    assert shop.runs == []
