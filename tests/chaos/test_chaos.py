"""A short form of `make chaos`: real replicas on real stores, each fault with fewer tasks."""

import sys

import pytest

from chaos import disk, network
from chaos.catalog import POSTGRESQL, REDIS, REPLICAS, SQLITE
from chaos.cluster import USUAL, Setting, cluster
from chaos.run import run
from chaos.scenarios import write_points

SEED = 7
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def shown(capsys):
    """Prints what became of a run, whose promises must all have held."""

    def show(outcome):
        with capsys.disabled():
            print(f"{outcome.store}, {outcome.fault}: {outcome.as_dict()}", file=sys.stderr)
        assert outcome.faults
        assert outcome.good, outcome.as_dict()

    return show


@pytest.mark.parametrize(
    ("fault", "kind", "wishes", "setting"),
    [
        ("kill a replica", REDIS, 30, USUAL),
        ("freeze a replica", POSTGRESQL, 30, USUAL),
        ("rolling restart", POSTGRESQL, 60, USUAL),
        ("webhook receiver fails", SQLITE, 20, USUAL),
        ("kill a sidecar", SQLITE, 20, Setting(mesh=True)),
    ],
)
async def test_every_promise_holds_under_a_fault(fault, kind, wishes, setting, shown):
    """Nothing acknowledged is lost, nothing is stuck, no effect is had twice, and no task ends twice."""
    with cluster(kind, REPLICAS[kind], setting) as started:
        shown(await run(started, fault, wishes, SEED))


async def test_what_races_ends_as_clients_were_told(shown):
    """Cancels, answers and ends meet on two replicas: only moves that A2A allows, and true answers."""
    with cluster(POSTGRESQL, 2) as started:
        outcome = await run(started, "cancel against end and answer", 60, SEED)
        outcome.faults = outcome.ends["CANCELED"]
        shown(outcome)


@pytest.mark.skipif(bool(disk.missing()), reason=disk.missing())
async def test_a_full_disk_is_an_error_and_no_false_acknowledgement(shown):
    """And when there is space again, work goes on."""
    with cluster(SQLITE, 1, Setting(small_disk=True)) as started:
        shown(await run(started, "disk full", 30, SEED, rest=(30, 30)))


@pytest.mark.skipif(bool(network.missing()), reason=network.missing())
async def test_a_partition_loses_nothing(shown):
    """Between the store and one replica, or both, seen by both sides or not; healed, all goes on."""
    with cluster(POSTGRESQL, 2, Setting(partitioned=True)) as started:
        shown(await run(started, "partition", 30, SEED, rest=(0.1, 0.5)))


@pytest.mark.parametrize("kind", [SQLITE, REDIS])
async def test_a_kill_at_every_write_does_no_harm(kind, shown):
    """Before and after each write of a task that asks and pays; where keys are written alone, also in the midst."""
    with cluster(kind, 1, Setting(dead=0.6)) as started:
        shown(await write_points(started, 1, SEED, ["ask"]))
