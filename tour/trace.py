"""Proof 4: one trace from the user over our agents to those of another firm and back, by what each of them has seen."""

import asyncio

from demo.trace_tree import missing, render
from tour.desk import GUIDE
from tour.stage import Stage, expect

SERVICES = ("user", "desk sidecar", GUIDE, f"{GUIDE} sidecar", "flights")


async def prove(stage: Stage) -> None:
    """The handshakes' trace, whole; and that what came to the railways names spans of ours as its parents."""
    spans = await asyncio.to_thread(stage.collector.wait_for, stage.trace, SERVICES)
    stage.out.print(render(spans, stage.trace))
    absent = missing(spans, SERVICES)
    expect(not absent, f"all took part in the trace; it lacks {', '.join(sorted(absent))}")
    ours = {span.span_id: span for span in spans}
    for parent in stage.parents:
        _, trace, span_id, _ = parent.split("-")
        expect(trace == stage.trace, "the railways were called in this trace")
        expect(span_id in ours, f"the railways' parent {span_id} is a span of ours")
        span = ours[span_id]
        expect(span.service == GUIDE, f"it is the guide's, not {span.service}'s")
        stage.tell("to railways", f"ADK's agent noted {parent}: our span {span.name!r} of {span.service}", "green")
    came = [span for span in spans if span.service == "flights" and span.parent_id in ours]
    roots = [span for span in came if ours[span.parent_id].service == "user"]
    expect(roots, "what ADK's client asked of flights hangs on the user's own span")
    stage.tell("from ADK", f"its client called flights in the same trace: {len(came)} spans there", "green")
