"""How tasks look on a terminal."""

from a2a.types import Artifact, ListTasksResponse, Message, Part, StreamResponse, Task, TaskState, TaskStatus
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value
from rich.text import Text

from sidecard.cli import show


def printed(lines):
    return [Text.from_markup(line).plain for line in lines]


def test_data_is_shown_only_where_there_is_no_text():
    """Text is for people, data for programs; of files the names are shown."""
    data = Part(data=ParseDict({"total": "é"}, Value()))
    both = Artifact(name="both", parts=[Part(text="words"), data])
    alone = Artifact(artifact_id="alone", parts=[data, Part(raw=b"abc", filename="x.csv", media_type="text/csv")])
    assert printed(show.artifact(both)) == ["both", "  words"]
    assert printed(show.artifact(alone)) == [
        "alone", "  {", '    "total": "é"', "  }", "  file x.csv (text/csv, 3 bytes)",
    ]  # fmt: skip


def test_what_an_agent_says_can_not_act_on_the_terminal():
    """No markup, no escape sequences, no reversed text; line breaks stay."""
    said = "[red]a\x1b[2J\u202eb\nc[/red]\x07"
    assert Text.from_markup(show.plain(said)).plain == "[red]a[2Jb\nc[/red]"
    assert show.one_line("a\n b\x1b\tc") == "a b c"
    assert len(show.one_line("x" * 5000)) < 1000


def test_a_task_without_a_timestamp_is_listed_too():
    """Other vendors' agents may leave it out."""
    task = Task(id="t", status=TaskStatus(state=TaskState.TASK_STATE_WORKING))
    assert printed(show.tasks(ListTasksResponse(tasks=[task]))) == ["t  WORKING"]


def test_a_longer_list_says_what_is_left_out():
    """How many there are in all."""
    listed = ListTasksResponse(tasks=[Task(id="t")], next_page_token="more", total_size=9)
    assert printed(show.tasks(listed))[-1] == "the last 1 of 9"


def test_a_live_view_shows_nothing_twice():
    """After a reconnection the task comes again as a whole; only what is new in it is shown."""
    working, done = (
        TaskStatus(state=state, message=Message(parts=[Part(text=text)]))
        for state, text in ((TaskState.TASK_STATE_WORKING, "half"), (TaskState.TASK_STATE_COMPLETED, "all"))
    )
    view = show.LiveView()
    first, again = (
        StreamResponse(task=Task(id="t", status=status, artifacts=[Artifact(artifact_id="a", parts=[Part(text="x")])]))
        for status in (working, done)
    )
    assert printed(view.lines(first)) == ["task t", "a", "  x", "WORKING  half"]
    assert printed(view.lines(first)) == []
    assert printed(view.lines(again)) == ["COMPLETED  all"]


def test_chunks_are_shown_as_they_come():
    """Each once."""
    chunk = StreamResponse()
    chunk.artifact_update.append = True
    chunk.artifact_update.artifact.CopyFrom(Artifact(artifact_id="a", parts=[Part(text="more")]))
    assert printed(show.LiveView().lines(chunk)) == ["a", "  more"]
