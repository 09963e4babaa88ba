"""A2A 0.3 by gRPC, for callers that speak nothing newer: its own service, `a2a.v1.A2AService`, on the port of 1.0's.

Each method reads 0.3's message, is the operation of 1.0 that it means, and writes 0.3's answer: rights, isolation,
deduplication and durability are those of 1.0. 0.3 has no tenants and no list of tasks, as by the other bindings.
"""

import copy
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from a2a.compat.v0_3 import a2a_v0_3_pb2 as v03
from a2a.compat.v0_3 import conversions
from a2a.compat.v0_3 import types as v03_types
from a2a.compat.v0_3.proto_utils import FromProto, ToProto
from a2a.types import (
    AgentCard,
    CancelTaskRequest,
    DeleteTaskPushNotificationConfigRequest,
    GetExtendedAgentCardRequest,
    GetTaskPushNotificationConfigRequest,
    GetTaskRequest,
    ListTaskPushNotificationConfigsRequest,
    ListTaskPushNotificationConfigsResponse,
    SendMessageRequest,
    SendMessageResponse,
    StreamResponse,
    SubscribeToTaskRequest,
    Task,
    TaskPushNotificationConfig,
)
from a2a.utils.errors import A2AError, InternalError, InvalidParamsError, VersionNotSupportedError
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message as ProtoMessage
from google.protobuf.struct_pb2 import Struct

from sidecard.edge import is_03
from sidecard.grpc_service import Context, Service
from sidecard.jsonrpc_03 import UNFIT
from sidecard.tasks.checks import check_values

log = logging.getLogger("sidecard")

SERVICE = v03.DESCRIPTOR.services_by_name["A2AService"].full_name
_TASK = re.compile(r"tasks/([^/]+)")
_PARENT = re.compile(r"tasks/([^/]+)(?:/pushNotificationConfigs)?")  # 0.3 has it both ways
_CONFIG = re.compile(r"tasks/([^/]+)/pushNotificationConfigs/([^/]+)")


@dataclass(frozen=True, slots=True)
class _Method:
    """What a method takes, how that is read, the method of 1.0 that it is, and how its answer is written."""

    takes: type[ProtoMessage]
    read: Callable[[Any], ProtoMessage]
    name: str
    write: Callable[[Any], ProtoMessage]
    streams: bool = False


class Service03(Service):
    """The service of 1.0, for callers of 0.3."""

    def check_version(self, version: str) -> None:
        """Raises VersionNotSupportedError for any A2A-Version but 0.3, which is meant by none, too."""
        if not is_03(version):
            raise VersionNotSupportedError("This service is that of A2A 0.3; 1.0's is lf.a2a.v1.A2AService")

    async def abort_context(self, error: A2AError, context: Context) -> None:
        """End a call as in 1.0, the error's name before its words: callers of 0.3 look for it there."""
        named = copy.copy(error)
        named.message = f"{type(error).__name__}: {error.message}"
        await super().abort_context(named, context)

    def handlers(self) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
        """Its methods by their names, for `grpc.method_handlers_generic_handler`."""
        return {name: self._served(method) for name, method in _METHODS.items()}

    def _served(self, method: _Method) -> "grpc.RpcMethodHandler[Any, Any]":
        operation = getattr(self, method.name)
        reading: tuple[Any, Any] = (method.takes.FromString, _serialized)

        async def one(request: ProtoMessage | None, context: Context) -> ProtoMessage:
            answer = await operation(await self._read(method, request, context), context)
            return await self._written(method, answer, context)

        async def several(request: ProtoMessage | None, context: Context) -> AsyncIterator[ProtoMessage]:
            async for event in operation(await self._read(method, request, context), context):
                yield await self._written(method, event, context)

        if method.streams:
            return grpc.unary_stream_rpc_method_handler(several, *reading)
        return grpc.unary_unary_rpc_method_handler(one, *reading)

    async def _read(self, method: _Method, request: ProtoMessage | None, context: Context) -> ProtoMessage | None:
        if request is None:
            return None
        try:
            return method.read(request)
        except A2AError as error:
            await self.abort_context(error, context)
        except UNFIT:
            words = "The message holds something that this method does not take in A2A 0.3"
            await self.abort_context(InvalidParamsError(words), context)
        return None  # not reached: to end a call raises

    async def _written(self, method: _Method, answer: ProtoMessage, context: Context) -> ProtoMessage:
        try:
            return method.write(answer)
        except Exception:
            log.exception("an answer of %s can't be said in A2A 0.3", method.name)
            words = "this has no words in A2A 0.3; the agent's log has the details"
            await self.abort_context(InternalError(words), context)
            raise  # not reached


def _serialized(answer: ProtoMessage) -> bytes:
    return answer.SerializeToString()


# -- what callers say ------------------------------------------------------------------------------------------------


def _message(asked: v03.SendMessageRequest) -> SendMessageRequest:
    sent, wanted = asked.request, asked.configuration
    check_values(len(sent.content) + len(sent.extensions) + len(wanted.accepted_output_modes), _data(asked))
    params = FromProto.message_send_params(asked)
    return conversions.to_core_send_message_request(v03_types.SendMessageRequest(id=0, params=params))


