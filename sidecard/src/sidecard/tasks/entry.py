"""One entry of a task's log: everything that one append means, and its bytes."""

import random
from dataclasses import dataclass, field
from typing import Any

import msgpack

from sidecard.errors import LogBroken

FORMAT = 1
"""Version of the bytes. A reader refuses what it doesn't know rather than guess."""

_NONCES = random.Random()  # noqa: S311 -- seeded by the system; nonces differ and are no secret
Record = list[Any]
"""A list whose first item is its kind:

["new", {task, context, skill, version, owner, subject, tenant, trace}]   first record of entry 1; and scopes, by
                                                     blanks, where its caller came with less than it held; see also
                                                     screened.IN_PIECES and tokens
["message", message_id, digest, by, A2A Message]     a message somebody sent; answers the open question, if any
["grant", message_id, digest, by, A2A Message, at_ms] the same, as an authority is granted or refused by
["status", at_ms, TaskState, A2A Message | b"", branch, number]
["artifact", A2A Artifact, append, last_chunk, branch, number]
                                                     and, where it stands for chunks that were stored as one (see
                                                     chunk), the number and the characters of each
["begun", step_key, kind, arguments_hash, details]   a step that has started and must wait, or has an effect
["done", step_key, kind, arguments_hash, result]     a step and what it returned
["failed", step_key, kind, arguments_hash, reason]   a step that raised, and why
["withdrawn", step_key]                              a step with an effect that was begun and, it is known, not had
["dropped", step_key, kind, arguments_hash, None]    a step whose branch was cancelled while it waited or worked
["question", id, step_key, {prompt, options, scope, by_other}]
                                                     and, where it has them, authority, details, token, signed
["child", step_key, agent, task_id]                  a delegated task, once the other agent has accepted it
["orphan", step_key, agent, task_id]                 one that is not known to be canceled though this task ends, beside
                                                     the status that ends it: from now on its cancel is a delivery.
                                                     Its id is "" where the other agent has not said it
["screened", in | out, what, [[action, kind, entity, rule, place, count], …], JWE | b""]
                                                     what content inspection found and did, beside what it was found in,
                                                     and the originals of what was redacted, sealed; see screening
["lease", owner, how]                                from this entry on this replica owns the task; how: see state.TAKEN
["cancel", by]                                       somebody asked to cancel
["push", id, A2A TaskPushNotificationConfig] · ["unpush", id]
["snapshot", folded state]                           only in logs of some hundreds of entries

A2A objects are their protobuf bytes. Branch and number say where in the run an output was made ("" outside a run).
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One committed, or about to be committed, entry.

    `nonce` tells this writer's entry from anybody else's, `previous` is the nonce of entry n-1 ("" before entry 1),
    `epoch` rises each time the task changes hands, `at` is UTC in milliseconds and never goes back within a log.
    """

    previous: bytes
    epoch: int
    at: int
    records: list[Record]
    nonce: bytes = field(default_factory=lambda: _NONCES.randbytes(8))

    def pack(self) -> bytes:
        """The entry's bytes, frozen from here on: a retry sends the very same."""
        packed: bytes = msgpack.packb([FORMAT, self.nonce, self.previous, self.epoch, self.at, self.records])
        return packed

    @classmethod
    def unpack(cls, data: bytes) -> "Entry":
        """Raises LogBroken on bytes that are not an entry of a known format."""
        try:
            version, nonce, previous, epoch, at, records = msgpack.unpackb(data)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise LogBroken("a log entry is unreadable: was the state store's data changed by hand?") from error
        if version != FORMAT:
            raise LogBroken(f"a log entry has format {version}, this version reads {FORMAT}: upgrade this replica")
        return cls(previous=previous, epoch=epoch, at=at, records=records, nonce=nonce)


def log_key(task_id: str, n: int) -> str:
    """Key of entry n, counted from 1, of a task's log."""
    return f"log:{task_id}:{n}"


def head_key(task_id: str) -> str:
    """Key of the entry that holds the last snapshot; a hint, which may be missing or old."""
    return f"head:{task_id}"
