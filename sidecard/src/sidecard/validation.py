"""What pydantic finds wrong, in one line: for callers, for logs, and for whoever wrote a file."""

from pydantic import ValidationError

MOST_FAULTS = 10


def explain(error: ValidationError) -> str:
    """What is wrong with each field, without the value (it may be private); `input` is the whole of it."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, d['loc'])) or 'input'}: {d['msg']}" for d in details[:MOST_FAULTS])
