"""What a request says of its caller."""

from sidecard.callers import Claims


def test_claims_are_the_headers_about_the_caller():
    """And the certificate of its connection; nothing else of the request."""
    headers = [("x-api-key", "a"), ("accept", "b"), ("accept", "c"), ("dapr-caller-app-id", "desk")]
    claims = Claims.of([*headers, ("authorization", "Bearer t")], b"der")
    assert (claims.key, claims.app_id, claims.authorization) == ("a", "desk", "Bearer t")
    assert claims.certificate == b"der"
    assert "accept" not in claims.headers


def test_claims_that_come_twice_are_none():
    """Which of two headers counts is what an attacker would like to choose."""
    headers = {"x-api-key": "a", "dapr-caller-app-id": "desk", "dapr-api-token": "t", "authorization": "Bearer t"}
    for twice in headers:
        assert Claims.of([*headers.items(), (twice, "a")]).headers == {}


def test_secrets_are_not_shown():
    """Neither a key nor a token gets into a log or a traceback by way of the claims."""
    assert "secret" not in repr(Claims.of([("x-api-key", "secret"), ("authorization", "Bearer secret")]))
