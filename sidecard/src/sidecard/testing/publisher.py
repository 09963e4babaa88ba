"""Whoever publishes the agents in a test: a signing key for each, all of them pinned."""

import json
from collections.abc import Callable

from a2a.types import AgentCard
from jwcrypto.jwk import JWK

from sidecard.signature import sign
from sidecard.trust import TrustStore
from sidecard.vouching import Vouching


class Publisher:
    """Keys of these agents, and the trust store that everybody believes them by."""

    def __init__(self, *agents: str, name: str = "Tests") -> None:
        self.name = name
        self.keys = {agent: JWK.generate(kty="EC", crv="P-256", kid=f"{agent}-1", alg="ES256") for agent in agents}
        pinned = [{**key.export_public(as_dict=True), "agents": [agent]} for agent, key in self.keys.items()]
        self.trust = TrustStore.parse(json.dumps({"publishers": {name: {"keys": pinned}}}))

    def vouching(self, agent: str, enters: Callable[[str, str, str], bool]) -> Vouching:
        """What signs and believes in an agent's name; `enters` as in `callers.Callers`."""
        return Vouching(agent, self.name, lambda: self.keys[agent], self.trust, enters)

    def signer(self, agent: str) -> Callable[[AgentCard], AgentCard]:
        """What signs an agent's cards."""
        return lambda card: sign(card, self.keys[agent])
