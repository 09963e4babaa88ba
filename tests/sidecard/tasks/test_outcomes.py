"""Steps that a run waits for."""

from sidecard.tasks.outcomes import Outcomes
from sidecard.tasks.state import FoldedTask, Step


async def test_who_waits_for_a_step_goes_on_with_its_outcome_stored_or_not():
    """Once, and whoever asks later gets it at once."""
    folded = FoldedTask(steps={key: Step("delegate", "", "", None) for key in ("0:0", "0:1")})
    outcomes = Outcomes(folded)
    here, elsewhere = outcomes.awaited("0:0"), outcomes.awaited("0:1")
    done = Step("delegate", "", "done", b"task")
    outcomes.expect("0:0", done)
    assert here.result() is outcomes.of("0:0") is done
    assert len(outcomes) == 1
    folded.steps = dict.fromkeys(folded.steps, done)
    for key in folded.steps:
        outcomes.stored(key)
    assert elsewhere.result() is done
    assert not outcomes
    assert outcomes.awaited("0:1").result() is done


async def test_a_step_that_is_not_over_is_waited_for_and_a_dropped_one_has_no_outcome():
    """Nobody is told of what has not happened."""
    folded = FoldedTask(steps={"0:0": Step("ask", "", "", None)})
    outcomes = Outcomes(folded)
    waiting = outcomes.awaited("0:0")
    outcomes.stored("0:0")
    assert not waiting.done()
    folded.steps["0:0"] = Step("ask", "", "dropped", None)
    outcomes.stored("0:0")
    assert not waiting.done()
