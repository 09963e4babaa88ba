"""A short form of `make chaos`: real replicas on real stores, each fault with fewer tasks."""

import sys

import pytest

from chaos.cluster import cluster
from chaos.run import run

SEED = 7


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("kind", "replicas", "fault", "wishes"),
    [
        ("state.sqlite", 1, "kill a replica", 30),
        ("state.postgresql", 2, "kill a replica", 36),
        ("state.postgresql", 2, "freeze a replica", 30),
        ("state.redis", 2, "kill a replica", 36),
    ],
)
async def test_every_promise_holds_under_a_fault(kind, replicas, fault, wishes, capsys):
    """Nothing acknowledged is lost, nothing is stuck, no effect is had twice, and no task ends twice."""
    with cluster(kind, replicas) as started:
        outcome = await run(started, fault, wishes, SEED)
    with capsys.disabled():
        print(f"{kind}, {fault}: {outcome.as_dict()}", file=sys.stderr)
    assert outcome.faults
    assert outcome.good
