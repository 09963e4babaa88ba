"""A user's message, from what is to be said in it."""

import uuid
from collections.abc import Sequence
from typing import TypedDict

from a2a.types import Message, Role, Task

from sidecard.agent import File
from sidecard.extension import Asked, Granted, Sent
from sidecard.tasks.binding import parts_of


class Content(TypedDict, total=False):
    """What a message may hold and say beside its text."""

    data: object
    """Anything that is JSON; for this project's skills an object with the fields of their input."""
    files: Sequence[File | tuple[str, str, bytes]]
    """Files, or (name, media type, bytes) each."""
    skill: str
    """Id of the skill that is meant, where the agent has several that fit."""
    answers: Task | None
    """A task whose open question this answers; refused when another question is open by then."""
    grant: Granted | None
    """Grants or refuses the authority that the question is for."""
    task_id: str
    """A task that this is said to, whatever it asks."""
    context_id: str
    message_id: str
    """Repeating a message under the same id starts nothing twice. Default: a new one."""


def compose(
    text: str = "",
    *,
    data: object = None,
    files: Sequence[File | tuple[str, str, bytes]] = (),
    skill: str = "",
    answers: Task | None = None,
    grant: Granted | None = None,
    task_id: str = "",
    context_id: str = "",
    message_id: str = "",
) -> Message:
    """A user's message; see `Content` for what the arguments mean."""
    attached = [f if isinstance(f, File) else File(name=f[0], media_type=f[1], content=f[2]) for f in files]
    values = [*([text] if text else []), *([data] if data is not None else []), *attached]
    message = Message(
        role=Role.ROLE_USER,
        message_id=message_id or uuid.uuid4().hex,
        task_id=answers.id if answers else task_id,
        context_id=context_id,
        parts=[part for value in values for part in parts_of(value)],
    )
    asked = Asked.of(answers.status.message) if answers else None
    sent = Sent(skill=skill, question=asked.question if asked else "", grant=grant)
    return sent.attach(message) if sent != Sent() else message
