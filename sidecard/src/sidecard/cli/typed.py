"""What was typed, as the content of a message."""

import json
import mimetypes
from pathlib import Path

from sidecard.cli.message import Content
from sidecard.errors import ConfigurationError


def content(
    text: str,
    *,
    data: str,
    files: list[Path] | None,
    skill: str,
    task: str,
    answer: str,
    context: str,
    message_id: str,
    may_be_empty: bool = False,
) -> tuple[str, Content]:
    """The text and the rest of a message, from what was typed. Raises ConfigurationError, saying what to type."""
    if not (text.strip() or data or files or answer or may_be_empty):
        raise ConfigurationError(
            'There is nothing to say: give a text, as in `sidecard send AGENT "…"`, --data, --file or --answer.'
        )
    if answer and text:
        raise ConfigurationError("Give either a text or --answer, not both.")
    if answer and not task:
        raise ConfigurationError("Say which task is answered: --task ID; `sidecard task AGENT` lists yours.")
    typed: Content = {"skill": skill, "task_id": task, "context_id": context, "message_id": message_id}
    if data:
        try:
            typed["data"] = json.loads(data)
        except ValueError as error:
            raise ConfigurationError(f"--data is not JSON ({error}): put it into single quotes.") from None
    typed["files"] = [_file(path) for path in files or ()]
    return text or answer, typed


def _file(path: Path) -> tuple[str, str, bytes]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"--file {path} can't be read: {error.strerror or error}.") from None
    return path.name, mimetypes.guess_type(path.name)[0] or "application/octet-stream", content
