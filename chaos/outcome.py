"""What became of every wish: judged by the logs of tasks, by the ledger of effects, and by what clients were told."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from a2a.types import TaskState

from chaos.cluster import Cluster
from chaos.history import History, histories
from chaos.lists import misreported
from chaos.shoppers import Shoppers, Wish

PAYS = frozenset({"buy", "ask", "rest"})
"""Skills that have had their effect once they are COMPLETED."""
ILLEGAL, UNEXPLAINED = "moves that A2A does not allow", "failures without a reason"
UNTRUE = "answers that the log does not bear out"
MISREPORTED = "tasks and totals that ListTasks has wrong"
FAILED = "requests failed for good"


@dataclass
class Outcome:
    """What a run has shown. `runs` are tasks; recovery is the time from a fault to the end of what it met.

    `others` are further promises that were broken, by name; `ends` counts the tasks' ends.
    """

    fault: str
    store: str
    seed: int = 0
    runs: int = 0
    faults: int = 0
    lost: int = 0
    stuck: int = 0
    double_effects: int = 0
    second_terminals: int = 0
    others: dict[str, int] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    requests: int = 0
    refusals: int = 0
    recovery_p50_s: float = 0.0
    recovery_p99_s: float = 0.0
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether every promise held."""
        broken = [self.lost, self.stuck, self.double_effects, self.second_terminals, *self.others.values()]
        return not any(broken)

    def as_dict(self) -> dict[str, object]:
        """As it is written to results.json."""
        return asdict(self)

    def count(self, violation: str, times: int = 1) -> None:
        """Another promise that was broken so many times, or that was looked after and held."""
        self.others[violation] = self.others.get(violation, 0) + times

    def recovered(self, seconds: Sequence[float]) -> None:
        """How long each recovery took."""
        if seconds:
            self.recovery_p50_s = round(statistics.median(seconds), 2)
            self.recovery_p99_s = round(sorted(seconds)[int(len(seconds) * 0.99)], 2)

    def clients(self, shoppers: Shoppers, *, may_fail: bool = True) -> None:
        """How clients fared: where none of their requests `may_fail`, those that did are violations."""
        self.requests += shoppers.requests
        self.refusals += shoppers.refusals
        if not may_fail:
            self.count(FAILED, shoppers.failed)


async def judge(cluster: Cluster, outcome: Outcome, wishes: Sequence[Wish]) -> dict[str, History]:
    """Count what became of these wishes; returns the logs of their tasks."""
    effects = cluster.effects()
    logs = await histories(cluster.replicas[0].sidecar, [wish.task_id for wish in wishes if wish.task_id])
    outcome.runs += len(wishes)
    for violation in (ILLEGAL, UNEXPLAINED, UNTRUE):
        outcome.count(violation, 0)
    for wish in wishes:
        end = "gone" if wish.gone else wish.state.removeprefix("TASK_STATE_") or "stuck"
        outcome.ends[end] = outcome.ends.get(end, 0) + 1
        outcome.stuck += end == "stuck"
        if wish.task_id:
            _judge_one(outcome, wish, logs[wish.task_id], effects)
    ended = {wish.task_id: wish.state for wish in wishes if wish.task_id and wish.state}
    outcome.count(MISREPORTED, await misreported(cluster, ended))
    return logs


def _judge_one(outcome: Outcome, wish: Wish, log: History, effects: Counter[str]) -> None:
    had = effects[f"once {wish.message_id}"]
    keys = [line for line in effects if line.startswith(f"key {wish.message_id} ")]
    unpaid = wish.skill in PAYS and wish.state == "TASK_STATE_COMPLETED" and not had
    outcome.lost += wish.gone or not log.states or unpaid or (bool(wish.state) and not log.terminals)
    outcome.double_effects += had > 1 or len(keys) > 1
    outcome.second_terminals += log.terminals > 1
    outcome.count(ILLEGAL, not log.legal)
    outcome.count(UNEXPLAINED, not log.explained)
    canceled = log.states[-1:] == [TaskState.TASK_STATE_CANCELED]
    unheard = wish.answered and wish.answer_id not in log.messages
    outcome.count(UNTRUE, not log.shows(wish.seen) or unheard or (wish.canceled and not canceled))
