"""agents/foreign.yaml against what is pinned, who issues, and who delegates."""

import json

import pytest
import yaml
from jwcrypto.jwk import JWK

from sidecard.check import check
from tests.sidecard.check.conftest import STUB, put

FILE, CALLERS = "agents/foreign.yaml", "agents/callers.yaml"
RAIL = {"url": "https://rail.example.org", "publisher": "Rail"}
ISSUER = "https://login.example.org/realms/travel"


def listed(project, name="railways", **more):
    project.write(FILE, yaml.safe_dump({"agents": {name: RAIL | more}}))


def pin(project, *publishers):
    key = JWK.generate(kty="EC", crv="P-256", kid="k", alg="ES256").export_public(as_dict=True)
    trust = {"publishers": {publisher: {"keys": [key]} for publisher in publishers}}
    (project.root / ".sidecard").mkdir(exist_ok=True)
    project.write(".sidecard/secrets.json", json.dumps({"trust": {"publishers": json.dumps(trust)}}))


def test_agents_of_others_that_can_be_called_are_fine(project):
    """Pinned, over https, by tokens of an issuer that callers come with."""
    pin(project, "Rail")
    listed(project, credentials={"issuer": ISSUER, "exchange": True})
    project.change(CALLERS, put("issuers", value={"company": {"url": ISSUER}}))
    assert project.findings() == []


@pytest.mark.parametrize(
    "content", ["agents: {railways: {publisher: Rail}}", "agents: {railways: {url: 'https://r.example.org'}}", "x: 1"]
)
def test_what_can_not_be_read_is_found(project, content):
    """With the words that the agent itself would stop with."""
    project.write(FILE, content)
    [(file, problem)] = project.findings()
    assert (file, "is not a list of foreign agents" in problem) == (FILE, True)


def test_a_publisher_without_a_pinned_key_is_found(project):
    """Its card would be refused; on a machine without a trust file nobody knows."""
    listed(project)
    assert project.findings() == []
    pin(project, "Canals")
    assert project.findings() == [(FILE, "no key is pinned of 'Rail', who publishes 'railways'")]
    listed(project, publisher="", card_digest="0" * 64)
    assert project.findings() == []


@pytest.mark.parametrize(
    ("more", "url"),
    [
        ({"url": "http://rail.example.org"}, "http://rail.example.org"),
        ({"credentials": {"issuer": "http://login.example.org"}}, "http://login.example.org"),
    ],
)
def test_what_is_not_reached_safely_is_found(project, more, url):
    """Tokens and secrets go there; on this machine http will do."""
    listed(project, **more)
    assert project.findings() == [(FILE, f"{url}, of 'railways', is not https")]
    listed(project, url="http://127.0.0.1:9001")
    assert project.findings() == []


def test_an_exchange_of_tokens_that_nobody_comes_with_is_found(project):
    """To the letter: another issuer's token is never shown to this one."""
    listed(project, credentials={"issuer": ISSUER, "exchange": True})
    project.change(CALLERS, put("issuers", value={"company": {"url": ISSUER + "/"}}))
    assert project.findings() == [
        (FILE, f"'railways' is called by callers' own tokens of {ISSUER}, which nobody comes with")
    ]


def test_a_name_that_an_app_has_is_found(project):
    """It would be called instead of that."""
    listed(project, name="flights")
    assert project.findings() == [(FILE, "'flights' is an app of the mesh too")]


def test_an_agent_that_nobody_knows_is_a_warning(project):
    """Misspelt, or in the registry alone."""
    scopes = ["flights:book", "flights:search"]
    source = STUB.format(name="flights", scopes=scopes)
    project.write(
        "agents/flights/agent.py", source + "\nasync def ask(task):\n    await task.delegate('rail', 's', 'x')\n"
    )
    problem = "delegates to 'rail', which is no agent of agents/ or of agents/foreign.yaml"
    assert [(f.level, f.problem) for f in check(project.root)] == [("warning", problem)]
    listed(project, name="rail")
    assert project.findings() == []
