"""The fold: what lists are told before an entry is stored is what it makes of the task; snapshots lose nothing."""

import msgpack
import pytest
from a2a.types import Artifact, Message, Part, TaskState
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecard.errors import LogBroken
from sidecard.tasks.entry import Entry
from sidecard.tasks.state import ALONE, ASK, CALL, DIED, ENDS, HELD, TAKEN, FoldedTask, Orphan
from sidecard.tasks.states import TERMINAL

S = TaskState
META = {
    "task": "t",
    "context": "c",
    "skill": "s",
    "owner": "o",
    "subject": "o",
    "tenant": "",
    "trace": "",
    "version": "1",
}
KINDS = ["begin", "ask", "end", "message", "status", "artifact", "cancel", "lease", "child", "orphan", "cut", "hook"]
MOVES = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "begin",
                "ask",
                "end",
                "message",
                "status",
                "artifact",
                "cancel",
                "lease",
                "child",
                "orphan",
                "cut",
                "hook",
            ]
        ),
        st.integers(0, 30),
    ),
    max_size=40,
)


def entries(moves):  # noqa: C901, PLR0912 -- a branch per move
    """Legal entries for these moves: waiting steps end, one question is open at a time, nothing follows the end."""
    at, number, waiting, asked, entry, heard = 1, 0, [], None, [], set()
    entry = [["new", META], ["message", "m0", "d", "o", Message(message_id="m0").SerializeToString()]]
    entry.append(["status", at, S.TASK_STATE_SUBMITTED, b"", "", 0])
    for move, chosen in moves:
        at, number = at + 1, number + 1
        key = f"0:{number}"
        if move == "begin":
            waiting.append(key)
            entry.append(["begun", key, "call", "", ["maker", b"%d" % number]])
        elif move == "ask" and asked is None:
            asked = key
            entry += [["begun", key, ASK, "", None], ["question", f"q{key}", key, {"scope": ""}]]
            asks = Message(message_id=key).SerializeToString()
            entry.append(["status", at, S.TASK_STATE_INPUT_REQUIRED, asks, "", 0])
        elif move == "end" and (waiting or asked):
            ended = (waiting + [asked] * bool(asked))[chosen % (len(waiting) + bool(asked))]
            kind = "dropped" if ended == asked else sorted(ENDS)[chosen % 3]
            entry.append([kind, ended, ASK if ended == asked else "call", "", None])
            asked = None if ended == asked else asked
            waiting = [key for key in waiting if key != ended]
        elif move == "message":
            entry.append(["message", f"m{number}", "d", "o", Message(message_id=f"m{number}").SerializeToString()])
            asked = None
        elif move == "status":
            state = [S.TASK_STATE_WORKING] * 8 + [S.TASK_STATE_COMPLETED, S.TASK_STATE_CANCELED]
            entry.append(["status", at, state[chosen % 10], b"", "0", number])
            if entry[-1][2] in TERMINAL:
                break
        elif move == "artifact":
            artifact = Artifact(artifact_id=f"a{chosen % 3}", parts=[Part(text=key)])
            entry.append(["artifact", artifact.SerializeToString(), chosen % 2 == 0, False, "0", number])
        elif move == "cancel":
            entry.append(["cancel", "o"])
        elif move == "lease":
            entry.append(["lease", f"r{chosen}", "died"])
        elif move == "hook":
            entry.append(
                ["push", f"w{chosen % 3}", b"config %d" % number] if chosen % 4 else ["unpush", f"w{chosen % 3}"]
            )
        elif move == "child" and waiting:
            heard.add(waiting[0])
            entry.append(["child", waiting[0], "maker", f"t{number}"])
        elif move == "orphan":
            known = chosen % 2 or not (unheard := [key for key in waiting if key not in heard])
            entry.append(["orphan", key, "maker", f"t{number}"] if known else ["orphan", unheard[0], "maker", ""])
        elif move == "cut" and entry:
            yield entry
            entry = []
    if entry:
        yield entry


