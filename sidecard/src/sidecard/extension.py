"""Our A2A extension: the few things that A2A 1.0 has no field for, in message and status metadata under one URI.

Declared in every card, never required: a caller that doesn't know it is served all the same.
"""

from typing import Any, Self

from a2a.types import Message, SendMessageRequest
from google.protobuf.json_format import MessageToDict
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_serializer, field_validator

URI = "https://sidecard.dev/a2a/extensions/durable-skills/v1"
_PAIR = 2
DESCRIPTION = (
    "Names the skill that is meant, the question that is answered, and on whose behalf a message is sent, "
    "or withdraws the message; grants an authority that a task waits for. "
    "By the service parameter Sidecard-Reveal GetTask gives a task's owner what was redacted in it. "
    "A task that fails or is rejected says what to do about it."
)


class _Said(BaseModel):
    """What stands under our URI in a message's metadata."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    def attach(self, message: Message) -> Message:
        """Put it into a message's metadata."""
        content: dict[str, Any] = self.model_dump(exclude_defaults=True)
        message.metadata.update({URI: content})
        message.extensions.append(URI)
        return message

    @classmethod
    def of_status(cls, message: Message) -> Self | None:
        """What a status message says, or None when its agent doesn't speak this extension."""
        if URI not in message.metadata.fields:
            return None
        try:
            return cls.model_validate(MessageToDict(message.metadata)[URI])
        except ValidationError:
            return None


class Granted(BaseModel):
    """An explicit decision on an authority that a task waits for. No text of a message is ever taken for one."""

    model_config = ConfigDict(extra="forbid")

    authority: str = Field(description="Just what the question demands.", max_length=256)
    granted: bool = Field(description="False is a refusal.")


class Sent(_Said):
    """What a message may carry."""

    skill: str = Field(default="", description="Id of the skill that is meant.")
    question: str = Field(default="", description="Id of the open question that this message answers.")
    subject: str = Field(default="", description="On whose behalf; believed only of callers that may speak for others.")
    grant: Granted | None = Field(default=None, description="Grants or refuses the authority that a task waits for.")
    proof: str = Field(
        default="",
        max_length=65_536,
        description="That the subject has said this, signed by the agent at whose door they did; see `vouching`.",
    )
    withdraw: bool = Field(
        default=False,
        description="The same first message again, to cancel its task without knowing that: if it has none yet it gets "
        "one that is canceled from the beginning, so that the message starts nothing when it comes late.",
    )

    @classmethod
    def of(cls, request: SendMessageRequest) -> "Sent":
        """What came with a request, in its message's metadata or its own. Raises ValidationError on other shapes."""
        for within in (request.message, request):
            if within.HasField("metadata") and URI in within.metadata.fields:
                return cls.model_validate(MessageToDict(within.metadata)[URI])
        return NOTHING_SENT

    @classmethod
    def of_message(cls, message: Message) -> "Sent":
        """What came with a message that was taken before."""
        return cls.of_status(message) or NOTHING_SENT


NOTHING_SENT = Sent()


class Asked(_Said):
    """What the status message of an interrupted task carries."""

    question: str
    options: dict[str, str] = Field(
        default_factory=dict, description="Value to send, and what it means; likeliest first."
    )
    scope: str = Field(default="", description="Right that whoever answers must hold.")
    by_other: bool = Field(default=False, description="Whether somebody else than the requester must answer.")
    authority: str = Field(default="", description="What the requester, and nobody else, is asked to grant.")
    details: dict[str, str] = Field(default_factory=dict, description="What it is granted for, each with its name.")
    token: bool = Field(default=False, description="Whether the grant must come with an access token of theirs.")
    signed: str = Field(default="", description="All this, signed by the agent that asks; see `vouching`.")

    @field_serializer("options", "details")
    def _in_order(self, options: dict[str, str]) -> list[list[str]]:
        """As pairs: the members of a JSON object have no order once they went through protobuf."""
        return [[value, meaning] for value, meaning in options.items()]

    @field_validator("options", "details", mode="before")
    @classmethod
    def _from_pairs(cls, given: object) -> object:
        if not isinstance(given, list):
            return given
        if not all(isinstance(pair, list) and len(pair) == _PAIR for pair in given):
            raise ValueError("these are pairs of a value and what it means")
        return {str(value): str(meaning) for value, meaning in given}

    @classmethod
    def of(cls, message: Message) -> "Asked | None":
        """The question in a status message, or None when its agent doesn't speak this extension."""
        return cls.of_status(message)


class Ended(_Said):
    """What the last status message of a task carries that failed or was rejected: what to do about it.

    A retry of it is safe only where it is `repeatable`.
    """

    action: str = Field(description="As its skill declares it; see `sidecard.actions`.")
    repeatable: bool = Field(default=False, description="Whether doing it again can't have an effect twice.")
