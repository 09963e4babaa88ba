"""A text that a skill gives out in chunks, faster than they are stored: those that wait together become one."""

from collections.abc import Iterator
from typing import Self

from a2a.types import Artifact

from sidecard.tasks.entry import Record

LONG = 64_000
"""Characters above which a text is told in several events after all."""


class Chunk:
    """A record of such an artifact, which others of the same text can join until it is stored."""

    def __init__(self, record: Record, artifact: Artifact) -> None:
        self._record = record
        self._artifact = artifact
        self._texts = [artifact.parts[0].text]
        self._pieces = [[record[5], len(self._texts[0])]]
        self._length = len(self._texts[0])

    @classmethod
    def of(cls, record: Record) -> Self | None:
        """None for a record of anything else."""
        if record[0] != "artifact" or not record[2]:
            return None
        artifact = Artifact.FromString(record[1])
        if len(artifact.parts) != 1 or artifact.parts[0].WhichOneof("content") != "text":
            return None
        return cls(record, artifact)

    @property
    def open(self) -> bool:
        """Whether anything can join it."""
        return not self._record[3] and self._length < LONG

    def join(self, other: Self) -> bool:
        """Take in the chunk that was made next, if it goes on with this one's text, in the same branch of the run."""
        (_, _, _, last, branch, _, *_), (_, _, _, others_last, others_branch, number) = self._record, other._record
        if last or branch != others_branch or self._artifact.artifact_id != other._artifact.artifact_id:
            return False
        if self._length + other._length > LONG:
            return False
        self._texts += other._texts
        self._pieces += other._pieces
        self._length += other._length
        self._record[3], self._record[5] = others_last, number
        return True

    def write(self) -> None:
        """Let the record say all of it."""
        if len(self._texts) > 1:
            self._artifact.parts[0].text = "".join(self._texts)
            self._record[1], self._record[6:] = self._artifact.SerializeToString(), [self._pieces]


def divided(record: Record) -> Iterator[Record]:
    """The records that a run has made of which this one was stored: most often it alone."""
    if record[0] != "artifact" or len(record) == 6:  # noqa: PLR2004 -- as entry.Record has it
        yield record
        return
    kind, data, append, last, branch, final, pieces = record
    artifact = Artifact.FromString(data)
    text, at = artifact.parts[0].text, 0
    for number, length in pieces:
        artifact.parts[0].text = text[at : at + length]
        at += length
        yield [kind, artifact.SerializeToString(), append, last and number == final, branch, number]
