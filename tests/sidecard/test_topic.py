"""Task events as CloudEvents, and publishing them through a sidecar that answers as told."""

import json

import grpc
import grpc.aio
import pytest
from a2a.types import Artifact, TaskState
from dapr.proto.runtime.v1 import dapr_pb2_grpc, metadata_pb2
from google.protobuf import empty_pb2

from sidecard.errors import ConfigurationError, StoreUnavailable
from sidecard.push import Outcome
from sidecard.tasks.events import event_of
from sidecard.telemetry import continue_trace
from sidecard.topic import Topic, TopicName, cloud_event

META = {"task": "t1", "context": "c1", "skill": "book", "tenant": "", "owner": "ada"}
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
STATUS = event_of(["status", 1_772_532_000_000, TaskState.TASK_STATE_WORKING, b"", "", 0], META, (3, 1))
ARTIFACT = event_of(["artifact", Artifact(artifact_id="a").SerializeToString(), False, True, "0", 1], META, (3, 2))


class FakeSidecar(dapr_pb2_grpc.DaprServicer):
    """Keeps what is published, with the token that came with it."""

    def __init__(self):
        self.published = []
        self.error = None

    async def PublishEvent(self, request, context):  # noqa: N802 -- gRPC's
        if self.error:
            await context.abort(*self.error)
        self.published.append((dict(context.invocation_metadata())["dapr-api-token"], request))
        return empty_pb2.Empty()

    async def GetMetadata(self, request, context):  # noqa: N802 -- gRPC's
        kinds = {"pubsub": "pubsub.redis", "state": "state.redis"}
        components = [metadata_pb2.RegisteredComponents(name=name, type=kind) for name, kind in kinds.items()]
        return metadata_pb2.GetMetadataResponse(registered_components=components)


@pytest.fixture
async def sidecar():
    fake, server = FakeSidecar(), grpc.aio.server()
    dapr_pb2_grpc.add_DaprServicer_to_server(fake, server)
    fake.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield fake
    await server.stop(0)


@pytest.fixture
async def topic(sidecar):
    topic = Topic("shop", TopicName("pubsub", "tasks"), port=sidecar.port, token="secret")
    yield topic
    await topic.close()


def test_an_event_says_whose_it_is_and_where_it_belongs():
    """The same id however often it is published; the attributes are what CloudEvents 1.0 lets be attributes."""
    event = cloud_event("shop", META, (3, 1), 1_772_532_000_500, STATUS)
    assert event == {
        "specversion": "1.0",
        "type": "a2a.task.status-update",
        "source": "shop",
        "subject": "t1",
        "id": "t1/3.1",
        "time": "2026-03-03T10:00:00.000Z",
        "datacontenttype": "application/json",
        "contextid": "c1",
        "skill": "book",
        "sequence": "0000000003.000001",
        "partitionkey": "t1",
        "data": event["data"],
    }
    assert event["data"]["statusUpdate"]["status"]["state"] == "TASK_STATE_WORKING"
    other = cloud_event("shop", META | {"tenant": "north"}, (3, 2), 1_772_532_000_500, ARTIFACT)
    assert (other["type"], other["id"], other["tenant"]) == ("a2a.task.artifact-update", "t1/3.2", "north")
    assert other["time"] == "2026-03-03T10:00:00.500Z"
    assert other["data"]["artifactUpdate"]["lastChunk"]
    assert all(name.isalnum() and name.islower() for name in other)


def test_places_sort_as_text():
    """A consumer need only compare."""
    places = [(1, 2), (1, 10), (2, 0), (10, 0), (100, 999)]
    sequences = [cloud_event("shop", META, place, 0, STATUS)["sequence"] for place in places]
    assert sequences == sorted(sequences)


def test_an_event_carries_the_trace_of_its_task():
    """In both attributes, or Dapr would put its own in their place."""
    with continue_trace(TRACE):
        event = cloud_event("shop", META, (1, 0), 0, STATUS)
    assert event["traceparent"] == event["traceid"] == TRACE


async def test_it_is_published_as_the_cloud_event_that_it_is(topic, sidecar):
    """With the sidecar's token, as no data of Dapr's own envelope, and a task's events in one partition."""
    assert await topic.publish(META, (3, 1), 0, STATUS) == Outcome(delivered=True)
    ((token, request),) = sidecar.published
    assert token == "secret"
    assert (request.pubsub_name, request.topic) == ("pubsub", "tasks")
    assert request.data_content_type == "application/cloudevents+json"
    assert json.loads(request.data) == cloud_event("shop", META, (3, 1), 0, STATUS)
    assert request.metadata == {"partitionKey": "t1"}


async def test_what_the_broker_does_not_take_is_a_problem_and_no_error(topic, sidecar):
    """To be tried again; never `gone`."""
    sidecar.error = (grpc.StatusCode.INTERNAL, "redis is down")
    outcome = await topic.publish(META, (3, 1), 0, STATUS)
    assert (outcome.delivered, outcome.gone) == (False, False)
    assert "pubsub did not take it (INTERNAL): redis is down" in outcome.problem


async def test_a_component_that_is_missing_or_something_else_is_said_at_start(topic, sidecar):
    """And a sidecar that does not answer is waited for."""
    await topic.recognise()
    for name in ("state", "other"):
        wrong = Topic("shop", TopicName(name, "tasks"), port=sidecar.port, token="secret")
        with pytest.raises(ConfigurationError, match=f"SIDECARD_TOPIC names the pub/sub component '{name}'"):
            await wrong.recognise()
        await wrong.close()
    nobody = Topic("shop", TopicName("pubsub", "tasks"), port=1, token="secret")
    with pytest.raises(StoreUnavailable):
        await nobody.recognise()
    await nobody.close()


def test_the_setting_names_a_component_and_a_topic():
    """A topic may have slashes; nothing is no topic."""
    assert TopicName.parse("") is None
    assert TopicName.parse(" pubsub/tasks ") == TopicName("pubsub", "tasks")
    assert TopicName.parse("pubsub/a/b") == TopicName("pubsub", "a/b")
    for wrong in ("pubsub", "pubsub/", "/tasks", "/"):
        with pytest.raises(ConfigurationError, match="SIDECARD_TOPIC"):
            TopicName.parse(wrong)
