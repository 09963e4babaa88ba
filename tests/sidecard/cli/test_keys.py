"""`sidecard keys` and `sidecard trust`: rotation with overlap, and publishers that are pinned by their thumbprint."""

import json

import pytest
from a2a.types import AgentCard
from google.protobuf.json_format import ParseDict
from jwcrypto.jwk import JWK
from typer.testing import CliRunner

from sidecard.cli import app, bootstrap
from sidecard.errors import CardRejected, ConfigurationError
from sidecard.signature import sign, signing_keys
from sidecard.trust import TrustStore, verify

AGENT = "stub-agent"
RAIL = JWK.generate(kty="EC", crv="P-256", kid="rail-1", alg="ES256")


@pytest.fixture
def run(project, monkeypatch):
    """Runs a command in a project that has its keys; returns what it prints with --json, or raises what it raises."""
    monkeypatch.chdir(project.root)
    bootstrap.ensure(project)

    def run(*words: str, **given: str) -> dict:
        done = CliRunner().invoke(app, [*words, "--json"], **given)
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return json.loads(done.stdout)

    return run


def secret(project) -> str:
    return json.loads((project.local / "secrets.json").read_text())[AGENT]["signing-key"]


def trusted(project) -> TrustStore:
    """What the agents see."""
    return TrustStore.parse(json.loads((project.local / "secrets.json").read_text())["trust"]["publishers"])


def card(project) -> AgentCard:
    content = {"name": AGENT, "version": "1", "provider": {"organization": "Stub Desk", "url": "http://x"}}
    return sign(ParseDict(content, AgentCard()), *signing_keys(secret(project)))


def test_a_rotation_from_end_to_end(run, project):
    """Old and new verifiers believe the card during the overlap; afterwards only those that know the new key."""
    before = trusted(project)
    old, signed_before = run("keys")["keys"][0], card(project)
    new = run("keys", "rotate", AGENT)
    shown = card(project)
    assert verify(shown, before).kid == old["kid"]
    only_new = TrustStore.parse(json.dumps({"publishers": {"Stub Desk": {"keys": [new["public"]]}}}))
    assert verify(shown, only_new).kid == new["kid"]
    assert [(key["kid"], key["use"]) for key in run("keys")["keys"]] == [
        (new["kid"], "signs"),
        (old["kid"], "signs, to be retired"),
    ]
    assert run("keys", "retire", AGENT)["retired"] == [old["kid"]]
    assert verify(card(project), trusted(project)).kid == new["kid"]
    with pytest.raises(CardRejected):
        verify(card(project), before)
    with pytest.raises(CardRejected, match=f"'{old['kid']}' is not pinned"):
        verify(signed_before, trusted(project))
    assert old["kid"] not in "".join(path.read_text() for path in project.local.glob("*.json"))
    assert bootstrap.ensure(project) == []


def test_the_only_key_stays(run):
    """An agent without a key could not run."""
    with pytest.raises(ConfigurationError, match="keys rotate"):
        run("keys", "retire", AGENT)
    run("keys", "rotate", AGENT)
    for kid in [key["kid"] for key in run("keys")["keys"]][:1]:
        run("keys", "retire", AGENT, kid)
    with pytest.raises(ConfigurationError, match="which stays"):
        run("keys", "retire", AGENT, run("keys")["keys"][0]["kid"])
    with pytest.raises(ConfigurationError, match="has no key 'other'"):
        run("keys", "retire", AGENT, "other")


def test_keys_say_their_age_and_their_public_half(run):
    """That is what a partner pins; no private number is printed."""
    [key] = run("keys")["keys"]
    assert key["made"]
    assert key["thumbprint"] == JWK(**key["public"]).thumbprint()
    assert "d" not in key["public"]


def test_keys_pile_up_to_four(run):
    """Each costs every verifier two signatures."""
    for _ in range(3):
        run("keys", "rotate", AGENT)
    with pytest.raises(ConfigurationError, match="retire"):
        run("keys", "rotate", AGENT)


@pytest.mark.parametrize("agent", ["nobody", "stub-desk"])
def test_only_agents_have_keys(run, agent):
    """The others are named."""
    with pytest.raises(ConfigurationError, match="there are: stub-agent"):
        run("keys", "rotate", agent)


FILES = {
    "jwk": RAIL.export_public(),
    "set": json.dumps({"keys": [RAIL.export_public(as_dict=True)]}),
    "pem": RAIL.export_to_pem().decode(),
}


