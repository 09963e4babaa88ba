"""Everything that `make chaos` does: each fault with the stores it strikes, and how much of it."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

from chaos import disk, network, scenarios
from chaos.cluster import USUAL, Cluster, Setting
from chaos.outcome import Outcome
from chaos.run import run

SQLITE, POSTGRESQL, REDIS = "state.sqlite", "state.postgresql", "state.redis"
REPLICAS = {SQLITE: 1, POSTGRESQL: 2, REDIS: 2}
"""Each store, and how many replicas share it."""
WALK = Setting(checkpoint=2, dead=0.6)
"""Every second batch is a checkpoint, so that its writes are met too; the many dead are found sooner."""
FULL_STOP_SECONDS = 60.0


@dataclass(frozen=True)
class Trial:
    """One fault on one store: `size` is passed to `do`, tasks for most; `seconds` is about how long it takes."""

    fault: str
    kind: str
    size: int
    seconds: int
    do: Callable[[Cluster, int, int], Coroutine[Any, Any, Outcome]]
    setting: Setting = USUAL
    replicas: int = 0

    def missing(self) -> str:
        """Why it can't be done here, or ""."""
        if self.setting.partitioned:
            return network.missing()
        return disk.missing() if self.setting.small_disk else ""

    @property
    def count(self) -> int:
        """How many replicas it has."""
        return self.replicas or REPLICAS[self.kind]


def _under(fault: str, sizes: dict[str, tuple[int, int]], setting: Setting = USUAL) -> list[Trial]:
    """Shoppers under a fault, with so many tasks, for about so many seconds, on each of these stores."""

    async def do(cluster: Cluster, size: int, seed: int) -> Outcome:
        return await run(cluster, fault, size, seed)

    return [Trial(fault, kind, size, seconds, do, setting) for kind, (size, seconds) in sizes.items()]


TRIALS = [
    *(
        Trial("kill at every write", kind, 4, seconds, scenarios.write_points, WALK, replicas=1)
        for kind, seconds in ((SQLITE, 90), (POSTGRESQL, 120), (REDIS, 300))
    ),
    *_under("kill a replica", {SQLITE: (200, 60), POSTGRESQL: (300, 60), REDIS: (300, 60)}),
    *_under("kill a sidecar", {SQLITE: (200, 60), POSTGRESQL: (300, 60), REDIS: (300, 60)}),
    *_under("kill a sidecar", {SQLITE: (300, 60)}, Setting(mesh=True)),
    *_under("stop the store", {POSTGRESQL: (5_000, 360), REDIS: (1_000, 80)}),
    *_under("freeze a replica", {POSTGRESQL: (200, 60), REDIS: (200, 60)}),
    Trial("freeze the owner", POSTGRESQL, 20, 75, partial(scenarios.freeze_the_owner, seconds=FULL_STOP_SECONDS)),
    Trial("thaw in a place that was taken", POSTGRESQL, 10, 15, partial(scenarios.thaw_in_a_taken_place, patience=60)),
    Trial("thaw in a place that was taken", REDIS, 10, 15, partial(scenarios.thaw_in_a_taken_place, patience=60)),
    *_under("rolling restart", {SQLITE: (300, 60), POSTGRESQL: (500, 60), REDIS: (500, 60)}),
    *_under("partition", {POSTGRESQL: (300, 75), REDIS: (300, 75)}, Setting(partitioned=True)),
    *_under("disk full", {SQLITE: (300, 60)}, Setting(small_disk=True)),
    Trial("same message at once", POSTGRESQL, 20, 20, scenarios.same_message),
    Trial("same message at once", REDIS, 20, 20, scenarios.same_message),
    *_under("cancel against end and answer", {SQLITE: (300, 20), POSTGRESQL: (500, 30), REDIS: (500, 30)}),
    *_under("webhook receiver fails", {SQLITE: (100, 45), POSTGRESQL: (150, 60), REDIS: (150, 60)}),
    *_under("kill sentry", {SQLITE: (1_500, 120)}, Setting(mesh=True)),
]
