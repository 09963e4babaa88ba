"""A2A 0.3 by JSON-RPC, for callers that speak nothing newer: its methods are the same operations, in its own words.

Reading and writing are the SDK's conversions; the operations behind are those of A2A 1.0, so that rights, isolation,
deduplication and durability are too. 0.3 has no tenants and no list of tasks: its callers work in the default tenant.
"""

from collections.abc import Callable, Mapping
from typing import Any, get_args

from a2a.compat.v0_3 import conversions
from a2a.compat.v0_3 import types as v03
from a2a.types import (
    AgentCard,
    ListTaskPushNotificationConfigsResponse,
    Message,
    Task,
    TaskArtifactUpdateEvent,
    TaskPushNotificationConfig,
    TaskStatusUpdateEvent,
)
from a2a.utils.errors import InvalidParamsError, TaskNotFoundError
from google.protobuf.json_format import Error as ProtoJsonError
from google.protobuf.message import Message as ProtoMessage
from pydantic import BaseModel, ValidationError

from sidecard.jsonrpc import Dialect, Method

MOST_VIOLATIONS = 10
UNFIT = (ProtoJsonError, ValueError, TypeError, AttributeError, OverflowError, LookupError, RecursionError)
"""What the conversions raise for a request that 1.0 can't say."""

_WRITTEN: dict[type[ProtoMessage], Callable[[Any], BaseModel]] = {
    Task: conversions.to_compat_task,
    Message: conversions.to_compat_message,
    TaskStatusUpdateEvent: conversions.to_compat_task_status_update_event,
    TaskArtifactUpdateEvent: conversions.to_compat_task_artifact_update_event,
    TaskPushNotificationConfig: conversions.to_compat_task_push_notification_config,
    AgentCard: conversions.to_compat_agent_card,
}


def taking(model: type[BaseModel], convert: Callable[[Any], ProtoMessage]) -> Callable[[dict[str, Any]], ProtoMessage]:
    """What reads the `params` of one method. It raises InvalidParamsError, naming the fields."""

    def take(params: dict[str, Any]) -> ProtoMessage:
        try:
            asked = model.model_validate({"id": 0, "params": params})
        except ValidationError as error:
            raise _misfit(error) from None
        except UNFIT as error:
            raise InvalidParamsError("params are not what this method takes in A2A 0.3") from error
        try:
            return convert(asked)
        except UNFIT as error:
            raise InvalidParamsError("params hold something that no message can hold") from error

    return take


def written(found: ProtoMessage | None) -> dict[str, Any]:
    """An answer in A2A 0.3. Raises TaskNotFoundError for none."""
    if found is None:
        raise TaskNotFoundError
    told: dict[str, Any] = _WRITTEN[type(found)](found).model_dump(mode="json", by_alias=True, exclude_none=True)
    return told


def _event(told: ProtoMessage) -> tuple[object, Mapping[str, Any]]:
    result = written(told)
    return result, result.get("metadata", {})


def _configs(found: ListTaskPushNotificationConfigsResponse) -> list[dict[str, Any]]:
    return [written(config) for config in found.configs]


def _misfit(error: ValidationError) -> InvalidParamsError:
    """Without the values: they are the caller's."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)[:MOST_VIOLATIONS]
    violations = [
        {"field": ".".join(str(step) for step in fault["loc"])[:200], "message": fault["msg"][:200]} for fault in faults
    ]
    words = "; ".join(f"{one['field']}: {one['message']}" for one in violations)
    return InvalidParamsError(words, {"errors": violations})


METHODS = {
    "message/send": Method(
        taking(v03.SendMessageRequest, conversions.to_core_send_message_request), "on_message_send", written
    ),
    "message/stream": Method(
        taking(v03.SendStreamingMessageRequest, conversions.to_core_send_message_request),
        "on_message_send_stream",
        written,
        streams=True,
    ),
    "tasks/get": Method(taking(v03.GetTaskRequest, conversions.to_core_get_task_request), "on_get_task", written),
    "tasks/cancel": Method(
        taking(v03.CancelTaskRequest, conversions.to_core_cancel_task_request), "on_cancel_task", written
    ),
    "tasks/resubscribe": Method(
        taking(v03.TaskResubscriptionRequest, conversions.to_core_subscribe_to_task_request),
        "on_subscribe_to_task",
        written,
        streams=True,
    ),
    "tasks/pushNotificationConfig/set": Method(
        taking(
            v03.SetTaskPushNotificationConfigRequest,
            conversions.to_core_create_task_push_notification_config_request,
        ),
        "on_create_task_push_notification_config",
        written,
    ),
    "tasks/pushNotificationConfig/get": Method(
        taking(v03.GetTaskPushNotificationConfigRequest, conversions.to_core_get_task_push_notification_config_request),
        "on_get_task_push_notification_config",
        written,
    ),
    "tasks/pushNotificationConfig/list": Method(
        taking(
            v03.ListTaskPushNotificationConfigRequest, conversions.to_core_list_task_push_notification_config_request
        ),
        "on_list_task_push_notification_configs",
        _configs,
    ),
    "tasks/pushNotificationConfig/delete": Method(
        taking(
            v03.DeleteTaskPushNotificationConfigRequest,
            conversions.to_core_delete_task_push_notification_config_request,
        ),
        "on_delete_task_push_notification_config",
        lambda _: None,
    ),
    "agent/getAuthenticatedExtendedCard": Method(
        taking(v03.GetAuthenticatedExtendedCardRequest, conversions.to_core_get_extended_agent_card_request),
        "on_get_extended_agent_card",
        written,
    ),
}
"""By the names of A2A 0.3 §7."""

A2A_03 = Dialect(
    METHODS,
    _event,
    frozenset(kind.model_fields["code"].default for kind in get_args(v03.A2AError.model_fields["root"].annotation)),
)