@pytest.mark.parametrize("form", FILES)
def test_a_publisher_is_pinned_by_its_thumbprint(run, project, tmp_path, form):
    """Its cards are believed from then on, until it is unpinned."""
    file = tmp_path / "rail"
    file.write_text(FILES[form])
    named = ["--kid", "rail-1"] if form == "pem" else []
    with pytest.raises(ConfigurationError, match="nobody to ask"):
        run("trust", "pin", "Rail Inc", str(file), *named)
    with pytest.raises(ConfigurationError, match="ask the publisher"):
        run("trust", "pin", "Rail Inc", str(file), *named, "--thumbprint", "another")
    signed = sign(ParseDict({"name": "rail", "provider": {"organization": "Rail Inc"}}, AgentCard()), RAIL)
    with pytest.raises(CardRejected, match="is unknown"):
        verify(signed, trusted(project))
    run("trust", "pin", "Rail Inc", str(file), *named, "--thumbprint", RAIL.thumbprint())
    assert verify(signed, trusted(project)).kid == "rail-1"
    assert [key["publisher"] for key in run("trust")["keys"]] == ["Stub Desk", "Rail Inc"]
    assert run("trust", "unpin", "Rail Inc")["unpinned"] == ["rail-1"]
    with pytest.raises(CardRejected, match="is unknown"):
        verify(signed, trusted(project))


def test_a_key_may_be_pinned_for_some_agents_only(run, project, tmp_path):
    """It then signs no other's card."""
    file = tmp_path / "rail.json"
    file.write_text(RAIL.export_public())
    run("trust", "pin", "Rail Inc", str(file), "--agents", "rail, ferry", "--thumbprint", RAIL.thumbprint())
    for name, believed in (("rail", True), ("ferry", True), ("bus", False)):
        signed = sign(ParseDict({"name": name, "provider": {"organization": "Rail Inc"}}, AgentCard()), RAIL)
        if believed:
            verify(signed, trusted(project))
        else:
            with pytest.raises(CardRejected, match="may sign only for ferry, rail"):
                verify(signed, trusted(project))


def test_a_person_is_asked(project, monkeypatch, tmp_path):
    """At a terminal the thumbprint is shown, and only yes pins the key."""
    monkeypatch.chdir(project.root)
    bootstrap.ensure(project)
    file = tmp_path / "rail.json"
    file.write_text(RAIL.export_public())
    monkeypatch.setattr("sidecard.cli.keys.at_terminal", lambda: True)
    for said, pinned in (("n\n", False), ("y\n", True)):
        done = CliRunner().invoke(app, ["trust", "pin", "Rail Inc", str(file)], input=said)
        assert RAIL.thumbprint() in done.output
        assert trusted(project).knows("Rail Inc") == pinned


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (RAIL.export_private(), "private key"),
        (RAIL.export_to_pem(private_key=True, password=None).decode(), "private key"),
        (JWK.generate(kty="oct", size=256, kid="k").export(), "private key"),
        ("nonsense", "holds no public key"),
        ("[]", "holds no public key"),
        ('{"keys": 7}', "holds no public key"),
        ('{"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA", "kid": "k"}', "not a valid public key"),
        (JWK.generate(kty="EC", crv="P-384", kid="k", alg="ES384").export_public(), "must be for one of"),
        (JWK.generate(kty="EC", crv="P-256", alg="ES256").export_public(), "--kid"),
    ],
    ids=["private", "private PEM", "symmetric", "no JSON", "a list", "no set", "no point", "P-384", "no name"],
)  # fmt: skip
def test_what_can_not_be_pinned_changes_nothing(run, project, tmp_path, text, says):
    """Private, symmetric and broken keys are refused with what to do."""
    before = (project.local / "trust.json").read_bytes()
    file = tmp_path / "key"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=says):
        run("trust", "pin", "Rail Inc", str(file), "--thumbprint", "x")
    assert (project.local / "trust.json").read_bytes() == before


def test_a_partners_key_is_not_pinned_for_an_app_of_ours(run, project, tmp_path):
    """Two publishers' keys would name it, and nobody's card of it be believed."""
    file = tmp_path / "rail.json"
    file.write_text(RAIL.export_public())
    with pytest.raises(ConfigurationError, match=f"{AGENT} is an app of this project"):
        run("trust", "pin", "Rail Inc", str(file), "--agents", f"rail,{AGENT}", "--thumbprint", RAIL.thumbprint())
    assert not trusted(project).knows("Rail Inc")
    assert verify(card(project), trusted(project).of_app(AGENT)).publisher == "Stub Desk"


def test_our_own_publisher_is_not_pinned_by_hand(run, tmp_path):
    """Else a partner's key could sign our agents' cards."""
    file = tmp_path / "rail.json"
    file.write_text(RAIL.export_public())
    for words in (("pin", "Stub Desk", str(file), "--thumbprint", RAIL.thumbprint()), ("unpin", "Stub Desk")):
        with pytest.raises(ConfigurationError, match="is this project"):
            run("trust", *words)
    with pytest.raises(ConfigurationError, match="No such key is pinned"):
        run("trust", "unpin", "Rail Inc")
