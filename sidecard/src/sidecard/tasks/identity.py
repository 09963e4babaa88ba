"""When a message is one that was sent before."""

import hashlib

import msgpack
from a2a.types import Message

from sidecard.errors import SidecardError
from sidecard.tasks.live import Live


class DifferentMessage(SidecardError):
    """A messageId was used before with other content."""


def check_same(live: Live, message: Message, digest: str) -> None:
    """Raises DifferentMessage when a message that the task knows had other content."""
    check_digest(live.messages.get(message.message_id), message, digest)


def check_digest(known: str | None, message: Message, digest: str) -> None:
    """Raises DifferentMessage when the content that is known of a message was other."""
    if known != digest:
        raise DifferentMessage(f"messageId {message.message_id!r} was used before with other content; use a new one")


def digest_of(message: Message, skill: str) -> str:
    """What a message says: role, parts, the ids it names, and the skill; not its trace or deadline."""
    said = Message(
        role=message.role,
        parts=message.parts,
        task_id=message.task_id,
        context_id=message.context_id,
        reference_task_ids=message.reference_task_ids,
    )
    content = said.SerializeToString(deterministic=True)
    return hashlib.sha256(msgpack.packb([skill, content])).hexdigest()[:32]
