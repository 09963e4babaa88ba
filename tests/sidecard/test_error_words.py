"""What others' error answers say."""

import httpx
import pytest

from sidecard.error_words import MOST_CHARACTERS, words_of


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx.Response(403, json={"error": {"code": -31403, "message": "no\nright"}}), "no right"),
        (httpx.Response(422, json={"error": "not signed"}), "not signed"),
        (httpx.Response(500, json={"errorCode": "ERR_DIRECT_INVOKE", "message": "no such app"}), "no such app"),
        (httpx.Response(500, json={"error": {"code": 1}}), '{"error":{"code":1}}'),
        (httpx.Response(500, json=["x"]), '["x"]'),
        (httpx.Response(500, text="<html>"), "<html>"),
        (httpx.Response(502), "Bad Gateway"),
    ],
)
def test_an_error_is_told_in_the_other_sides_words(answer, words):
    """Whoever of agent, app and sidecar said it, in a line."""
    assert words_of(answer) == words


def test_a_long_error_is_cut():
    """It goes into logs and messages."""
    assert len(words_of(httpx.Response(500, text="x" * 10_000))) == MOST_CHARACTERS
