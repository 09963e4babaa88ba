"""The tree of one distributed trace, to look at in a terminal. Pure: spans in, a tree out."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

DAPR_SCOPE = "dapr-diagnostics"
"""Instrumentation scope of daprd's spans, which carry the app's own service name."""


@dataclass(frozen=True)
class Span:
    """One finished span. Ids are lower-case hex; times are nanoseconds since 1970 on the sender's own clock."""

    trace_id: str
    span_id: str
    parent_id: str  # empty: the trace's root
    service: str
    name: str
    start: int
    end: int
    kind: str = "internal"  # server, client, producer, consumer
    scope: str = ""
    error: bool = False
    attributes: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def who(self) -> str:
        """Who took part: the service, or `<service> sidecar` for its daprd."""
        return f"{self.service} sidecar" if self.by_sidecar else self.service

    @property
    def by_sidecar(self) -> bool:
        """Whether daprd made it."""
        return self.scope == DAPR_SCOPE

    @property
    def seconds(self) -> float:
        """Duration; never negative, whatever the clock did."""
        return max(0, self.end - self.start) / 1e9


@dataclass
class Node:
    """One line of the tree: a span, or a chain of spans that are one call, with what it caused, by start."""

    chain: list[Span]
    children: list["Node"] = field(default_factory=list)
    orphan: bool = False
    """Its parent has not arrived."""
    repeats: int = 1
    """How many equal siblings this line stands for."""

    @property
    def error(self) -> bool:
        """Whether any span of the chain failed."""
        return any(span.error for span in self.chain)

    @property
    def who(self) -> str:
        """Through whom the call went: `desk sidecar → flights sidecar`."""
        return " → ".join(dict.fromkeys(span.who for span in self.chain))

    @property
    def what(self) -> str:
        """What was done, shortly: `POST /a2a`, `task run book_flight`."""
        span = self.chain[-1]
        if span.by_sidecar:
            return re.sub(r"^CallLocal/[^/]+", "", span.name)  # CallLocal/<app-id>/<method>
        path = urlsplit(span.attributes.get("url.full", "")).path
        return f"{span.name} {path}" if span.kind == "client" and path not in span.name else span.name


def trees(spans: Iterable[Span], trace_id: str) -> list[Node]:
    """The roots of one trace, each with its tree, span by span; a whole trace has one.

    A span whose parent has not arrived, or that is among its own ancestors, becomes a root of its own, marked as an
    orphan: nothing is left out. Only ids decide what belongs to what, since clocks of several machines differ.
    """
    nodes = {span.span_id: Node([span]) for span in spans if span.trace_id == trace_id}
    children: defaultdict[str, list[str]] = defaultdict(list)
    for span_id, node in sorted(nodes.items(), key=lambda item: item[1].chain[0].start):
        children[node.chain[0].parent_id].append(span_id)

    left = dict(nodes)

    def grow(span_id: str) -> Node:
        node = left.pop(span_id)
        node.children = [grow(child) for child in children[span_id] if child in left]
        return node

    starts = [span_id for span_id, node in nodes.items() if node.chain[0].parent_id not in nodes]
    roots = [grow(span_id) for span_id in starts]
    while left:
        roots.append(grow(next(iter(left))))
    for root in roots:
        root.orphan = bool(root.chain[0].parent_id)
    return sorted(roots, key=lambda root: (root.orphan, root.chain[0].start))


def fold(node: Node) -> Node:
    """The same tree with less noise: one line per call through sidecars, equal siblings counted on one line."""
    chain, children = list(node.chain), node.children
    # An app's client span, its sidecar's and the other sidecar's are one call, unless it was tried more than once.
    while chain[-1].kind == "client" and len(children) == 1 and children[0].chain[0].by_sidecar:
        chain, children = chain + children[0].chain, children[0].children
    if len(chain) > 1 and not chain[0].by_sidecar:
        chain[1:2] = [_as_long_as(chain[0], chain[1])]
        del chain[0]
    kinds: dict[object, Node] = {}
    for child in map(fold, children):
        first = kinds.setdefault(_shape(child), child)
        if first is not child:
            first.repeats += 1
    return Node(chain, list(kinds.values()), node.orphan)


def _as_long_as(outer: Span, inner: Span) -> Span:
    """`inner` standing for both: the app saw `outer`'s duration and error."""
    values = {**vars(inner), "start": outer.start, "end": outer.end, "error": outer.error or inner.error}
    return Span(**values)


def _shape(node: Node) -> tuple[object, ...]:
    children = tuple((_shape(child), child.repeats) for child in node.children)
    return node.who, node.what, node.error, children


def missing(spans: Iterable[Span], services: Collection[str]) -> set[str]:
    """Which of `services` have no span among these. `flights` is the app, `flights sidecar` its daprd."""
    return set(services) - {span.who for span in spans}


def render(spans: Iterable[Span], trace_id: str) -> RenderableType:
    """One trace for `rich`: a line that sums it up, then its tree, folded."""
    own = {span.span_id: span for span in spans if span.trace_id == trace_id}.values()
    if not own:
        return Text(f"trace {trace_id}: no spans have arrived")
    parties = {span.who for span in own}
    head = Text(f"trace {trace_id}: {len(own)} spans of {len(parties)} processes", style="bold")
    return Group(head, *(_draw(fold(root)) for root in trees(own, trace_id)))


def _draw(node: Node, tree: Tree | None = None) -> Tree:
    line = _line(node)
    branch = tree.add(line) if tree else Tree(line, guide_style="dim")
    for child in node.children:
        _draw(child, branch)
    return branch


def _line(node: Node) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(node.who, "cyan" if node.chain[-1].by_sidecar else "bold green")
    line.append(f"  {node.what}")
    line.append(f"  {_duration(node.chain[0].seconds)}", "dim")
    if node.repeats > 1:
        line.append(f"  {node.repeats} times", "yellow")
    if node.error:
        line.append("  ✗ failed", "bold red")
    if node.orphan:
        line.append("  (its parent is missing)", "yellow")
    return line


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1_000:.1f} ms"
