"""A task with what was redacted in it put back, for its owner alone: a GetTask with a service parameter of ours.

`Sidecard-Reveal: true`, beside `A2A-Extensions` with our extension (A2A 1.0 §3.2.6), as HTTP headers or gRPC metadata.
No other operation looks at it: streams, lists, webhooks and published events never reveal anything.

What comes back is what this agent has sealed in this very task: all that was redacted of what its owner said, and of
everything else - artifacts, status messages, what tools and other agents answered - the personal data. What stays:

- what somebody else said in answer to a question, and credentials that a skill, a tool or another agent let slip;
- what another agent redacted before it answered: its placeholders are opened by that agent alone, for the owner of the
  task there, which is the agent that delegated it;
- what was withheld: of that nothing is stored.

A number that was redacted comes back as a string of its digits.
"""

from collections.abc import Mapping, Sequence

from a2a.extensions.common import HTTP_EXTENSION_HEADER, get_requested_extensions
from a2a.server.context import ServerCallContext
from a2a.types import Artifact, Message
from a2a.types import Task as A2ATask
from a2a.utils.errors import InvalidParamsError

from sidecard.extension import URI
from sidecard.screening.strings import Spot, strings_of
from sidecard.screening.vault import PLACEHOLDER, Vault, revealed

REVEAL_HEADER = "sidecard-reveal"
"""HTTP header, or gRPC metadata, of a GetTask that wants what was redacted put back."""
ASKED = {REVEAL_HEADER: "true", HTTP_EXTENSION_HEADER: URI}
"""The service parameters of such a call."""
OPERATION = "RevealTask"
"""What the audit calls it: A2A has no operation of its own for it."""


def is_asked(context: ServerCallContext) -> bool:
    """Whether a GetTask is to reveal its task. Raises InvalidParamsError where that is said wrongly, whatever task."""
    headers = context.state.get("headers", {})
    said = headers.get(REVEAL_HEADER)
    if said is None:
        return False
    if said != ASKED[REVEAL_HEADER]:
        raise InvalidParamsError('Sidecard-Reveal is "true", or left out')
    if URI not in get_requested_extensions([headers.get(HTTP_EXTENSION_HEADER.lower(), "")]):
        raise InvalidParamsError(f"Sidecard-Reveal belongs to an extension: send A2A-Extensions: {URI}, too")
    return True


def put_back(task: A2ATask, sealed: Sequence[bytes], vault: Vault) -> None:
    """Put into a task, in place, what its owner may have put back. Raises SealNotOpened, and then changes nothing."""
    originals = vault.open_for_owner(task.id, sealed)
    for content in _contents(task):
        _reveal(content, originals)


def placeholders(task: A2ATask) -> list[str]:
    """The placeholders in a task, each once, in order: what is redacted there, by whatever agent."""
    texts = [spot.text.text for content in _contents(task) for spot in strings_of(content) if isinstance(spot, Spot)]
    return list(dict.fromkeys(mark for text in texts for mark in PLACEHOLDER.findall(text)))


def _contents(task: A2ATask) -> list[Message | Artifact]:
    said = [task.status.message] if task.status.HasField("message") else []
    return [*task.history, *said, *task.artifacts]


def _reveal(content: Message | Artifact, originals: Mapping[str, str]) -> None:
    spots = [spot for spot in strings_of(content) if isinstance(spot, Spot) and PLACEHOLDER.search(spot.text.text)]
    for spot in spots:
        spot.put(revealed(originals, spot.text.text))
