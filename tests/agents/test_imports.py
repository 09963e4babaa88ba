"""What an app's process imports: six start at once on a laptop, and each second of one is a second of all."""

import functools
import json
import subprocess
import sys

import pytest

CODE = "import json, sys; {}; print(json.dumps(list(sys.modules)))"
AGENTS = ("compliance", "expenses", "flights", "orchestrator")


@functools.cache
def imported(*modules):
    """All modules that a process has once it has imported these."""
    code = CODE.format("; ".join(f"import {module}" for module in modules))
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(told.stdout))


@pytest.mark.parametrize("agent", AGENTS)
def test_an_agent_loads_no_other_agent(agent):
    """What another takes and gives is enough to call it."""
    found = {
        name
        for name in imported(f"agents.{agent}.agent", "sidecard.app")
        if name.startswith("agents.") and name.endswith("agent")
    }
    assert found == {f"agents.{agent}.agent"}


@pytest.mark.parametrize("agent", AGENTS)
def test_an_agent_loads_no_language_model(agent):
    """Presidio is used without one, and takes seconds to load what it would need for it."""
    found = imported(f"agents.{agent}.agent", "sidecard.app")
    assert not {"spacy", "torch", "transformers", "presidio_analyzer", "detect_secrets"} & found


def test_only_the_agent_that_uses_tools_loads_their_client():
    """A second, which its callers are spared."""
    assert {agent for agent in AGENTS if "mcp" in imported(f"agents.{agent}.agent", "sidecard.app")} == {"expenses"}


@pytest.mark.parametrize("app", ["registry", "vendors"])
def test_an_app_that_serves_no_a2a_loads_no_server_of_it(app):
    """The SDK's takes half a second."""
    assert "a2a.server.request_handlers" not in imported(f"agents.{app}.server")
