"""`sidecard send`, `stream`, `task`, `cancel` and `card`: what they print, and their exit codes."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from a2a.types import Task, TaskState, TaskStatus
from typer.testing import CliRunner

from demo.collector import Collector
from sidecard.cli import app
from sidecard.cli.answers import how_to_answer
from sidecard.cli.client import AgentClient


@pytest.fixture
def run(project):
    """Runs the command line in the project's folder."""

    def run(*arguments):
        return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})

    return run


def task_id(done):
    return re.search(r"task ([0-9a-f]{32})", done.output)[1]


def test_send_shows_the_outcome(run, sidecar):
    """State, artifacts (data only where there is no text) and the task's id; exit code 0."""
    done = run("send", "shop", "apples", "--data", '{"count": 2}', "--skill", "buy")
    assert done.exit_code == 0
    assert done.output.startswith("COMPLETED")
    assert '"said": "2 apples"' in done.output
    assert task_id(done)


def test_send_attaches_files(run, sidecar, tmp_path):
    """With their names."""
    (tmp_path / "list.csv").write_bytes(b"a,b,c")
    done = run("send", "shop", "apples", "--file", "list.csv", "--skill", "buy")
    assert "list.csv of 5 bytes" in done.output


def test_a_question_is_shown_with_what_to_type(run, sidecar):
    """The very command that is printed answers it."""
    asked = run("send", "shop", "one", "--skill", "choose")
    assert asked.exit_code == 0
    assert "INPUT_REQUIRED  Which one?" in asked.output
    assert "B  the second" in asked.output
    command = re.search(r"answer: sidecard (.*)", asked.output)[1]
    done = run(*shlex.split(command))
    assert done.exit_code == 0
    assert "A for desk" in done.output
    assert "all" not in done.output


def test_the_likeliest_answer_is_suggested(run, sidecar):
    """The first of the options, wherever it is in the alphabet."""
    asked = run("send", "shop", "one", "--skill", "spend")
    assert "--answer yes" in asked.output


@pytest.mark.parametrize(
    ("typed", "found", "shown"),
    [
        (".venv/bin/sidecard", None, ".venv/bin/sidecard"),
        ("/x/bin/sidecard", "/x/bin/sidecard", "sidecard"),
        ("/x/bin/pytest", None, "sidecard"),
    ],
)
def test_a_command_to_type_begins_as_this_one_did(project, monkeypatch, typed, found, shown):
    """Where `sidecard` is not on the PATH, its path is needed again."""
    monkeypatch.setattr(sys, "argv", [typed])
    monkeypatch.setattr(shutil, "which", lambda _: found)
    asking = Task(id="t", status=TaskStatus(state=TaskState.TASK_STATE_INPUT_REQUIRED))
    assert how_to_answer(project, "shop", asking).startswith(f"{shown} send shop --task t")


def test_who_interrupts_is_told_what_goes_on(run, sidecar, monkeypatch):
    """Exit code 130, and how to find the task again."""

    async def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(AgentClient, "send", interrupted)
    done = run("send", "shop", "one", "--skill", "choose")
    assert done.exit_code == 130
    assert "sidecard task shop" in done.stderr


def test_a_question_for_somebody_else_names_who(run, sidecar):
    """Of those who hold the right and have a key; the requester's own answer is refused in one line."""
    asked = run("send", "shop", "one", "--skill", "spend")
    command = re.search(r"answer: sidecard (.*)", asked.output)[1]
    assert command.endswith("--as boss")
    refused = run("send", "shop", "--task", task_id(asked), "--answer", "yes")
    assert refused.exit_code == 2
    assert refused.output.count("\n") == 1
    assert "approve" in refused.output
    assert "yes by boss" in run(*shlex.split(command)).output


def test_a_task_that_ended_badly_is_exit_code_1(run, sidecar):
    """With its reason."""
    done = run("send", "shop", "one", "--skill", "refuse")
    assert done.exit_code == 1
    assert "REJECTED  sold out" in done.output


def test_json_is_the_a2a_object_and_nothing_else(run, sidecar):
    """ProtoJSON of the task."""
    done = run("send", "shop", "apples", "--skill", "buy", "--json")
    task = json.loads(done.stdout)
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    assert task["artifacts"][0]["parts"][0]["data"] == {"said": "1 apples"}


def test_stream_shows_events_as_they_come_and_nothing_twice(run, sidecar):
    """Over a broken connection, too; neither markup nor control characters in them have an effect."""
    sidecar.cut = 2
    done = run("stream", "shop", "news", "--skill", "tell")
    assert done.exit_code == 0
    assert done.output.count("report\n  all [bold]well[/bold] [31m\n") == 1
    assert done.output.count("COMPLETED") == 1
    assert "\x1b" not in done.output


