"""Our own errors beside the SDK's: servers know them, and its clients do not, whatever is imported first."""

import subprocess
import sys

import pytest

CODE = """
import sys
import {first}
import sidecard.refusals
from a2a.client.transports import jsonrpc
sys.exit(not {{-31403, -31503}}.isdisjoint(jsonrpc._JSON_RPC_ERROR_CODE_TO_A2A_ERROR))
"""


@pytest.mark.parametrize("first", ["sidecard.refusals", "sidecard.delegation", "sidecard.app", "a2a.client"])
def test_the_sdks_client_does_not_take_our_errors_for_its_own(first):
    """It would raise other classes for them, by the order of imports, and a retry would depend on that."""
    assert subprocess.run([sys.executable, "-c", CODE.format(first=first)], check=False).returncode == 0
