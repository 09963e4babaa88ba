"""Between A2A parts and the models of skills."""

import json
from typing import Any, get_args

from a2a.types import Artifact, Message, Part, Role
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Value
from pydantic import BaseModel, ValidationError

from sidecard.agent import File, Skill

DATA = "application/json"
TEXT = "text/plain"


def text_of(message: Message) -> str:
    """The text parts, a line each."""
    return "\n".join(part.text for part in message.parts if part.WhichOneof("content") == "text").strip()


def data_of(message: Message) -> dict[str, Any]:
    """The data parts that are objects, merged; later ones win."""
    merged: dict[str, Any] = {}
    for part in message.parts:
        if part.WhichOneof("content") == "data":
            value = MessageToDict(part.data)
            if isinstance(value, dict):
                merged |= value
    return merged


def files_of(message: Message) -> list[File]:
    """The file parts."""
    files = []
    for part in message.parts:
        kind = part.WhichOneof("content")
        if kind in ("raw", "url"):
            files.append(
                File(
                    name=part.filename,
                    media_type=part.media_type or "application/octet-stream",
                    content=part.raw if kind == "raw" else b"",
                    url=part.url if kind == "url" else "",
                )
            )
    return files


def raw_input(skill: Skill, message: Message) -> dict[str, Any]:
    """What a message offers to a skill's input model, not validated yet.

    Data parts give the fields; text fills a field named `text`, files fill a field that is annotated with File.
    """
    offered = data_of(message)
    fields = skill.input.model_fields if issubclass(skill.input, BaseModel) else {}
    text = text_of(message)
    if text and "text" in fields and "text" not in offered:
        offered["text"] = text
    files = files_of(message)
    if files:
        for name, info in fields.items():
            if _holds(info.annotation, list[File]):
                offered.setdefault(name, files)
            elif _holds(info.annotation, File):
                offered.setdefault(name, files[0])
    return offered


def _holds(annotation: object, wanted: object) -> bool:
    """Whether it is this type, or a union with it."""
    return annotation == wanted or wanted in get_args(annotation)


def validate(skill: Skill, offered: dict[str, Any]) -> BaseModel:
    """The skill's input. Raises pydantic.ValidationError, to be sorted by `missing`."""
    model: type[BaseModel] = skill.input
    return model.model_validate(offered)


def missing(error: ValidationError) -> list[str]:
    """The fields that are only missing: worth a question. Empty when anything else is wrong too."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    if any(detail["type"] != "missing" for detail in details):
        return []
    return [".".join(map(str, detail["loc"])) for detail in details]


def parts_of(value: object) -> list[Part]:
    """A2A parts for what a skill gives out: a str becomes text, a File a file, anything else data."""
    match value:
        case str():
            return [Part(text=value, media_type=TEXT)]
        case File(url=url) if url:
            return [Part(url=url, filename=value.name, media_type=value.media_type)]
        case File():
            return [Part(raw=value.content, filename=value.name, media_type=value.media_type)]
        case BaseModel():
            return [Part(data=ParseDict(value.model_dump(mode="json"), Value()), media_type=DATA)]
        case _:
            return [Part(data=ParseDict(json.loads(json.dumps(value)), Value()), media_type=DATA)]


def artifact_of(artifact_id: str, name: str, *values: object) -> Artifact:
    """An artifact whose parts are the given values."""
    return Artifact(artifact_id=artifact_id, name=name, parts=[part for value in values for part in parts_of(value)])


def agent_says(text: str, message_id: str, *, task_id: str, context_id: str) -> Message:
    """A message from the agent, for a status."""
    return Message(
        role=Role.ROLE_AGENT,
        message_id=message_id,
        task_id=task_id,
        context_id=context_id,
        parts=[Part(text=text, media_type=TEXT)],
    )
