"""The library's modules: which there are, and that each can be read without those that use it."""

import ast
import graphlib
import re
from pathlib import Path

import sidecard
from sidecard import tasks

ROOT = Path(sidecard.__file__).parent
MODULES = {
    ".".join(["sidecard", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
}


def imported(path):
    """The modules of ours that a file imports, also those for types, and those that it imports late."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in names)


def test_no_modules_import_each_other():
    """Not in a circle either, nor just for types."""
    graph = {name: {other for other in imported(path) if other in MODULES} for name, path in MODULES.items()}
    assert sum(map(len, graph.values())) > len(MODULES) > 100
    graphlib.TopologicalSorter(graph).prepare()


def test_the_engine_says_what_each_of_its_modules_is():
    """On the first page that its readers see: a word, and behind it what that is."""
    named = re.findall(r"(?:^|  )((?:\w+, )*\w+)(?= |$)", tasks.__doc__, re.MULTILINE)
    there = {path.stem for path in ROOT.glob("tasks/*.py")} - {"__init__"}
    assert there <= {word for words in named for word in words.split(", ")}
