"""What is required of a request."""

import itertools

import pytest
from a2a.types import (
    AuthenticationInfo,
    GetTaskRequest,
    Message,
    Part,
    SendMessageConfiguration,
    SendMessageRequest,
    TaskPushNotificationConfig,
)
from a2a.utils.errors import InvalidParamsError
from a2a.utils.proto_utils import validate_proto_required_fields

from sidecard.tasks import checks


def _requests():
    yield GetTaskRequest()
    yield GetTaskRequest(id="t")
    yield SendMessageRequest()
    webhooks = [None, TaskPushNotificationConfig(), TaskPushNotificationConfig(url="u")]
    webhooks.append(TaskPushNotificationConfig(url="u", authentication=AuthenticationInfo(credentials="c")))
    for message_id, role, parts, webhook in itertools.product(["", "m"], [0, 1], [[], [Part(text="")]], webhooks):
        message = Message(message_id=message_id, role=role, parts=parts)
        configuration = SendMessageConfiguration(task_push_notification_config=webhook)
        yield SendMessageRequest(message=message, configuration=configuration if webhook else None)


@pytest.mark.parametrize("request_", list(_requests()), ids=lambda r: " ".join(str(r).split()))
def test_the_short_way_agrees_with_the_sdk(request_):
    """A request is refused where the SDK finds something missing, however deep, and only there."""
    refusals = []
    for check in (validate_proto_required_fields, checks.required):
        try:
            check(request_)
            refusals.append(None)
        except InvalidParamsError as error:
            refusals.append(error.data)
    assert refusals[0] == refusals[1]
