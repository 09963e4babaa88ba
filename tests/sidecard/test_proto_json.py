"""ProtoJSON: what is read and written is what the SDK's own parser and writer make of it; what doesn't fit is named."""

import pytest
from a2a.server.routes.jsonrpc_dispatcher import JsonRpcDispatcher
from a2a.types import (
    AgentCard,
    Artifact,
    ListTasksRequest,
    Message,
    Part,
    SecurityScheme,
    SendMessageRequest,
    TaskArtifactUpdateEvent,
    TaskStatus,
    TaskStatusUpdateEvent,
)
from a2a.types import Task as A2ATask
from a2a.utils.errors import InvalidParamsError
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecard.proto_json import check_query, read, write

REQUESTS = list(JsonRpcDispatcher.METHOD_TO_MODEL.values())


def fields_of(descriptor, depth=0):
    names = {name for field in descriptor.fields for name in (field.name, field.json_name)}
    inner = (field.message_type for field in descriptor.fields if field.message_type is not None)
    return names.union(*(fields_of(one, depth + 1) for one in inner if "google" not in one.full_name))


NAMES = sorted(set().union(*(fields_of(request.DESCRIPTOR) for request in REQUESTS)))
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    st.sampled_from(
        [
            "ROLE_USER",
            "TASK_STATE_WORKING",
            "2026-03-03T10:00:00.5Z",
            "2026-03-03T10:00:00+01:00",
            "YQ==",
            "YQ",
            "-_+/",
            "1",
        ]
    ),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=15,
)


@settings(max_examples=1000, deadline=None, derandomize=True)
@given(request=st.sampled_from(REQUESTS), value=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5))
def test_reading_and_writing_agree_with_the_reference(request, value):
    """What passes becomes the message that the SDK's parser makes, and goes back to the JSON that its writer makes."""
    try:
        message = read(value, request)
    except InvalidParamsError:
        return
    assert message == ParseDict(value, request(), ignore_unknown_fields=True)
    assert write(message) == MessageToDict(message)


TEXTS = st.text(max_size=5)
PARTS = st.builds(
    lambda content, data, filename: Part(**content, filename=filename, metadata=data),
    st.one_of(
        st.builds(lambda text: {"text": text}, TEXTS),
        st.builds(lambda raw: {"raw": raw}, st.binary(max_size=5)),
        st.builds(lambda data: {"data": ParseDict(data, Value())}, VALUES),
    ),
    st.dictionaries(TEXTS, TEXTS, max_size=2).map(lambda data: ParseDict(data, Struct())),
    TEXTS,
)
MESSAGES = st.builds(Message, message_id=TEXTS, role=st.integers(0, 2), parts=st.lists(PARTS, max_size=2))
STATUSES = st.builds(
    TaskStatus,
    state=st.integers(0, 9),
    message=st.none() | MESSAGES,
    timestamp=st.builds(Timestamp, seconds=st.integers(-(10**9), 10**10), nanos=st.integers(0, 999_999_999)),
)
ARTIFACTS = st.builds(Artifact, artifact_id=TEXTS, parts=st.lists(PARTS, max_size=2))
ANSWERS = st.one_of(
    st.builds(
        A2ATask,
        id=TEXTS,
        status=st.none() | STATUSES,
        artifacts=st.lists(ARTIFACTS, max_size=2),
        history=st.lists(MESSAGES, max_size=2),
    ),
    st.builds(TaskStatusUpdateEvent, task_id=TEXTS, status=STATUSES),
    st.builds(TaskArtifactUpdateEvent, artifact=ARTIFACTS, append=st.booleans(), last_chunk=st.booleans()),
)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(answer=ANSWERS)
def test_answers_are_written_as_the_reference_does(answer):
    """Every member of a task, a message and an event, whatever it holds."""
    assert write(answer) == MessageToDict(answer)


def test_numbers_that_json_does_not_have_are_not_written():
    """Only gRPC can bring them in, and nobody could read the answer."""
    with pytest.raises(ValueError, match="finite"):
        write(Part(data=Value(number_value=float("nan"))))


def test_a_map_is_refused_where_it_would_be_written_wrongly():
    """A card has maps: those few go the protobuf library's own way."""
    card = AgentCard(name="shop", security_schemes={"key": SecurityScheme()})
    with pytest.raises(NotImplementedError, match="map"):
        write(card)


def test_all_violations_come_at_once_and_in_the_details():
    """In words, and as field violations; no more than ten."""
    with pytest.raises(InvalidParamsError) as caught:
        read({"message": {"messageId": 1, "role": 2}, "tenant": 3}, SendMessageRequest)
    assert [violation["field"] for violation in caught.value.data["errors"]] == [
        "message.messageId",
        "message.role",
        "tenant",
    ]
    with pytest.raises(InvalidParamsError) as caught:
        read({"message": {"parts": [1] * 50}}, SendMessageRequest)
    assert len(caught.value.data["errors"]) == 10


@pytest.mark.parametrize("raw", ["", "YQ==", "YQ", "YWI=", "YWJj", "-_-_", "+/+/"])
def test_base64_of_either_alphabet_is_taken(raw):
    """Padded or not."""
    read({"message": {"parts": [{"raw": raw}]}}, SendMessageRequest)


@pytest.mark.parametrize("raw", ["Y", "YQ=Q", "Y Q=", "YQ\n", "===", "YWJjZ", "é"])
def test_what_is_not_base64_is_not_taken(raw):
    """Also where a lenient decoder would make something of it."""
    with pytest.raises(InvalidParamsError):
        read({"message": {"parts": [{"raw": raw}]}}, SendMessageRequest)


def test_queries_know_one_name_of_a_field():
    """The camelCase one (§11.5), as the routes do; others are ignored."""
    check_query({"page_size": "x"}, ListTasksRequest)
    with pytest.raises(InvalidParamsError, match="pageSize"):
        check_query({"pageSize": "x"}, ListTasksRequest)