def test_stream_prints_one_json_object_per_event(run, sidecar):
    """The task first, then its updates."""
    done = run("stream", "shop", "news", "--skill", "tell", "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert "task" in events[0]
    assert json.dumps(events).count("TASK_STATE_COMPLETED") >= 1


def test_stream_with_a_task_alone_watches_it(run, sidecar):
    """As it is now, when nothing more will happen."""
    sent = run("send", "shop", "one", "--skill", "refuse")
    watched = run("stream", "shop", "--task", task_id(sent))
    assert watched.exit_code == 1
    assert "REJECTED  sold out" in watched.output


def test_task_shows_one_or_lists_all(run, sidecar):
    """Reading a task that ended badly is no failure."""
    first = run("send", "shop", "first", "--skill", "buy")
    second = run("send", "shop", "second", "--skill", "refuse")
    shown = run("task", "shop", task_id(second), "--history", "1")
    assert shown.exit_code == 0
    assert "you    second" in shown.output
    assert "REJECTED  sold out" in shown.output
    listed = run("task", "shop").output.splitlines()
    assert [line.split()[0] for line in listed] == [task_id(second), task_id(first)]
    assert listed[0].endswith("second")
    assert len(json.loads(run("task", "shop", "--json").stdout)["tasks"]) == 2
    assert run("task", "shop", "--as", "guest").output == "no tasks yet\n"


def test_cancel_ends_a_task(run, sidecar):
    """Exit code 0; a second time there is nothing to cancel."""
    asked = run("send", "shop", "one", "--skill", "choose")
    done = run("cancel", "shop", task_id(asked))
    assert done.exit_code == 0
    assert done.output.startswith("CANCELED")
    assert run("cancel", "shop", task_id(asked)).exit_code == 2


def test_card_shows_who_signed_it_and_what_the_agent_can(run, sidecar, port):
    """By app-id or URL; --json has the proof beside the card."""
    shown = run("card", "shop")
    assert shown.exit_code == 0
    assert "verified: signed by Tests with the pinned key shop-1" in shown.output
    assert "choose  Ask which one." in shown.output
    assert "JSONRPC 1.0" in shown.output
    by_url = json.loads(run("card", f"http://127.0.0.1:{port.getsockname()[1]}", "--json").stdout)
    assert by_url["verified"]["kid"] == "shop-1"
    assert by_url["card"]["name"] == "shop"


def test_a_refused_card_is_one_line_and_exit_code_2(run, sidecar, project):
    """Altered, unsigned, or by an unknown publisher."""
    (project.local / "trust.json").write_text('{"publishers": {}}')
    refused = run("card", "shop")
    assert refused.exit_code == 2
    assert refused.stderr.count("\n") == 1
    assert "'Tests' has no say about the app 'shop'" in refused.stderr
    assert json.loads(run("card", "shop", "--json").stdout)["error"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["send", "shop"], "nothing to say"),
        (["send", "shop", "  "], "nothing to say"),
        (["send", "shop", "x", "--data", "{count: 2}"], "--data is not JSON"),
        (["send", "shop", "x", "--file", "nowhere.csv"], "nowhere.csv can't be read"),
        (["send", "shop", "x", "--skill", "fly"], "there is no skill 'fly'"),
        (["send", "shop", "--answer", "A"], "--task ID"),
        (["send", "shop", "x", "--answer", "A", "--task", "t"], "not both"),
        (["send", "nobody", "x"], "no agent 'nobody'"),
        (["send", "desk", "x"], "'desk' is an app, but no agent"),
        (["send", "guarded", "x"], "access rules"),
        (["send", "shop", "x", "--as", "ada"], "no key of 'ada'"),
        (["send", "shop", "x", "--as", "guest", "--skill", "buy"], "agents/callers.yaml"),
        (["task", "shop", "unknown"], "sidecard task AGENT"),
        (["cancel", "shop", "unknown"], "sidecard task AGENT"),
        (["stream", "shop"], "nothing to say"),
        (["card", "http://127.0.0.1:1"], "No card from"),
        (["card", "ftp://x"], "No card from"),
        (["card", "nobody"], "registry can't be reached"),
    ],
)
def test_what_can_not_be_done_is_one_line(run, sidecar, arguments, says):
    """It says what to do; exit code 2, no traceback; with --json one object."""
    done = run(*arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert says in json.loads(run(*arguments, "--json").stdout)["error"]


def test_an_answer_to_a_task_that_asks_nothing_is_said_so(run, sidecar):
    """Before anything is sent."""
    done = run("send", "shop", "one", "--skill", "refuse")
    refused = run("send", "shop", "--task", task_id(done), "--answer", "A")
    assert refused.exit_code == 2
    assert "REJECTED and asks nothing" in refused.stderr


def test_a_system_that_is_down_says_how_to_start_it(run, port):
    """In one line."""
    port.close()
    done = run("send", "shop", "x")
    assert done.exit_code == 2
    assert "make up" in done.stderr


def test_a_wrong_variable_is_one_line_and_exit_code_2(run, monkeypatch):
    """Like all else that keeps a command from being done."""
    monkeypatch.setenv("DAPR_HTTP_PORT", "eighty")
    done = run("send", "shop", "apples")
    assert done.exit_code == 2
    assert "DAPR_HTTP_PORT" in done.output
    assert done.output.count("\n") == 1


def test_the_trace_starts_at_the_user(project, sidecar):
    """One span for the command, and every request it makes below that."""
    with Collector() as collector:
        command = [sys.executable, "-m", "sidecard.cli", "send", "shop", "apples", "--skill", "buy"]
        environment = os.environ | collector.environment()
        subprocess.run(command, cwd=project.root, env=environment, check=True, capture_output=True)
        spans = collector.spans()
    (root,) = (span for span in spans if not span.parent_id)
    assert (root.service, root.name) == ("user", "sidecard send to shop")
    assert {span.trace_id for span in spans} == {root.trace_id}
    assert {span.parent_id for span in spans if span is not root} == {root.span_id}


def test_an_authority_is_granted_with_what_it_is_for_in_view(run, sidecar):
    """The command that is printed grants it; what is granted is shown before, and the same task goes on."""
    asked = run("send", "shop", "x", "--skill", "charge")
    assert asked.exit_code == 0
    assert "AUTH_REQUIRED  May 9 EUR be charged?" in asked.output
    assert "Amount  9 EUR" in asked.output
    command = re.search(r"answer: sidecard (grant .*?)  ", asked.output)[1]
    unsure = run(*shlex.split(command))
    assert (unsure.exit_code, "say --yes" in unsure.output) == (2, True)
    done = run(*shlex.split(command), "--yes")
    assert done.exit_code == 0
    assert "Amount  9 EUR" in done.output
    assert "card:charge by desk" in done.output
    assert task_id(done) == task_id(asked)


def test_the_one_task_that_waits_needs_no_id(run, sidecar):
    """Where there are several they are named, where there is none that is said."""
    none = run("grant", "shop", "--yes")
    assert (none.exit_code, "No task of yours at shop waits for an authority" in none.output) == (2, True)
    first = task_id(run("send", "shop", "x", "--skill", "charge"))
    assert run("refuse", "shop").exit_code == 1
    assert "refused card:charge" in run("task", "shop", first).output
    several = {task_id(run("send", "shop", "x", "--skill", "charge")) for _ in range(2)}
    many = run("grant", "shop", "--yes")
    assert many.exit_code == 2
    assert all(one in many.output.replace("\n", "") for one in several)


def test_a_question_is_not_granted(run, sidecar):
    """It is answered."""
    asked = task_id(run("send", "shop", "one", "--skill", "choose"))
    done = run("grant", "shop", "--task", asked, "--yes")
    assert (done.exit_code, "waits for an answer" in done.output) == (2, True)


SAID = "apples for ada@example.org, by AKIAIOSFODNN7EXAMPLE"


def test_a_task_is_revealed_to_its_owner(run, sidecar):
    """What they said and what was made of it, as it was before; what another agent redacted is named, and stays."""
    sent = run("send", "shop", f"{SAID} or <PHONE_NUMBER_0A1B2C3D>", "--skill", "buy")
    assert "ada@example.org" not in sent.output
    assert "AKIAIOSFODNN7EXAMPLE" not in run("task", "shop", task_id(sent), "--history", "1").output
    shown = run("reveal", "shop", "--task", task_id(sent))
    assert shown.exit_code == 0
    assert re.search(f"^you +{SAID}", shown.output)
    assert f'"said": "1 {SAID}' in shown.output
    assert "another agent's: <PHONE_NUMBER_0A1B2C3D>" in shown.output


def test_what_is_revealed_is_one_json_object(run, sidecar):
    """ProtoJSON of the task, its messages included, and nothing else."""
    sent = task_id(run("send", "shop", SAID, "--skill", "buy"))
    shown = json.loads(run("reveal", "shop", "--task", sent, "--json").stdout)
    assert shown["history"][0]["parts"][0]["text"] == SAID
    assert shown["artifacts"][0]["parts"][0]["data"]["said"] == f"1 {SAID}"


def test_to_others_there_is_no_such_task_to_reveal(run, sidecar):
    """One line that says who may; without --task it is not done either."""
    sent = task_id(run("send", "shop", SAID, "--skill", "buy"))
    for refused in (
        run("reveal", "shop", "--task", sent, "--as", "guest"),
        run("reveal", "shop", "--task", sent, "--tenant", "north"),
        run("reveal", "shop", "--task", "f" * 32),
    ):
        assert refused.exit_code == 2
        assert refused.output.count("\n") == 1
        assert "only who started it" in refused.output
    assert run("reveal", "shop").exit_code == 2


def test_a_card_is_shown_as_it_is_for_me(run, sidecar):
    """What I may do there, and what I am taken for; verified as the public one."""
    mine = run("card", "shop", "--extended")
    assert mine.exit_code == 0
    assert "verified" in mine.output
    assert "choose" in mine.output
    assert "for you  desk, who holds buy, in the tenants north, too" in mine.output
    others = run("card", "shop", "--extended", "--as", "guest")
    assert "for you  guest, who holds look" in others.output
    assert "choose" not in others.output
    assert "for you" not in run("card", "shop").output