@pytest.mark.parametrize(
    "wrong",
    [
        Entry(b"another's", 2, 9, [["cancel", "o"]]),  # what it follows was lost, or is another log's
        Entry(b"", 2, 9, [["cancel", "o"]]),
        Entry(b"mine", 1, 9, [["cancel", "o"]]),  # a former owner's, who did not know that the task had changed hands
    ],
)
def test_an_entry_that_does_not_follow_stops_the_task_and_changes_nothing(wrong):
    """Each bears the nonce of the one before, and an epoch that never falls: a store that lost writes shows."""
    folded = FoldedTask()
    folded.apply(Entry(b"", 1, 1, [["new", META], ["status", 1, S.TASK_STATE_SUBMITTED, b"", "", 0]]))
    folded.apply(Entry(folded.nonce, 2, 2, [["lease", "r2", "died"]], nonce=b"mine"))
    before = folded.snapshot()
    with pytest.raises(LogBroken, match="entry 3 of task t does not follow entry 2"):
        folded.apply(wrong)
    assert folded.snapshot() == before
    folded.apply(Entry(b"mine", 2, 9, [["cancel", "o"]]))
    assert folded.cancel_by == "o"


PROGRESS = [
    ["done", "0:1", "step", "", None],
    ["begun", "0:1", "sleep", "", 1],
    ["artifact", Artifact(artifact_id="a").SerializeToString(), False, True, "0", 1],
    ["child", "0:1", "maker", "t9"],
]


@pytest.mark.parametrize("made", [[], *([record] for record in PROGRESS)])
def test_only_deaths_without_progress_count(made):
    """Whose owners die though it gets further each time is not what they die of; nor one that was only held."""
    folded = FoldedTask()
    folded.apply(Entry(b"", 1, 1, [["new", META], ["status", 1, S.TASK_STATE_SUBMITTED, b"", "", 0]]))

    def then(*records):
        folded.apply(Entry(folded.nonce, folded.epoch + 1, folded.at + 1, list(records)))

    for number in range(1, 4):
        then(["status", number, S.TASK_STATE_WORKING, b"", "", 0], *made)
        assert folded.deaths_after_another() == (0 if made else number)
        then(["lease", f"r{number}", DIED])
        assert folded.deaths == (0 if made else number)
    then(["lease", "r5", HELD])
    held = folded.deaths
    then(["lease", "r6", HELD])
    assert folded.deaths == held, "it was held, so it did nothing"
    then(["lease", "r7", ALONE])
    then(["lease", "r8", TAKEN])
    assert folded.deaths == held, "its owner stopped, or let it run alone"


@settings(max_examples=400, deadline=None)
@given(MOVES)
def test_a_preview_says_what_the_entry_will_make_of_the_task(moves):
    """State, its time, whether somebody must move it on or be told of it: the lists are written from the preview."""
    folded, restored = FoldedTask(), None
    for number, records in enumerate(entries(moves)):
        before, expected = folded.state, folded.preview(records)
        hooks, due = set(folded.push), False
        for record in records:
            hooks = (
                hooks | {record[1]} if record[0] == "push" else hooks - {record[1]} if record[0] == "unpush" else hooks
            )
            due |= record[0] == "orphan" or (bool(hooks) and record[0] in ("status", "artifact"))
        assert expected.due == due
        entry = Entry(folded.nonce, 1, number + 100, records)
        folded.apply(entry)
        assert expected.state == folded.state
        assert expected.must_move == folded.must_move
        if expected.status_at:
            assert expected.status_at == folded.task.status.timestamp.ToMilliseconds()
        else:
            assert before == folded.state
        assert folded.waiting == {k for k, step in folded.steps.items() if not step.end and step.kind != ASK}
        if restored is not None:
            restored.apply(entry)
        if number % 2 == 0:
            restored = FoldedTask.restore(folded.snapshot())
        assert restored == folded


