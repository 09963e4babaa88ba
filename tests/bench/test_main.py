"""The whole harness, with little to measure."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
MEASURED = {
    "send_vs_memory_8", "send_vs_memory_32", "send_vs_sqlite_8", "send_p50_vs_floor", "first_event_p50_vs_floor",
    "stream_vs_memory_50", "stream_100_vs_10", "ops_per_task", "ops_per_event", "bytes_per_event",
}  # fmt: skip


def test_a_quick_run_prints_one_line_of_json_with_what_it_measured():
    """Our real system and the SDK's servers start, answer as expected, and are gone; nothing is made up or kept."""
    results = ROOT / "bench" / "results.json"
    before = results.read_bytes() if results.exists() else None
    command = [sys.executable, "-m", "bench", "--rounds", "1", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3_000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    assert set(figures) == MEASURED
    assert all(figure > 0 for figure in figures.values())
    assert (results.read_bytes() if results.exists() else None) == before
