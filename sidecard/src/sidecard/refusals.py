"""Errors that A2A 1.0 leaves to the server (§3.3.2), in the form that each binding wants.

A2A reserves the JSON-RPC codes from -32001 to -32099, so ours lie outside and end in the HTTP status they stand for.
"""

import re

from a2a.utils.errors import A2A_ERROR_MAPPING, A2A_ERROR_REASONS, A2AError, ErrorMapping, JSONParseError

_TRY_AGAIN = re.compile(r"try again in ([0-9]{1,4}) s")


class Unauthenticated(A2AError):
    """Nobody we know: no credential, a wrong one, or not through the own sidecar."""

    message = (
        "Say who you are, in one way: call through your Dapr sidecar, or send a key we know as x-api-key, or an access "
        "token for this agent as a bearer token"
    )


class Forbidden(A2AError):
    """Somebody we know, who may not do this."""

    message = "You may not do this"


class MethodNotAllowed(A2AError):
    """The path is served, but not with this HTTP method."""

    message = "This HTTP method is not served here"


class PayloadTooLarge(A2AError):
    """The request is larger than this agent takes."""

    message = "The request is too large"


class TooManyRequests(A2AError):
    """Somebody has had its share for now: nothing was accepted, and the same may be sent again in a while."""

    message = "You make too many requests; try again in a second"

    def __init__(
        self,
        message: str | None = None,
        data: dict[str, object] | None = None,  # as the SDK's client makes it from an answer
        *,
        retry_after: int | None = None,
    ) -> None:
        """`retry_after` is in seconds; without it, what the message says, since of an answer nothing else is left."""
        super().__init__(message, data)
        self.insistent = False
        """Whether the one who is refused was just refused before, and has not waited."""
        said = _TRY_AGAIN.search(self.message)
        self.retry_after = retry_after or (int(said[1]) if said else 1)


class Unavailable(A2AError):
    """The agent can't take work now: it starts, stops, or its state store is down. Nothing was accepted."""

    message = "This agent can't take requests now; try again in a moment"


JSON_RPC_CODES: dict[type[A2AError], int] = {
    Unauthenticated: -31401,
    Forbidden: -31403,
    MethodNotAllowed: -31405,
    PayloadTooLarge: -31413,
    TooManyRequests: -31429,
    Unavailable: -31503,
}

MAPPINGS: dict[type[A2AError], ErrorMapping] = {
    Unauthenticated: ErrorMapping(401, "UNAUTHENTICATED", "UNAUTHENTICATED"),
    Forbidden: ErrorMapping(403, "PERMISSION_DENIED", "FORBIDDEN"),
    MethodNotAllowed: ErrorMapping(405, "UNIMPLEMENTED", "METHOD_NOT_ALLOWED"),
    PayloadTooLarge: ErrorMapping(413, "RESOURCE_EXHAUSTED", "PAYLOAD_TOO_LARGE"),
    TooManyRequests: ErrorMapping(429, "RESOURCE_EXHAUSTED", "TOO_MANY_REQUESTS"),
    Unavailable: ErrorMapping(503, "UNAVAILABLE", "UNAVAILABLE"),
    JSONParseError: ErrorMapping(400, "INVALID_ARGUMENT", "JSON_PARSE"),  # the SDK has it for JSON-RPC only
}
"""What stands for each over HTTP and gRPC, and its reason."""

# The SDK's routes look an error up in these tables; an unknown one would become "internal error". Its table of JSON-RPC
# codes must not have ours: its clients make their own from it.
A2A_ERROR_MAPPING.update(MAPPINGS)
A2A_ERROR_REASONS.update({error: mapping.reason for error, mapping in MAPPINGS.items()})
