"""Reversible redaction: placeholders, and what they stand for, sealed so that only the agent can open it.

A seal says which of its originals the task's owner may have put back, too; the others are for the agent's skills alone.

Nothing here is kept in memory: the sealed originals lie in the task's log, encrypted under a key that is derived from
the agent's own secret (HKDF-SHA256; JWE of RFC 7516, direct encryption with A256GCM) and bound to agent and task.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgpack
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from jwcrypto import jwe, jwk
from jwcrypto.common import JWException, base64url_encode

from sidecard.errors import SidecardError

PLACEHOLDER = re.compile(r"<[A-Z][A-Z0-9_]*_[0-9A-F]{8}>")
WITHHELD = "<WITHHELD>"
_KEY_BYTES = 32
_OWNER = "owner"
_NOTHING: tuple[dict[str, Any], dict[str, str]] = ({}, {})


class SealNotOpened(SidecardError):
    """What was redacted in a task can't be put back: none of the agent's keys opens it."""


class Vault:
    """Makes placeholders and opens what they stand for. `former` keys open what was sealed before a rotation."""

    def __init__(self, agent: str, key: bytes, former: Sequence[bytes] = ()) -> None:
        self._agent = agent
        self._marking = _derived(key, f"sidecard screening marks {agent}")
        self._keys = [
            jwk.JWK(kty="oct", k=base64url_encode(_derived(one, f"sidecard screening seals {agent}")))
            for one in (key, *former)
        ]

    def placeholder(self, task_id: str, entity: str, original: str) -> str:
        """What stands for something in a task: the same whenever it comes there, and of no use to guess it by."""
        mark = self._mac("mark", task_id, entity, original)[:8].upper()
        return f"<{entity}_{mark}>"

    def blind(self, digest: str) -> str:
        """A message's digest, for one whose content must not be guessed by it."""
        return self._mac("digest", digest)[: len(digest)]

    def seal(self, task_id: str, originals: Mapping[str, str], for_owner: Collection[str] = ()) -> bytes:
        """Originals by placeholder, encrypted; those of `for_owner` the task's owner may have put back."""
        header = {"alg": "dir", "enc": "A256GCM", "agent": self._agent, "task": task_id, _OWNER: sorted(for_owner)}
        token = jwe.JWE(json.dumps(dict(originals)).encode(), protected=json.dumps(header))
        token.add_recipient(self._keys[0])
        sealed: str = token.serialize(compact=True)
        return sealed.encode()

    def open(self, task_id: str, sealed: Iterable[bytes]) -> dict[str, str]:
        """The originals by placeholder of a task; what is not sealed for it by this agent opens nothing."""
        originals: dict[str, str] = {}
        for one in sealed:
            _, opened = self._open(task_id, one) or _NOTHING
            originals |= opened
        return originals

    def open_for_owner(self, task_id: str, sealed: Iterable[bytes]) -> dict[str, str]:
        """Those of the originals that the task's owner may have put back. Raises SealNotOpened if any seal is shut."""
        originals: dict[str, str] = {}
        for one in sealed:
            opened = self._open(task_id, one)
            if opened is None:
                raise SealNotOpened(
                    "what was redacted in this task can't be put back: it was sealed with a key that this agent no "
                    "longer has, or elsewhere; whoever operates it can add that key again, behind the first one, to "
                    f"the secret task-id-key of {self._agent}"
                )
            header, held = opened
            originals |= {mark: held[mark] for mark in header.get(_OWNER, ()) if mark in held}
        return originals

    def reveal(self, task_id: str, sealed: Iterable[bytes], text: str) -> str:
        """A text with the originals in place of this task's placeholders."""
        return revealed(self.open(task_id, sealed), text) if PLACEHOLDER.search(text) else text

    def _open(self, task_id: str, sealed: bytes) -> tuple[dict[str, Any], dict[str, str]] | None:
        """A seal's header and originals; None for what is not sealed for this task by this agent."""
        token = jwe.JWE(algs=["dir", "A256GCM"])
        for key in self._keys:
            try:
                token.deserialize(sealed.decode(), key)
            except (JWException, ValueError):
                continue
            header = json.loads(token.objects["protected"])
            if (header.get("agent"), header.get("task")) == (self._agent, task_id):
                return header, json.loads(token.payload)
        return None

    def _mac(self, *said: str) -> str:
        return hmac.new(self._marking, msgpack.packb(said), hashlib.sha256).hexdigest()


def revealed(originals: Mapping[str, str], text: str) -> str:
    """A text with these originals in place of their placeholders."""
    return PLACEHOLDER.sub(lambda match: originals.get(match.group(), match.group()), text)


def _derived(key: bytes, purpose: str) -> bytes:
    return HKDF(SHA256(), _KEY_BYTES, salt=None, info=purpose.encode()).derive(key)
