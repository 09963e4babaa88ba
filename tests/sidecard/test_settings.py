"""The environment, read once: what outranks what, and what is said of a variable that is wrong."""

import pytest

from sidecard.errors import ConfigurationError
from sidecard.settings import LOCAL, MOST_BODY_BYTES, Settings
from sidecard.tasks.pending import MOST_RECORD_BYTES


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch, tmp_path):
    """A project without tokens, and an environment that says nothing of settings."""
    monkeypatch.chdir(tmp_path)
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.validation_alias), raising=False)


def tokens(app_id, text):
    (LOCAL / "tokens").mkdir(parents=True, exist_ok=True)
    (LOCAL / "tokens" / f"{app_id}.env").write_text(text)


def test_an_app_runs_without_any_variable():
    """On this machine only, without gRPC; its card says where."""
    settings = Settings.load("shop")
    assert (settings.app_id, settings.host, settings.grpc_port, settings.otlp_endpoint) == (
        "shop",
        "127.0.0.1",
        None,
        None,
    )
    assert (settings.card_url, settings.grpc_target) == ("http://127.0.0.1:8080", None)


def test_each_app_reads_its_own_tokens_and_the_environment_outranks_them(monkeypatch):
    """So a container is handed its tokens, and a laptop needs no exports."""
    tokens("shop", "APP_API_TOKEN=shop's\nDAPR_API_TOKEN=sidecar's\n")
    tokens("mill", "APP_API_TOKEN=mill's\n")
    monkeypatch.setenv("DAPR_API_TOKEN", "handed in")
    settings = Settings.load("shop")
    assert settings.app_api_token.get_secret_value() == "shop's"
    assert settings.dapr_api_token.get_secret_value() == "handed in"
    assert Settings.load("mill").app_api_token.get_secret_value() == "mill's"


def test_the_app_that_is_asked_for_counts(monkeypatch):
    """Not the one that the environment names: tests and the command line load others' settings."""
    monkeypatch.setenv("APP_ID", "mill")
    assert Settings.load("shop").app_id == "shop"


def test_tokens_do_not_show():
    """Whoever prints or logs settings gives nothing away."""
    tokens("shop", "APP_API_TOKEN=the shop's\nDAPR_API_TOKEN=the sidecar's\n")
    shown = f"{Settings.load('shop')!r} {Settings.load('shop').model_dump_json()}"
    assert "the shop's" not in shown
    assert "the sidecar's" not in shown


@pytest.mark.parametrize(
    ("url", "grpc", "card_url", "grpc_target"),
    [
        ("", "", "http://127.0.0.1:8000", "127.0.0.1:8200"),
        ("https://shop.example.org/", "", "https://shop.example.org", "127.0.0.1:8200"),
        ("", "shop.example.org:443", "http://127.0.0.1:8000", "shop.example.org:443"),
    ],
)
def test_the_card_names_where_callers_outside_find_the_agent(monkeypatch, url, grpc, card_url, grpc_target):
    """Where it listens, unless it is said to be found elsewhere."""
    for name, value in {
        "APP_PORT": "8000",
        "SIDECARD_GRPC_PORT": "8200",
        "SIDECARD_PUBLIC_URL": url,
        "SIDECARD_PUBLIC_GRPC": grpc,
    }.items():
        monkeypatch.setenv(name, value)
    settings = Settings.load("shop")
    assert (settings.card_url, settings.grpc_target) == (card_url, grpc_target)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("APP_PORT", "eighty", "valid integer, unable to parse.*"),
        ("APP_PORT", "", "valid integer, unable to parse.*"),
        ("APP_PORT", "99999", "less than or equal to 65535"),
        ("SIDECARD_GRPC_PORT", "0", "greater than or equal to 1"),
        ("DAPR_HTTP_PORT", "-1", "greater than or equal to 1"),
        ("DAPR_GRPC_PORT", "x", "valid integer, unable to parse.*"),
        ("SIDECARD_MAX_BODY_BYTES", "10", "greater than or equal to 1024"),
        ("SIDECARD_RETENTION_DAYS", "-1", "greater than or equal to 0"),
        ("SIDECARD_DEDUPLICATION_HOURS", "0", "greater than or equal to 1"),
    ],
)
def test_a_wrong_variable_is_named(monkeypatch, name, value, words):
    """In one line, with what it should be, and without its value."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=rf"environment is set up wrongly: {name}: .*{words}$") as caught:
        Settings.load("shop")
    assert "\n" not in str(caught.value)


def test_all_wrong_variables_are_named_at_once(monkeypatch):
    """So that nobody mends one to meet the next."""
    monkeypatch.setenv("APP_PORT", "x")
    monkeypatch.setenv("DAPR_HTTP_PORT", "x")
    with pytest.raises(ConfigurationError, match=r"APP_PORT.*; DAPR_HTTP_PORT"):
        Settings.load("shop")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"SIDECARD_TLS_CERTIFICATE": "c"}, "SIDECARD_TLS_CERTIFICATE and SIDECARD_TLS_KEY are set together"),
        ({"SIDECARD_TLS_KEY": "k"}, "SIDECARD_TLS_CERTIFICATE and SIDECARD_TLS_KEY are set together"),
        ({"SIDECARD_TLS_PORT": "8443"}, "SIDECARD_TLS_PORT needs SIDECARD_TLS_CERTIFICATE"),
        ({"SIDECARD_TLS_CLIENT_CA": "ca"}, "SIDECARD_TLS_CLIENT_CA needs SIDECARD_TLS_CERTIFICATE"),
        (
            {"SIDECARD_TLS_PORT": "8080", "SIDECARD_TLS_CERTIFICATE": "c", "SIDECARD_TLS_KEY": "k"},
            "SIDECARD_TLS_PORT is a port of its own",
        ),
    ],
)
def test_half_of_tls_is_none(monkeypatch, variables, words):
    """Nobody believes that a port is protected which is not."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=words):
        Settings.load("shop")


def test_no_larger_bodies_are_taken_than_a_task_can_keep(monkeypatch):
    """They would be received whole, and refused one by one; an operator is told at once, and how much fits."""
    assert MOST_BODY_BYTES == MOST_RECORD_BYTES
    monkeypatch.setenv("SIDECARD_MAX_BODY_BYTES", str(MOST_RECORD_BYTES))
    assert Settings.load("shop").max_body_bytes == MOST_RECORD_BYTES
    monkeypatch.setenv("SIDECARD_MAX_BODY_BYTES", str(MOST_RECORD_BYTES + 1))
    with pytest.raises(ConfigurationError, match=r"SIDECARD_MAX_BODY_BYTES.*8000000"):
        Settings.load("shop")
