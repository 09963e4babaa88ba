"""Task events on a pub/sub topic: what an event looks like as a CloudEvent, and publishing it through the own sidecar.

    {"specversion": "1.0", "type": "a2a.task.status-update", "source": "flights", "subject": "<task id>",
     "id": "<task id>/3.0", "time": "2026-03-03T10:00:00.000Z", "datacontenttype": "application/json",
     "contextid": "…", "skill": "book_flight", "tenant": "…", "sequence": "0000000003.000000",
     "traceparent": "…", "data": {"statusUpdate": {…}}}

`data` is the StreamResponse that a stream or webhook of that task is told (A2A 1.0 §3.2.3, ProtoJSON). An event that is
published twice has the same `id`; within a task `sequence` grows, as text too. The attributes that CloudEvents 1.0 does
not name itself are extensions; `sequence`, `partitionkey` and `traceparent` are those that it documents.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import grpc
import grpc.aio
from a2a.types import TaskStatusUpdateEvent
from dapr.proto.runtime.v1 import pubsub_pb2

from sidecard.dapr_api import DaprApi
from sidecard.errors import ConfigurationError
from sidecard.push import Outcome
from sidecard.streamed import named
from sidecard.tasks.events import Update
from sidecard.tasks.state import Place, iso
from sidecard.telemetry import current_traceparent

TIMEOUT_SECONDS = 15.0
CONTENT_TYPE = "application/cloudevents+json"
STATUS, ARTIFACT = "a2a.task.status-update", "a2a.task.artifact-update"


@dataclass(frozen=True, slots=True)
class TopicName:
    """A topic of a pub/sub component."""

    component: str
    topic: str

    @classmethod
    def parse(cls, setting: str) -> Self | None:
        """`component/topic`, or "" for none. Raises ConfigurationError."""
        component, slash, topic = setting.strip().partition("/")
        if not slash and not component:
            return None
        if not component or not topic:
            raise ConfigurationError(
                f"SIDECARD_TOPIC is {setting!r}: give a pub/sub component and a topic, as in pubsub/tasks"
            )
        return cls(component, topic)


def cloud_event(agent: str, meta: Mapping[str, str], place: Place, at: int, event: Update) -> dict[str, Any]:
    """An event of a task of this agent, stored at this place of its log, at `at` (UTC, ms), as a CloudEvent 1.0."""
    status = isinstance(event, TaskStatusUpdateEvent)
    trace = current_traceparent()
    attributes = {
        "specversion": "1.0",
        "type": STATUS if status else ARTIFACT,
        "source": agent,
        "subject": meta["task"],
        "id": f"{meta['task']}/{place[0]}.{place[1]}",
        "time": iso(event.status.timestamp.ToMilliseconds() if isinstance(event, TaskStatusUpdateEvent) else at),
        "datacontenttype": "application/json",
        "contextid": meta["context"],
        "skill": meta["skill"],
        "tenant": meta["tenant"],
        "sequence": f"{place[0]:010d}.{place[1]:06d}",
        "partitionkey": meta["task"],
        "traceparent": trace,
        "traceid": trace,  # without it Dapr puts its own in the place of both
    }
    told = {name: value for name, value in attributes.items() if value}  # CloudEvents have no empty attributes
    return told | {"data": named(event)}


class Topic:
    """Publishes through Dapr, each event when the broker has acknowledged the one before it."""

    def __init__(self, agent: str, name: TopicName, *, port: int, token: str) -> None:
        """`port` and `token` are those of the sidecar's gRPC API."""
        self.name = name
        self._agent = agent
        self._api = DaprApi(port=port, token=token)

    async def recognise(self) -> None:
        """Ask the sidecar whether there is such a component.

        Raises ConfigurationError when there is none, StoreUnavailable when the sidecar does not answer.
        """
        kinds = await self._api.components(TIMEOUT_SECONDS)
        if not kinds.get(self.name.component, "").startswith("pubsub."):
            raise ConfigurationError(
                f"SIDECARD_TOPIC names the pub/sub component {self.name.component!r}, and the sidecar has none of that "
                "name: see that its file is among the components and its scopes name this app"
            )

    async def publish(self, meta: Mapping[str, str], place: Place, at: int, event: Update) -> Outcome:
        """Try once to publish an event; see `cloud_event`. Raises nothing: what went wrong is the outcome's problem.

        Brokers that keep the order within a partition are told to keep a task's events in one.
        """
        request = pubsub_pb2.PublishEventRequest(
            pubsub_name=self.name.component,
            topic=self.name.topic,
            data=json.dumps(cloud_event(self._agent, meta, place, at, event), ensure_ascii=False).encode(),
            data_content_type=CONTENT_TYPE,
            metadata={"partitionKey": meta["task"]},
        )
        try:
            await self._api.stub.PublishEvent(request, metadata=self._api.metadata, timeout=TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            return Outcome(problem=f"{self.name.component} did not take it ({error.code().name}): {error.details()}")
        return Outcome(delivered=True)

    async def close(self) -> None:
        """Close the channel to the sidecar."""
        await self._api.close()
