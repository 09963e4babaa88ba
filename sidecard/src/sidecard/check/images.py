"""Container images are pinned: the same manifests start the same programs tomorrow."""

import re
from collections.abc import Iterator

from sidecard.check.finding import Finding

_PINNED = re.compile(r"^[^:@\s]+(:\d+/[^:@\s]+)?(:(?P<tag>[\w.-]+))?(@sha256:[0-9a-f]{64})?$")
_DIGIT = re.compile(r"\d")


def check(file: str, where: str, image: str) -> Iterator[Finding]:
    """A tag with a version in it, or a digest."""
    match = _PINNED.match(image)
    tag = match["tag"] if match else None
    if "@sha256:" not in image and not (tag and _DIGIT.search(tag)):
        yield Finding(file, f"{where} runs {image!r}, which is another program each time", "name a version as its tag")
