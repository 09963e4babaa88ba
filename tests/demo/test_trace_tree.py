"""The tree of a trace is whole, honest about gaps, and short enough to read."""

from io import StringIO

from rich.console import Console

from demo.trace_tree import DAPR_SCOPE, Span, fold, missing, render, trees

TRACE = "a" * 32


def span(span_id, parent_id="", service="user", name="work", *, start=0, ms=10, trace_id=TRACE, **more):
    start_ns = 1_000_000_000 + start * 1_000_000
    return Span(trace_id, span_id, parent_id, service, name, start_ns, start_ns + ms * 1_000_000, **more)


def call(prefix, parent_id, caller, callee, *, start=0, error=False):
    """What one call from `caller` to `callee` through both sidecars leaves behind; ends in span `<prefix>4`."""
    dapr = {"scope": DAPR_SCOPE, "error": error}
    name = f"CallLocal/{callee}/a2a"
    return [
        span(f"{prefix}1", parent_id, caller, "POST", start=start, ms=20, kind="client", error=error),
        span(f"{prefix}2", f"{prefix}1", caller, name, start=start + 1, ms=18, kind="client", **dapr),
        span(f"{prefix}3", f"{prefix}2", callee, name, start=start + 2, ms=16, kind="server", **dapr),
        span(f"{prefix}4", f"{prefix}3", callee, "POST /a2a", start=start + 3, ms=14, kind="server"),
    ]


def printed(spans):
    console = Console(file=StringIO(), width=120)
    console.print(render(spans, TRACE))
    return console.file.getvalue()


def lines(node):
    return [node, *(line for child in node.children for line in lines(child))]


def test_one_tree_holds_every_span():
    """A whole trace has one root, and every span is in its tree."""
    spans = [span("r"), *call("x", "r", "user", "orchestrator"), *call("y", "x4", "orchestrator", "flights")]
    (root,) = trees(reversed(spans), TRACE)
    assert root.chain[0].span_id == "r"
    assert not root.orphan
    assert {line.chain[0].span_id for line in lines(root)} == {one.span_id for one in spans}


def test_other_traces_are_left_out():
    """Spans of another trace are not shown."""
    (root,) = trees([span("r"), span("s", "r", trace_id="b" * 32)], TRACE)
    assert root.children == []


def test_a_missing_parent_is_said():
    """A span whose parent has not arrived is shown, after the root, and marked."""
    spans = [span("lost", "gone", "flights", start=-5), span("r", start=0)]
    root, orphan = trees(spans, TRACE)
    assert (root.orphan, orphan.orphan) == (False, True)
    assert "its parent is missing" in printed(spans)


def test_a_circle_ends():
    """Spans that are each other's parents are shown once."""
    spans = [span("r"), span("a", "b"), span("b", "a")]
    assert sum(len(lines(root)) for root in trees(spans, TRACE)) == 3


def test_clocks_that_differ_change_nothing():
    """A child that seems to start before its parent, or to end before it starts, stays where its ids put it."""
    spans = [span("r", start=100), span("c", "r", "flights", start=-100, ms=-5)]
    (root,) = trees(spans, TRACE)
    assert root.children[0].chain[0].seconds == 0
    assert "0.0 ms" in printed(spans)


def test_children_are_in_order():
    """What was caused first comes first."""
    (root,) = trees([span("r"), span("late", "r", start=9), span("soon", "r", start=1)], TRACE)
    assert [child.chain[0].span_id for child in root.children] == ["soon", "late"]


def test_a_call_through_sidecars_is_one_line():
    """Client span and both sidecars' spans become one line, with the duration that the caller saw."""
    (root,) = trees([span("r"), *call("x", "r", "user", "flights")], TRACE)
    (hop,) = fold(root).children
    assert (hop.who, hop.what) == ("user sidecar → flights sidecar", "/a2a")
    assert hop.chain[0].seconds == 0.02
    assert [child.who for child in hop.children] == ["flights"]


def test_a_retried_call_stays_visible():
    """A call that a sidecar made twice shows both tries."""
    spans = [span("r"), *call("x", "r", "user", "flights")]
    spans.append(span("x5", "x2", "flights", "CallLocal/flights/a2a", scope=DAPR_SCOPE, kind="server", error=True))
    (root,) = trees(spans, TRACE)
    (hop,) = fold(root).children
    assert sorted(child.error for child in hop.children) == [False, True]


def test_equal_siblings_are_counted():
    """Polling the same way again and again takes one line."""
    spans = [span("r"), *(s for i in range(7) for s in call(f"p{i}-", "r", "user", "flights", start=i))]
    (root,) = trees(spans, TRACE)
    assert [child.repeats for child in fold(root).children] == [7]
    assert "7 times" in printed(spans)


def test_a_failed_sibling_is_not_folded_away():
    """One failure among equal calls keeps a line of its own, marked."""
    spans = [
        span("r"),
        *call("a", "r", "user", "flights"),
        *call("b", "r", "user", "flights", error=True),
        *call("c", "r", "user", "flights"),
    ]
    (root,) = trees(spans, TRACE)
    assert [(child.repeats, child.error) for child in fold(root).children] == [(2, False), (1, True)]
    assert printed(spans).count("failed") == 1


def test_who_is_missing():
    """Names those of whom no span arrived; an app and its sidecar are two."""
    spans = [span("r"), *call("x", "r", "user", "flights")]
    everyone = {"user", "user sidecar", "flights", "flights sidecar"}
    assert missing(spans, everyone) == set()
    assert missing(spans[:3], everyone | {"vendors"}) == {"flights", "flights sidecar", "vendors"}


def test_nothing_arrived():
    """An empty trace says so."""
    assert "no spans have arrived" in printed([])
