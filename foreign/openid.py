"""The OpenID provider of node/provider.mjs as a process beside this one, and a person signing in there."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx

from foreign import program

PROGRAM = Path(__file__).parent / "node" / "provider.mjs"
MOST_STEPS = 20
"""More pages than any way to sign in has."""
_LINK = re.compile(r'<a href="(\?account=[^"]+)">([^<]+)</a>')
_FORM = re.compile(r'<form[^>]*action="([^"]+)"')
_INPUT = re.compile(r'<input type="hidden" name="([^"]+)" value="([^"]*)"')


class Provider:
    """A running provider: its `issuer` is its base URL."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer

    def token(self, client: str, secret: str, *, resource: str, scope: str = "") -> str:
        """An access token by client credentials, for one audience. Raises httpx.HTTPStatusError when it is refused."""
        asked = {"grant_type": "client_credentials", "resource": resource} | ({"scope": scope} if scope else {})
        answer = httpx.post(f"{self.issuer}/token", data=asked, auth=(client, secret))
        token: str = answer.raise_for_status().json()["access_token"]
        return token

    def rotate(self, *, withdraw: bool = False) -> None:
        """Sign with new keys from now on; with `withdraw`, the old ones are no longer published."""
        httpx.post(f"{self.issuer}/test/rotate", params={"withdraw": "1"} if withdraw else {}).raise_for_status()

    def requests(self) -> dict[str, int]:
        """How often each path was asked for."""
        counts: dict[str, int] = httpx.get(f"{self.issuer}/test/requests").json()
        return counts

    def sign_in(self, url: str, account: str) -> str:
        """Do what a person with a browser does: open a page of the provider, and sign in as this account.

        Returns the address outside of the provider that the browser is sent to, which is not opened; or, for a device,
        that of the last page.
        """
        with httpx.Client() as browser:
            page = browser.get(url)
            for _ in range(MOST_STEPS):
                if page.has_redirect_location:
                    url = urljoin(str(page.url), page.headers["location"])
                    if not url.startswith(f"{self.issuer}/"):
                        return url
                    page = browser.get(url)
                elif links := {unescape(name): link for link, name in _LINK.findall(page.text)}:
                    page = browser.get(urljoin(str(page.url), unescape(links[account])))
                elif form := _FORM.search(page.text):
                    fields = {name: unescape(value) for name, value in _INPUT.findall(page.text)}
                    page = browser.post(urljoin(str(page.url), unescape(form[1])), data=fields)
                else:
                    page.raise_for_status()
                    return str(page.url)
        raise RuntimeError(f"signing in at {url} has no end")


@contextlib.contextmanager
def running(config: Mapping[str, Any], port: int = 0) -> Iterator[Provider]:
    """A provider with this config (see node/provider.mjs) on 127.0.0.1, by default on a free port, during the block.

    Raises RuntimeError, with what it said, when it does not start.
    """
    with program.running("the OpenID provider", ["node", str(PROGRAM), str(port)], config) as said:
        yield Provider(said["issuer"])
