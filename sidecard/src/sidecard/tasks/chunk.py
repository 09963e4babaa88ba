"""A text that a skill gives out in chunks, faster than they are stored: those that wait together become one."""

from typing import Self

from a2a.types import Artifact

from sidecard.tasks.entry import Record

MOST_JOINED = 64_000
"""Characters above which a text is told in several events after all."""


class Chunk:
    """A record of such an artifact, which others of the same text can join until it is stored."""

    def __init__(self, record: Record, artifact: Artifact) -> None:
        self._record = record
        self._artifact = artifact
        self._texts = [artifact.parts[0].text]
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

    def join(self, other: Self) -> bool:
        """Take in the chunk that was made next, if it goes on with this one's text, in the same branch of the run."""
        (_, _, _, last, branch, _), (_, _, _, others_last, others_branch, number) = self._record, other._record
        one, two = self._artifact, other._artifact
        if last or branch != others_branch or self._length + other._length > MOST_JOINED:
            return False
        if one.artifact_id != two.artifact_id or one.HasField("metadata") or two.HasField("metadata"):
            return False
        self._texts += other._texts
        self._length += other._length
        self._record[3], self._record[5] = others_last, number
        return True

    def close(self) -> None:
        """Let the record say all of it."""
        if len(self._texts) > 1:
            self._artifact.parts[0].text = "".join(self._texts)
            self._record[1] = self._artifact.SerializeToString()
