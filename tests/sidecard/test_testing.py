"""The fakes that a forker's tests import."""

from sidecard import testing

NAMES = """APP_TOKEN AUDIENCE ISSUER KEY Binding FakeAgents FakeIssuer FakeTopic FakeWebhooks MemoryStore Publisher
    Served caller ended key_of message served started"""


def test_what_tests_import_has_one_address():
    """Wherever a fake is kept; pinned, since a change here is a change of the API."""
    assert testing.__all__ == NAMES.split()
    assert all(getattr(testing, name).__class__.__name__ != "module" for name in testing.__all__)
