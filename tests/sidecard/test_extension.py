"""Our extension: what it puts into messages comes out again, and what others put there does no harm."""

import pytest
from a2a.types import Message, SendMessageRequest
from pydantic import ValidationError

from sidecard.extension import URI, Asked, Sent

ASKED = Asked(question="t:3", options={"LHR": "Heathrow", "LGW": "Gatwick", "10": "ten"}, scope="choose", by_other=True)


def over_the_wire(message):
    return Message.FromString(message.SerializeToString())


def test_what_is_sent_comes_out_again():
    """In the message's metadata, and named among its extensions."""
    sent = Sent(skill="look", question="t:1", subject="ada")
    message = over_the_wire(sent.attach(Message()))
    assert list(message.extensions) == [URI]
    assert Sent.of(SendMessageRequest(message=message)) == sent


def test_a_request_may_carry_it_in_its_own_metadata():
    """The message's own counts where both do."""
    request = SendMessageRequest()
    request.metadata.update({URI: {"skill": "look"}})
    assert Sent.of(request).skill == "look"
    Sent(skill="buy").attach(request.message)
    assert Sent.of(request).skill == "buy"


def test_a_message_without_it_says_nothing():
    """Callers that don't know the extension are served all the same; so is a newer version of it."""
    request = SendMessageRequest()
    request.message.metadata.update({"https://elsewhere/ext": {"skill": "look"}})
    assert Sent.of(request) == Sent()
    request.message.metadata.update({URI: {"skill": "look", "newer": 1}})
    assert Sent.of(request) == Sent(skill="look")


@pytest.mark.parametrize("content", ["look", None, 7, ["look"], {"skill": 7}, {"skill": ["look"]}, {"subject": {}}])
def test_another_shape_is_refused(content):
    """The caller meant something that can't be guessed."""
    request = SendMessageRequest()
    request.message.metadata.update({URI: content})
    with pytest.raises(ValidationError):
        Sent.of(request)


def test_a_question_comes_out_again_with_its_options_in_order():
    """Objects lose their order in protobuf; the likeliest choice must stay first."""
    asked = Asked.of(over_the_wire(ASKED.attach(Message())))
    assert asked == ASKED
    assert list(asked.options) == ["LHR", "LGW", "10"]


def test_a_status_without_it_is_no_question_of_ours():
    """Another framework's agent asks in words only."""
    assert Asked.of(Message()) is None


@pytest.mark.parametrize(
    "content",
    [
        "question",
        None,
        {},
        {"question": 7},
        {"question": "q", "options": 7},
        {"question": "q", "options": [7]},
        {"question": "q", "options": ["ab"]},
        {"question": "q", "options": [["a"]]},
        {"question": "q", "options": [["a", "b", "c"]]},
        {"question": "q", "by_other": "perhaps"},
    ],
)
def test_a_question_of_another_shape_is_read_by_its_words_only(content):
    """What another agent puts there must not fail the task that asked it."""
    message = Message()
    message.metadata.update({URI: content})
    assert Asked.of(message) is None


@pytest.mark.parametrize("options", [[], {"a": "b"}, [["a", "b"]]])
def test_options_may_come_as_pairs_or_as_an_object(options):
    """Both are read."""
    message = Message()
    message.metadata.update({URI: {"question": "q", "options": options}})
    assert Asked.of(message).options == dict(options)
