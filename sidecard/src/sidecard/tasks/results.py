"""What asking and delegating give back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from a2a.types import Message
from a2a.types import Task as A2ATask

from sidecard.extension import URI, Sent
from sidecard.tasks import binding


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody answered to a question. `choice` is set when options were given, `by` is who answered."""

    by: str
    text: str
    data: dict[str, Any]
    choice: str | None
    message: Message = field(repr=False)

    @classmethod
    def of(cls, by: str, message: Message, options: Mapping[str, str]) -> "Answer":
        """What a message answers: a choice is recognised by its value or its meaning."""
        text, data = binding.text_of(message), binding.data_of(message)
        said = str(data.get("choice", text)).strip().casefold()
        matches = [value for value, meaning in options.items() if said in (value.casefold(), meaning.casefold())]
        return cls(by=by, text=text, data=data, choice=matches[0] if matches else None, message=message)


@dataclass(frozen=True, slots=True)
class Authority:
    """What somebody granted, or refused, and when (UTC). Only the one on whose behalf the task runs can."""

    by: str
    authority: str
    at: datetime
    granted: bool
    message: Message = field(repr=False)

    @classmethod
    def of(cls, value: Sequence[Any], authority: str) -> "Authority":
        """From a recorded step."""
        by, data, at = value
        message = Message.FromString(data)
        grant = Sent.of_message(message).grant
        return cls(by, authority, datetime.fromtimestamp(at / 1000, UTC), bool(grant and grant.granted), message)


@dataclass(frozen=True, slots=True)
class Delegated:
    """A delegated task that is COMPLETED, or waits for somebody."""

    agent: str
    skill: str
    task: A2ATask

    @property
    def withheld(self) -> str:
        """Why content inspection has emptied it; "" when it has not."""
        if URI not in self.task.metadata.fields:
            return ""
        return self.task.metadata.fields[URI].struct_value.fields["withheld"].string_value

    @property
    def data(self) -> dict[str, Any]:
        """The data of its last artifact that has any; empty when there is none."""
        for artifact in reversed(self.task.artifacts):
            if found := binding.data_of(Message(parts=artifact.parts)):
                return found
        return {}

    @property
    def text(self) -> str:
        """The text of its artifacts, or of its status."""
        texts = [binding.text_of(Message(parts=artifact.parts)) for artifact in self.task.artifacts]
        return "\n".join(filter(None, texts)) or binding.text_of(self.task.status.message)
