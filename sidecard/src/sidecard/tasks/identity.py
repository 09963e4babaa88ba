"""When a message is one that was sent before."""

import contextlib
import hashlib
import hmac
import re
from collections.abc import Sequence

import msgpack
from a2a.types import Message

from sidecard.errors import ConfigurationError, SidecardError, TaskConflict
from sidecard.tasks.live import Live
from sidecard.tasks.store import StateStore

TASK_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""The shape of all ids of tasks: nothing else becomes part of a key."""
KEY = "task-id-key"
"""Where the store has the fingerprint of the key that its tasks' ids are made with."""


SHORTEST_KEY = 16
"""Bytes of the key that makes task ids unguessable."""


def task_id_keys(secret: str) -> list[bytes]:
    """The keys in a secret, the present one first. Raises ConfigurationError, without its content."""
    with contextlib.suppress(ValueError):
        keys = [bytes.fromhex(key) for key in secret.split()]
        if keys and min(map(len, keys)) >= SHORTEST_KEY:
            return keys
    raise ConfigurationError(
        f"the secret task-id-key is not {SHORTEST_KEY} bytes or more in hexadecimal: restore the one that its tasks "
        "were made with; for a new store, remove it and run `sidecard bootstrap`"
    )


class TaskIds:
    """Ids of the tasks that first messages make: the same for the same message, unguessable for others.

    While a key is replaced, the `former` ones tell what was made with them before.
    """

    def __init__(self, agent: str, key: bytes, former: Sequence[bytes] = ()) -> None:
        self._agent = agent
        self._keys = [key, *former]
        # Begun once for each key: to begin an HMAC costs several times as much as it takes for so little.
        self._present, *self._former = [hmac.new(key, digestmod="sha256") for key in self._keys]

    def of(self, tenant: str, owner: str, message_id: str) -> str:
        """The id of the task that this message makes."""
        return self._with(self._present, tenant, owner, message_id)

    def former(self, tenant: str, owner: str, message_id: str) -> list[str]:
        """The ids that it would have had under former keys."""
        return [self._with(begun, tenant, owner, message_id) for begun in self._former]

    def _with(self, begun: hmac.HMAC, *named: str) -> str:
        made = begun.copy()
        made.update(msgpack.packb([self._agent, *named]))
        return made.hexdigest()[:32]

    async def check(self, store: StateStore) -> None:
        """See to it that the store's tasks were made with these keys, and note the present one.

        Raises ConfigurationError when they were made with another, StoreUnavailable.
        """
        present, *former = [_fingerprint(key) for key in self._keys]
        stored = (await store.read([KEY])).get(KEY)
        if stored is None:
            with contextlib.suppress(TaskConflict):
                await store.write([(KEY, present)], {})
            stored = (await store.read([KEY])).get(KEY)
        if stored in former:
            await store.write([], {KEY: present})
        elif stored != present:
            raise ConfigurationError(
                "the secret task-id-key is not the one this state store's tasks were made with; with another key no "
                "repeated message would be recognised. Put the old key behind the new one (docs/durability.md), "
                "restore it, or start with an empty store."
            )


def _fingerprint(key: bytes) -> bytes:
    return hashlib.sha256(b"task-id-key" + key).hexdigest()[:16].encode()


class DifferentMessage(SidecardError):
    """A messageId was used before with other content."""


def check_same(live: Live, message: Message, *digests: str) -> None:
    """Raises DifferentMessage when a message that the task knows had other content."""
    check_digest(live.messages.get(message.message_id), message, *digests)


def check_digest(known: str | None, message: Message, *digests: str) -> None:
    """Raises DifferentMessage when the content that is known of a message was other, by each of its digests."""
    if known not in digests:
        raise DifferentMessage(f"messageId {message.message_id!r} was used before with other content; use a new one")


def digest_of(message: Message, besides: str) -> str:
    """What a message says: role, parts, the ids it names, and what is said besides; not its trace or deadline."""
    said = Message()
    said.CopyFrom(message)
    for field in ("message_id", "metadata", "extensions"):
        said.ClearField(field)
    content = said.SerializeToString(deterministic=True)
    return hashlib.sha256(msgpack.packb([besides, content])).hexdigest()[:32]
