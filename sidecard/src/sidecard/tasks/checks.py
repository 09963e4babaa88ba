"""What a request may hold, whatever the binding; JSON's shape is the edge's affair (see `proto_json`)."""

import math
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from typing import cast

from a2a.types import SendMessageRequest, TaskPushNotificationConfig
from a2a.utils.errors import InvalidParamsError, PushNotificationNotSupportedError
from a2a.utils.proto_utils import validate_proto_required_fields
from google.api.field_behavior_pb2 import FieldBehavior, field_behavior
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message as ProtoMessage
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from sidecard.egress import DestinationRefused
from sidecard.push import Webhooks
from sidecard.strict_json import MAX_VALUES

MAX_ID = 256
"""Characters of the ids that callers choose."""
MAX_URL = 2_048
MAX_DATA_DEPTH = 28
"""Nesting of data and metadata. Protobuf can't read back more than 100 levels, and needs three for each."""


def required(params: ProtoMessage) -> None:
    """Raises InvalidParamsError, naming the fields that must be there and are not (§5.7).

    The SDK finds and names them, but reads every field's options each time: so it is asked only when one is missing.
    """
    if _complete(params):
        return
    try:
        validate_proto_required_fields(params)
    except InvalidParamsError as error:
        violations = (error.data or {}).get("errors", [])
        raise InvalidParamsError("; ".join(f"{v['field']}: {v['message']}" for v in violations), error.data) from None


def _complete(message: ProtoMessage) -> bool:
    """Whether nothing required is missing anywhere in a request; none of them has maps."""
    present = {field.name: value for field, value in message.ListFields()}
    for field, must, inside in _wants(cast("Descriptor", message.DESCRIPTOR)):
        if field.name not in present:
            if must:
                return False
        elif inside:
            value = present[field.name]
            if not (all(map(_complete, value)) if field.is_repeated else _complete(value)):
                return False
    return True


@cache
def _wants(descriptor: Descriptor) -> list[tuple[FieldDescriptor, bool, bool]]:
    """The fields of a message type that matter here, whether each is required, and whether something inside may be."""
    wants = []
    for field in descriptor.fields:
        must = FieldBehavior.REQUIRED in field.GetOptions().Extensions[field_behavior]
        inside = field.message_type is not None and field.message_type.file is descriptor.file
        if must or inside:
            wants.append((field, must, inside))
    return wants


def check_ids(**ids: str) -> None:
    """Raises InvalidParamsError for an id that is too long to keep."""
    for name, value in ids.items():
        if len(value) > MAX_ID:
            raise InvalidParamsError(f"{name} is longer than {MAX_ID} characters")


def check_content(params: SendMessageRequest) -> None:
    """Raises InvalidParamsError for what would take too long to read, or could be stored and never be given out again.

    It costs little, whatever the size of the message: it goes before all checks that look at every part.
    """
    message = params.message
    check_values(len(message.parts) + len(message.extensions) + len(message.reference_task_ids), _data(params))


def _data(params: SendMessageRequest) -> Iterator[Value | Struct]:
    yield from (one.metadata for one in (params, params.message) if one.HasField("metadata"))
    for part in params.message.parts:
        if part.HasField("data"):
            yield part.data
        if part.HasField("metadata"):
            yield part.metadata


def check_values(values: int, data: Iterable[Value | Struct]) -> None:
    """Raises InvalidParamsError for a message of more values than MAX_VALUES, with those inside of its data.

    And for data that are nested too deep, or hold what is no number in JSON. Nothing is looked at once it is too much.
    """
    left = MAX_VALUES - values
    if left <= 0:
        raise _too_many()
    within: list[tuple[Value | Struct | ListValue, int]] = [(one, MAX_DATA_DEPTH) for one in data]
    while within:
        one, depth = within.pop()
        kind = one.WhichOneof("kind") if isinstance(one, Value) else ""
        inside: Collection[Value] = ()
        match one:
            case Struct():
                inside = one.fields.values()
            case ListValue():
                inside = one.values
            case _ if kind in ("struct_value", "list_value"):
                depth -= 1
                within.append((getattr(one, kind), depth))
            case _ if kind == "number_value" and not math.isfinite(one.number_value):
                raise InvalidParamsError("data and metadata have finite numbers only")
        left -= len(inside)
        if left <= 0:
            raise _too_many()
        if not depth:
            raise InvalidParamsError(f"data and metadata are nested at most {MAX_DATA_DEPTH} deep")
        within.extend((value, depth) for value in inside)


def _too_many() -> InvalidParamsError:
    return InvalidParamsError(f"a message has at most {MAX_VALUES} values; put large data into a file part")


def check_offered(webhooks: Webhooks | None) -> Webhooks:
    """Raises PushNotificationNotSupportedError where the operator allows none (§3.3.4)."""
    if webhooks is None:
        raise PushNotificationNotSupportedError("this agent sends no push notifications; follow or get the task")
    return webhooks


def check_webhook(config: TaskPushNotificationConfig, webhooks: Webhooks | None) -> None:
    """Raises the same, and InvalidParamsError for a configuration that nothing could, or may, be delivered to."""
    offered = check_offered(webhooks)
    required(config)
    check_ids(id=config.id)
    if len(config.url) > MAX_URL:
        raise InvalidParamsError(f"a push notification url has at most {MAX_URL} characters")
    try:
        offered.check(config)
    except DestinationRefused as error:
        raise InvalidParamsError(f"nothing can be sent to this push notification url: {error}") from None
    except ValueError as error:
        raise InvalidParamsError(f"a push notification can't be sent like this: {error}") from None


def milliseconds(moment: Timestamp) -> int:
    """Since 1970. Raises InvalidParamsError for what only gRPC can carry: no time at all."""
    try:
        return moment.ToMilliseconds()
    except ValueError:
        raise InvalidParamsError("statusTimestampAfter is no time that there is") from None
