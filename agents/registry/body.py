"""The body of a request: bounded, and of the shape that it must have."""

from typing import TypeVar

from fastapi import Request
from fastapi.exceptions import HTTPException
from pydantic import BaseModel, ValidationError

from sidecard.validation import explain

MAX_BODY_BYTES = 131_072

_Shape = TypeVar("_Shape", bound=BaseModel)


async def read_body(request: Request, shape: type[_Shape], what: str = "an enrolment") -> _Shape:
    """The body, if it is of this shape, which people call `what`. Raises HTTPException, 413 or 422."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, f"{what.capitalize()} has at most {MAX_BODY_BYTES} bytes.")
    try:
        return shape.model_validate_json(bytes(body))
    except ValidationError as error:
        raise HTTPException(422, f"Not {what}: {explain(error)}") from None
