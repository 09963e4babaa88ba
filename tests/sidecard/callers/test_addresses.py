"""Which addresses of an issuer can be believed."""

import pytest

from sidecard.callers.addresses import check_url, is_safe


@pytest.mark.parametrize(
    "url",
    [
        "http://login.example.org",
        "login.example.org",
        "ftp://login.example.org",
        "https://",
        "https://login.example.org?x",
        "https://login.example.org#x",
        "https://me@login.example.org",
        "http://127.0.0.1.example.org",
        "https://[",
    ],
)
def test_an_issuer_has_an_address_that_can_be_believed(url):
    """https, or this machine, for tests."""
    with pytest.raises(ValueError, match=r"https|Invalid"):
        check_url(url)
    assert check_url("http://127.0.0.1:9000") == "http://127.0.0.1:9000"


def test_what_an_issuer_names_is_safe_by_https_or_on_this_machine():
    """Whatever else it is, nothing is sent to it."""
    safe = ("https://a.example/x", "http://127.0.0.1:1/x", "http://localhost/x", "http://[::1]:8/x")
    unsafe = ("http://a.example", "javascript:1", "", "//a.example", "https:///x", "http://[", "file:///x")
    assert [is_safe(url) for url in safe] == [True] * len(safe)
    assert [is_safe(url) for url in unsafe] == [False] * len(unsafe)
