"""The extended card (A2A 1.0 §3.1.11): what an agent shows of itself to one caller, signed like its public card.

The public card says what is needed to choose an agent and to get into it: its skills in words, with examples, what is
done when they fail, where it is and how callers are known. What only those need who may call is left out there: the
schemas of what skills take and give, which tell a stranger what could be sent, and what this caller is taken for.
"""

import time
from collections import OrderedDict
from collections.abc import Callable

from a2a.types import AgentCard

from sidecard.agent import Agent
from sidecard.agent_card import for_caller
from sidecard.callers import Caller

MOST_KEPT = 256
KEPT_SECONDS = 600.0
"""How long a signed card is given out again; signatures are believed for longer."""

Sign = Callable[[AgentCard], AgentCard]


class ExtendedCards:
    """One agent's cards for its callers: who may do the same in the same tenants gets the same but for the name."""

    def __init__(
        self, public: Callable[[], AgentCard], agent: Agent, sign: Sign, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`public` gives the public card as it is now, `sign` signs a card as that is."""
        self._public, self._agent, self._sign, self._clock = public, agent, sign, clock
        self._kept: OrderedDict[object, tuple[float, AgentCard, AgentCard]] = OrderedDict()

    def of(self, caller: Caller) -> AgentCard:
        """The card for this caller; it is not to be changed."""
        key = (caller.name, caller.scopes, caller.tenants)
        public = self._public()
        kept = self._kept.get(key)
        if kept is None or kept[1] is not public or kept[0] < self._clock():
            card = self._sign(for_caller(public, self._agent, caller))
            kept = self._kept[key] = self._clock() + KEPT_SECONDS, public, card
        self._kept.move_to_end(key)
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return kept[2]
