"""The least that durability costs: one state transaction with one small entry, from Python, through the sidecar.

`python -m bench.floor PORT TOKEN SECONDS` prints its p50 in ms.
"""

import secrets
import statistics
import subprocess
import sys
import time

from sidecard.tasks.store import DaprStateStore

ENTRY_BYTES = 600
"""About what a short task's only entry has."""
WARM_UP = 20


def transaction_ms(port: int, token: str, seconds: float) -> float:
    """Measure it in a process of its own."""
    command = [sys.executable, "-m", "bench.floor", str(port), token, str(seconds)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


async def _measure(port: int, token: str, seconds: float) -> float:
    store = DaprStateStore(port=port, token=token)
    entry, run = secrets.token_bytes(ENTRY_BYTES), secrets.token_hex(6)
    took: list[float] = []
    began = time.perf_counter()
    while len(took) < WARM_UP * 2 or time.perf_counter() - began < seconds:
        sent = time.perf_counter()
        await store.write([(f"floor:{run}:{len(took)}", entry)], {})
        took.append(time.perf_counter() - sent)
    await store.close()
    return statistics.median(took[WARM_UP:]) * 1_000


if __name__ == "__main__":
    import uvloop

    given_port, given_token, given_seconds = sys.argv[1:]
    print(uvloop.run(_measure(int(given_port), given_token, float(given_seconds))))
