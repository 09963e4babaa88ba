"""The public surface, pinned: a change here is a change of the API."""

import subprocess
import sys

import sidecard


def test_the_public_surface_is_what_is_listed():
    """Every name is there, and none besides."""
    assert sorted(sidecard.__all__) == sorted(sidecard._WHERE)
    assert all(getattr(sidecard, name) is not None for name in sidecard.__all__)


def test_the_command_line_starts_without_the_sdk():
    """`sidecard --help` must not wait a second for imports that it does not need."""
    code = "import sys, sidecard.cli; sys.exit('a2a' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
