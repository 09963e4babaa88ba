"""Presidio's pattern recognisers, without the language engine that its package loads beside them.

`import presidio_analyzer` loads spaCy: two seconds and 70 MB for each process, and none of the recognisers used here
asks it anything. So their modules are imported into packages that are left empty, and taken out of `sys.modules` again:
who imports presidio_analyzer afterwards gets all of it. When a version of Presidio is laid out in another way, the
whole package is imported instead.
"""

import importlib
import importlib.util
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

log = logging.getLogger("sidecard")

_PACKAGE = "presidio_analyzer"
_BASES = {
    "analysis_explanation": "AnalysisExplanation",
    "recognizer_result": "RecognizerResult",
    "entity_recognizer": "EntityRecognizer",
    "local_recognizer": "LocalRecognizer",
    "pattern": "Pattern",
    "pattern_recognizer": "PatternRecognizer",
}
_RECOGNISERS = f"{_PACKAGE}.predefined_recognizers"
_lock = threading.Lock()


def recogniser_classes(names: dict[str, str]) -> dict[str, Any]:
    """Recogniser classes by their names. `names` gives each its module, such as generic.email_recognizer."""
    with _lock:
        if _PACKAGE not in sys.modules:
            try:
                with _bare_packages():
                    return _classes(names)
            except (ImportError, AttributeError) as error:
                log.warning("Presidio's recognisers can't be loaded alone (%s): loading all of it", error)
        importlib.import_module(_PACKAGE)
        return _classes(names)


def _classes(names: dict[str, str]) -> dict[str, Any]:
    return {name: getattr(importlib.import_module(f"{_RECOGNISERS}.{module}"), name) for name, module in names.items()}


@contextmanager
def _bare_packages() -> Iterator[None]:
    """Presidio's packages without what their __init__ modules import, for as long as this lasts."""
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ImportError(f"{_PACKAGE} is not installed")
    root = Path(found.submodule_search_locations[0])
    try:
        top = _bare(_PACKAGE, root)
        _bare(f"{_PACKAGE}.nlp_engine", root / "nlp_engine").NlpArtifacts = object  # type: ignore[attr-defined]
        for module, name in _BASES.items():
            setattr(top, name, getattr(importlib.import_module(f"{_PACKAGE}.{module}"), name))
        folder = root / "predefined_recognizers"
        _bare(_RECOGNISERS, folder)
        for package in ("generic", "country_specific"):
            _bare(f"{_RECOGNISERS}.{package}", folder / package)
        for country in (folder / "country_specific").iterdir():
            _bare(f"{_RECOGNISERS}.country_specific.{country.name}", country)
        yield
    finally:
        for name in [name for name in sys.modules if name == _PACKAGE or name.startswith(f"{_PACKAGE}.")]:
            del sys.modules[name]


def _bare(name: str, path: Path) -> ModuleType:
    module = sys.modules[name] = ModuleType(name)
    module.__path__ = [str(path)]
    return module
