"""The steps of a run that somebody outside ends: questions to people, calls of other agents, time."""

import hashlib
from collections.abc import Mapping

from a2a.types import Message, TaskState
from a2a.types import Task as A2ATask

from sidecard.errors import AgentUnavailable
from sidecard.extension import Asked, Sent
from sidecard.tasks import binding
from sidecard.tasks.recording import fingerprint_of
from sidecard.tasks.results import Answer, Delegated
from sidecard.tasks.run import Run
from sidecard.tasks.state import ASK, CALL, Step
from sidecard.tasks.watch import NotTaken


class Waits:
    """Begins such steps, and gives back what ended them; each waits without using memory."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._task_id = run.live.task_id

    async def ask(
        self, prompt: str, options: Mapping[str, str] | None = None, scope: str = "", *, by_other: bool = False
    ) -> Answer:
        """Ask once; see `context.Task.ask`. What is none of the options is given back all the same."""
        options = dict(options or {})
        fingerprint = fingerprint_of(prompt, (options, scope, by_other))
        key, recorded = await self._run.step(ASK, fingerprint)
        if recorded is None:
            live = self._run.live
            with self._run.droppable(key, ASK, fingerprint):
                while live.question is not None:
                    await self._run.idle(live.question_closed(), lambda: live.question is not None)
            question = f"{self._task_id}:{key}"
            asked = Asked(question=question, options=options, scope=scope, by_other=by_other)
            status = asked.attach(Message.FromString(self.says(prompt, key)))
            spec = {"prompt": prompt, "options": options, "scope": scope, "by_other": by_other}
            self._run.append(
                ["begun", key, ASK, fingerprint, None],
                ["question", question, key, spec],
                live.status(TaskState.TASK_STATE_INPUT_REQUIRED, status.SerializeToString()),
            )
        step = recorded if recorded and recorded.done else await self.park(key, ASK, fingerprint, watched=False)
        by, data = step.value
        return Answer.of(by, Message.FromString(data), options)

    async def call(self, agent: str, message: Message, sent: Sent) -> Delegated:
        """Have an agent take a message, and return its task once that rests.

        Raises AgentUnavailable, NotTaken where it is certain that nothing came of it.
        """
        message.message_id = ""
        fingerprint = fingerprint_of(agent, (sent.skill, message.SerializeToString(deterministic=True).hex()))
        key, recorded = await self._run.step(CALL, fingerprint)
        if recorded is None:
            message.message_id = hashlib.sha256(f"{self._task_id}:{key}".encode()).hexdigest()[:32]
            sent.attach(message)
            self._run.append(["begun", key, CALL, fingerprint, [agent, message.SerializeToString()]])
        step = recorded if recorded and recorded.done else await self.park(key, CALL, fingerprint, watched=True)
        if isinstance(step.value, str):
            raise (NotTaken if step.end == "done" else AgentUnavailable)(step.value)
        return Delegated(agent, sent.skill, A2ATask.FromString(step.value))

    async def sleep(self, seconds: float) -> None:
        """See `context.Task.sleep`."""
        fingerprint = fingerprint_of("sleep", (seconds,))
        key, recorded = await self._run.step("sleep", fingerprint)
        if recorded is None:
            until = self._run.live.clock() + round(seconds * 1000)
            self._run.append(["begun", key, "sleep", fingerprint, until])
        if recorded is None or not recorded.done:
            await self.park(key, "sleep", fingerprint, watched=True)

    async def park(self, key: str, kind: str, fingerprint: str, *, watched: bool) -> Step:
        """Wait for a step that has been begun, from when that is stored."""
        with self._run.droppable(key, kind, fingerprint):
            await self._run.commit()
        return await self._run.park(key, kind, fingerprint, watched=watched)

    def says(self, text: str, key: str) -> bytes:
        """A message of the task's agent, for a status."""
        context = self._run.live.meta["context"]
        message = binding.agent_says(text, f"{self._task_id}:{key}", task_id=self._task_id, context_id=context)
        return message.SerializeToString()
