"""The grammar of agents/callers.yaml."""

import pytest
from pydantic import ValidationError

from sidecard.callers import CallersFile
from sidecard.errors import ConfigurationError


@pytest.mark.parametrize(
    "content",
    [None, "callers: [", "callers: {desk: {sidecars: true}}", "other: {}", "", "callers: {desk: {grants: [x]}}"],
)
def test_a_file_that_can_not_be_read_says_which_and_why(tmp_path, content):
    """ConfigurationError in one line with the path; a misspelt word is an error, not a caller without rights."""
    path = tmp_path / "callers.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"callers\.yaml is not a list of callers: .") as caught:
        CallersFile.read(path)
    assert "\n" not in str(caught.value)


COMPANY = {"url": "https://login.example.org"}


def token(**who):
    return {"token": {"issuer": "company"} | who}


def test_tokens_are_known_by_issuer_and_subject_or_client():
    """An issuer needs no more than its address."""
    file = CallersFile.model_validate(
        {"issuers": {"company": COMPANY}, "callers": {"ada": token(subject="7"), "partner": token(client="p")}}
    )
    assert file.issuers["company"].algorithms == ["RS256", "PS256", "ES256", "EdDSA", "Ed25519"]
    assert file.issuers["company"].types == ["at+jwt"]
    assert (file.callers["ada"].token.subject, file.callers["partner"].token.client) == ("7", "p")


@pytest.mark.parametrize(
    ("issuers", "callers", "why"),
    [
        ({}, {"ada": token(subject="7")}, "no issuer 'company'"),
        ({"company": COMPANY}, {"ada": token()}, "a person.* or a client"),
        ({"company": COMPANY}, {"ada": token(subject="7", client="7")}, "one of them"),
        ({"company": COMPANY}, {"ada": token(subject="a b")}, "pattern"),
        ({"company": COMPANY}, {"ada": token(subject="7"), "bob": token(subject="7")}, "two callers are '7'"),
        ({"company": COMPANY, "other": COMPANY}, {}, "same url"),
        ({"company": {"url": "http://login.example.org"}}, {}, "https"),
        ({"company": COMPANY | {"algorithms": ["HS256"]}}, {}, "RS256"),
        ({"company": COMPANY | {"algorithms": ["none"]}}, {}, "RS256"),
        ({"company": COMPANY | {"algorithms": []}}, {}, "at least 1"),
        ({"com/pany": COMPANY}, {}, "pattern"),
        ({}, {"company/ada": {"api_key": True}}, "pattern"),
        ({}, {"": {"api_key": True}}, "pattern"),
    ],
)
def test_what_could_be_taken_for_somebody_else_is_refused(issuers, callers, why):
    """Two callers with one proof, a caller by the name that a person of an issuer would have, secrets anybody has."""
    with pytest.raises(ValidationError, match=why):
        CallersFile.model_validate({"issuers": issuers, "callers": callers})
