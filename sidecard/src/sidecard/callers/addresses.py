"""Which addresses of an issuer, and of what it names, can be believed."""

from urllib.parse import urlsplit

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def is_safe(url: str) -> bool:
    """Whether what comes from there is from whom it should be: https, or this machine."""
    try:
        parsed = urlsplit(url)
        return bool(parsed.hostname) and (
            parsed.scheme == "https" or (parsed.scheme == "http" and parsed.hostname in LOOPBACK)
        )
    except ValueError:
        return False


def check_url(url: str) -> str:
    """The URL of an issuer. Raises ValueError for one that tokens can't be believed from."""
    parsed = urlsplit(url)
    if not is_safe(url) or parsed.query or parsed.fragment or parsed.username:
        raise ValueError("an issuer is https://… (http:// on this machine only), without query or fragment")
    return url
