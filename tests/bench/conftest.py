"""Real servers on this machine, as the library's own tests have them."""

from tests.sidecard.conftest import listen

__all__ = ["listen"]
