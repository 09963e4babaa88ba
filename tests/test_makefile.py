"""What `make` installs, and where it keeps its hands off."""

import shutil
import subprocess
from pathlib import Path

import pytest

INSTALLED = {".venv": "setup", "foreign/node/node_modules": "foreign", "foreign/adk/.venv": "foreign"}
LOCKS = ["requirements.lock", "foreign/node/package-lock.json", "foreign/adk/requirements.lock"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout with its Makefile and locks, in which nothing is installed."""
    here = tmp_path / "here"
    for path in ["Makefile", *LOCKS]:
        (here / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, here / path)
    return here


def installs(tree: Path, target: str, folder: str) -> bool:
    """Whether `make target` would install into a folder."""
    command = ["make", "--dry-run", "--no-print-directory", target]
    said = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=True)
    return f"touch {folder}/.installed" in said.stdout


@pytest.mark.parametrize(("folder", "target"), INSTALLED.items())
def test_packages_are_installed_into_a_tree_of_its_own(tree: Path, folder: str, target: str) -> None:
    """A folder that is missing, or was made by an interrupted run, is installed into."""
    assert installs(tree, target, folder)
    (tree / folder).mkdir(parents=True)
    assert installs(tree, target, folder)


@pytest.mark.parametrize(("folder", "target"), INSTALLED.items())
def test_a_link_is_left_alone(tree: Path, folder: str, target: str) -> None:
    """Where a folder is a link, its packages are another tree's: nothing is installed, nor marked as installed."""
    other = tree.parent / "other"
    other.mkdir()
    (tree / folder).parent.mkdir(parents=True, exist_ok=True)
    (tree / folder).symlink_to(other)
    assert not installs(tree, target, folder)
