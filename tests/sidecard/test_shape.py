"""The shape of requests: what passes is read by the SDK's parser, what doesn't is named."""

import pytest
from a2a.server.routes.jsonrpc_dispatcher import JsonRpcDispatcher
from a2a.types import ListTasksRequest, SendMessageRequest
from a2a.utils.errors import InvalidParamsError
from google.protobuf.json_format import MessageToDict, ParseDict
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecard.shape import check, check_query

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


@settings(max_examples=2000, deadline=None, derandomize=True)
@given(request=st.sampled_from(REQUESTS), value=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5))
def test_what_passes_is_read_without_a_word(request, value):
    """The SDK's parser, and its way back to JSON, never stumble over what was let through."""
    try:
        check(value, request)
    except InvalidParamsError:
        return
    MessageToDict(ParseDict(value, request(), ignore_unknown_fields=True))


def test_all_violations_come_at_once_and_in_the_details():
    """In words, and as field violations; no more than ten."""
    with pytest.raises(InvalidParamsError) as caught:
        check({"message": {"messageId": 1, "role": 2}, "tenant": 3}, SendMessageRequest)
    assert [violation["field"] for violation in caught.value.data["errors"]] == [
        "message.messageId",
        "message.role",
        "tenant",
    ]
    with pytest.raises(InvalidParamsError) as caught:
        check({"message": {"parts": [1] * 50}}, SendMessageRequest)
    assert len(caught.value.data["errors"]) == 10


@pytest.mark.parametrize("raw", ["", "YQ==", "YQ", "YWI=", "YWJj", "-_-_", "+/+/"])
def test_base64_of_either_alphabet_is_taken(raw):
    """Padded or not."""
    check({"message": {"parts": [{"raw": raw}]}}, SendMessageRequest)


@pytest.mark.parametrize("raw", ["Y", "YQ=Q", "Y Q=", "YQ\n", "===", "YWJjZ", "é"])
def test_what_is_not_base64_is_not_taken(raw):
    """Also where a lenient decoder would make something of it."""
    with pytest.raises(InvalidParamsError):
        check({"message": {"parts": [{"raw": raw}]}}, SendMessageRequest)


def test_queries_know_one_name_of_a_field():
    """The camelCase one (§11.5), as the routes do; others are ignored."""
    check_query({"page_size": "x"}, ListTasksRequest)
    with pytest.raises(InvalidParamsError, match="pageSize"):
        check_query({"pageSize": "x"}, ListTasksRequest)
