"""Which screen an agent has."""

import httpx

from sidecard.errors import ConfigurationError
from sidecard.screening.conversation import ConversationScreen
from sidecard.screening.local import LocalScreen
from sidecard.screening.remote import RemoteScreen
from sidecard.screening.screen import Screen
from sidecard.settings import Settings
from sidecard.sidecar import sidecar_client

_CONVERSATION = "conversation:"


def screen_of(settings: Settings) -> Screen | None:
    """The screen that the settings name; None when there is to be none. Raises ConfigurationError for what is none."""
    named = settings.screen
    if named == "off":
        return None
    if named == "local":
        return LocalScreen()
    if named.startswith(_CONVERSATION) and named != _CONVERSATION:
        return ConversationScreen(named.removeprefix(_CONVERSATION), LocalScreen(), sidecar_client(settings))
    if named.startswith(("https://", "http://")) and httpx.URL(named).host:
        return RemoteScreen(named)
    raise ConfigurationError(
        f"SIDECARD_SCREEN is {named[:80]!r}: write local, the URL of a service, conversation:NAME, or off"
    )