def _data(asked: v03.SendMessageRequest) -> Iterator[Struct]:
    yield asked.metadata
    yield asked.request.metadata
    for part in asked.request.content:
        yield part.metadata
        yield part.data.data


def _task_request(asked: v03.GetTaskRequest) -> GetTaskRequest:
    [task_id] = _named(_TASK, asked.name)
    return GetTaskRequest(id=task_id, history_length=asked.history_length or None)  # 0 is all of it in 0.3


def _config_set(asked: v03.CreateTaskPushNotificationConfigRequest) -> TaskPushNotificationConfig:
    [task_id] = _named(_PARENT, asked.parent)
    config = FromProto.push_notification_config(asked.config.push_notification_config)
    config.id = config.id or asked.config_id or None
    return conversions.to_core_task_push_notification_config(
        v03_types.TaskPushNotificationConfig(task_id=task_id, push_notification_config=config)
    )


def _of_config(kind: Callable[..., ProtoMessage], name: str) -> ProtoMessage:
    task_id, config_id = _named(_CONFIG, name)
    return kind(task_id=task_id, id=config_id)


def _named(shape: re.Pattern[str], name: str) -> tuple[str, ...]:
    """The ids in a resource's whole name; the SDK's reader takes anything behind them."""
    found = shape.fullmatch(name)
    if found is None:
        raise InvalidParamsError(f"A name here is {shape.pattern}")
    return found.groups()


# -- what they are told ----------------------------------------------------------------------------------------------


def _answer(told: SendMessageResponse) -> ProtoMessage:
    if told.HasField("task"):
        return v03.SendMessageResponse(task=_task(told.task))
    return v03.SendMessageResponse(msg=ToProto.message(conversions.to_compat_message(told.message)))


def _event(told: StreamResponse) -> ProtoMessage:
    return ToProto.stream_response(conversions.to_compat_stream_response(told, 0).result)


def _task(told: Task) -> v03.Task:
    return ToProto.task(conversions.to_compat_task(told))


def _config(told: TaskPushNotificationConfig) -> v03.TaskPushNotificationConfig:
    return ToProto.task_push_notification_config(conversions.to_compat_task_push_notification_config(told))


def _configs(told: ListTaskPushNotificationConfigsResponse) -> ProtoMessage:
    return v03.ListTaskPushNotificationConfigResponse(configs=[_config(config) for config in told.configs])


def _card(told: AgentCard) -> ProtoMessage:
    """Without the ways to be known that 0.3 has no words for: device codes."""
    card = conversions.to_compat_agent_card(told)
    known = card.security_schemes or {}
    unsaid = {name for name, scheme in known.items() if _has_no_flow(scheme.root)}
    card.security_schemes = {name: scheme for name, scheme in known.items() if name not in unsaid}
    card.security = [way for way in card.security or [] if not unsaid & way.keys()]
    for skill in card.skills:
        skill.security = [way for way in skill.security or [] if not unsaid & way.keys()]
    return ToProto.agent_card(card)


def _has_no_flow(scheme: Any) -> bool:  # noqa: ANN401 -- of any kind
    return isinstance(scheme, v03_types.OAuth2SecurityScheme) and not scheme.flows.model_dump(exclude_none=True)


def _nothing(told: Empty) -> ProtoMessage:
    return told


_METHODS = {
    "SendMessage": _Method(v03.SendMessageRequest, _message, "SendMessage", _answer),
    "SendStreamingMessage": _Method(v03.SendMessageRequest, _message, "SendStreamingMessage", _event, streams=True),
    "GetTask": _Method(v03.GetTaskRequest, _task_request, "GetTask", _task),
    "CancelTask": _Method(
        v03.CancelTaskRequest, lambda asked: CancelTaskRequest(id=_named(_TASK, asked.name)[0]), "CancelTask", _task
    ),
    "TaskSubscription": _Method(
        v03.TaskSubscriptionRequest,
        lambda asked: SubscribeToTaskRequest(id=_named(_TASK, asked.name)[0]),
        "SubscribeToTask",
        _event,
        streams=True,
    ),
    "CreateTaskPushNotificationConfig": _Method(
        v03.CreateTaskPushNotificationConfigRequest, _config_set, "CreateTaskPushNotificationConfig", _config
    ),
    "GetTaskPushNotificationConfig": _Method(
        v03.GetTaskPushNotificationConfigRequest,
        lambda asked: _of_config(GetTaskPushNotificationConfigRequest, asked.name),
        "GetTaskPushNotificationConfig",
        _config,
    ),
    "ListTaskPushNotificationConfig": _Method(
        v03.ListTaskPushNotificationConfigRequest,
        lambda asked: ListTaskPushNotificationConfigsRequest(task_id=_named(_PARENT, asked.parent)[0]),
        "ListTaskPushNotificationConfigs",
        _configs,
    ),
    "DeleteTaskPushNotificationConfig": _Method(
        v03.DeleteTaskPushNotificationConfigRequest,
        lambda asked: _of_config(DeleteTaskPushNotificationConfigRequest, asked.name),
        "DeleteTaskPushNotificationConfig",
        _nothing,
    ),
    "GetAgentCard": _Method(
        v03.GetAgentCardRequest, lambda _: GetExtendedAgentCardRequest(), "GetExtendedAgentCard", _card
    ),
}
"""By the names of A2A 0.3."""
