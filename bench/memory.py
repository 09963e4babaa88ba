"""Memory: what an open stream costs the agent's process."""

import json
import subprocess
import sys
import time
from dataclasses import asdict, replace

import psutil

from bench.estate import Estate
from bench.load import Order
from bench.processes import load
from bench.report import Report

SETTLE_SECONDS = 2.0
KIB = 1_024


def open_streams(system: Estate, agent: str, count: int, report: Report) -> None:
    """`kib_per_stream`: how much the agent's resident memory grows with so many streams open, each its share."""
    order = replace(system.direct(agent), method="SendStreamingMessage", text="wait", callers=count)
    load(replace(order, text="chunks 10", chunks=10, callers=8, count=100))  # what the first requests load stays out
    process = psutil.Process(_listener(order))
    before = process.memory_info().rss
    command = [sys.executable, "-m", "bench.open_streams"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        if holder.stdin is None or holder.stdout is None:
            raise RuntimeError("pipes were asked for")
        print(json.dumps(asdict(order)), file=holder.stdin, flush=True)
        opened = int(holder.stdout.readline() or 0)
        time.sleep(SETTLE_SECONDS)
        after = process.memory_info().rss
        holder.stdin.close()
    if opened != count:
        raise RuntimeError(f"{opened} of {count} streams could be opened")
    report.say(f"{count:,} open streams: {before / KIB / KIB:.0f} MiB before, {after / KIB / KIB:.0f} MiB with them")
    report.result("kib_per_stream", (after - before) / KIB / count)


def _listener(order: Order) -> int:
    for connection in psutil.net_connections("tcp"):
        if connection.status == "LISTEN" and connection.laddr[1:] == (order.port,) and connection.pid:
            return connection.pid
    raise RuntimeError(f"nothing listens on port {order.port}")