def test_a_text_that_was_made_in_chunks_is_one_part_once_its_task_has_ended():
    """However it was cut, stored and read back; other parts, and what was given out as a whole, stay as they are."""

    def artifact(name, append, *parts):
        return ["artifact", Artifact(artifact_id=name, parts=parts).SerializeToString(), append, False, "0", 1]

    def texts(folded):
        return [[part.text or part.url for part in artifact.parts] for artifact in folded.task.artifacts]

    def part(text):
        return Part(text=text, media_type="text/plain")

    whole = artifact("whole", False, part("a"), part("b"))
    before = [artifact("whole", True, part(text)) for text in ("x", "y")]
    mixed = artifact("mixed", False, Part(url="u"), Part(url="v"))
    folded = FoldedTask()
    working = ["status", 1, S.TASK_STATE_WORKING, b"", "", 0]
    folded.apply(Entry(b"", 1, 1, [["new", META], working, *before, whole, mixed]))
    chunks = [artifact(name, True, part(text)) for text in ("he", "llo") for name in ("mixed", "text")]
    folded.apply(Entry(folded.nonce, 1, 2, chunks))
    assert texts(folded) == [["a", "b"], ["u", "v", "he", "llo"], ["he", "llo"]]
    folded = FoldedTask.restore(folded.snapshot())
    folded.apply(Entry(folded.nonce, 1, 3, [["status", 2, S.TASK_STATE_COMPLETED, b"", "", 0]]))
    assert texts(folded) == [["a", "b"], ["u", "v", "hello"], ["hello"]]
    assert folded.task.artifacts[2].parts[0].media_type == "text/plain"


def test_a_snapshot_of_an_older_version_is_restored():
    """It knew no orphans; one of this version has them."""
    folded = FoldedTask()
    folded.apply(Entry(b"", 1, 1, [["new", META], ["status", 1, S.TASK_STATE_SUBMITTED, b"", "", 0]]))
    older = msgpack.unpackb(folded.snapshot())
    del older["orphans"], older["unheard"]
    assert FoldedTask.restore(msgpack.packb(older)) == folded
    folded.apply(Entry(folded.nonce, 1, 2, [["cancel", "o"], ["orphan", "0:1", "maker", "t9"]]))
    assert FoldedTask.restore(folded.snapshot()).orphans == {"0:1": Orphan("maker", "t9", (2, 1))}


def test_what_became_of_a_call_is_unheard_until_its_task_or_its_end_is_known():
    """Also where its branch was dropped: then it can still be withdrawn, by the message that it was."""
    begun = [["begun", f"0:{n}", CALL, "", ["maker", b"%d" % n]] for n in range(5)]
    folded = FoldedTask()
    folded.apply(Entry(b"", 1, 1, [["new", META], ["status", 1, S.TASK_STATE_SUBMITTED, b"", "", 0], *begun]))
    later = [["child", "0:1", "maker", "t1"], ["done", "0:2", CALL, "", b"2"], ["dropped", "0:3", CALL, "", None]]
    folded.apply(Entry(folded.nonce, 1, 2, later))
    assert folded.unheard == {"0:0": ("maker", b"0"), "0:3": ("maker", b"3"), "0:4": ("maker", b"4")}
    assert FoldedTask.restore(folded.snapshot()) == folded
    folded.apply(Entry(folded.nonce, 1, 3, [["orphan", "0:3", "maker", ""]]))
    assert folded.orphans == {"0:3": Orphan("maker", "", (3, 0), b"3")}
    assert FoldedTask.restore(folded.snapshot()) == folded


@pytest.mark.parametrize(
    ("heard", "orphans"),
    [
        (["child", "0:0", "maker", "t9"], {"0:0": Orphan("maker", "t9", (1, 4))}),
        (["done", "0:0", CALL, "", b"ended"], {}),
        (["cancel", "o"], {"0:0": Orphan("maker", "", (1, 4), b"message")}),
    ],
)
def test_what_is_heard_of_at_the_last_moment_is_canceled_by_its_id(heard, orphans):
    """Between the attempt to withdraw it and the entry that says that this failed."""
    folded = FoldedTask()
    begun = ["begun", "0:0", CALL, "", ["maker", b"message"]]
    began = [["new", META], ["status", 1, S.TASK_STATE_SUBMITTED, b"", "", 0], begun]
    folded.apply(Entry(b"", 1, 1, [*began, heard, ["orphan", "0:0", "maker", ""]]))
    assert folded.orphans == orphans
