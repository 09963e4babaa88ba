"""The steps of a run that somebody outside ends: questions to people, calls of other agents, time."""

import hashlib
from collections.abc import Mapping

from a2a.types import Message
from a2a.types import Task as A2ATask

from sidecard.errors import AgentUnavailable
from sidecard.extension import Asked, Sent
from sidecard.screening.finding import Withheld
from sidecard.tasks import binding
from sidecard.tasks.entry import Record
from sidecard.tasks.recording import fingerprint_of, nameless
from sidecard.tasks.results import Answer, Authority, Delegated
from sidecard.tasks.run import Run
from sidecard.tasks.state import ASK, CALL, Step
from sidecard.tasks.states import AUTH_REQUIRED, INPUT_REQUIRED
from sidecard.tasks.watch import NotTaken
from sidecard.vouching import Vouching, needs_proof, said_by


class TokenRefused(Exception):
    """Whom the task is for does not come with the token that another agent is called by."""


class Waits:
    """Begins such steps, and gives back what ended them; each waits without using memory.

    What is asked of one certain person is signed by `vouching`, where there is one, and so is what they say at this
    agent's own door, on its way to another agent that asks.
    """

    def __init__(self, run: Run, vouching: Vouching | None = None) -> None:
        self._run = run
        self._task_id = run.live.task_id
        self._vouching = vouching

    async def ask(
        self, prompt: str, options: Mapping[str, str] | None = None, scope: str = "", *, by_other: bool = False
    ) -> Answer:
        """Ask once; see `context.Task.ask`. What is none of the options is given back all the same."""
        asked = Asked(question="", options=dict(options or {}), scope=scope, by_other=by_other)
        by, data = (await self._asked(prompt, asked)).value
        return Answer.of(by, Message.FromString(data), asked.options)

    async def authorize(
        self, prompt: str, authority: str, details: Mapping[str, str], *, token: bool = False
    ) -> Authority:
        """Ask for an authority once; see `context.Task.authorize`. With `token` it is granted only along with one."""
        asked = Asked(question="", authority=authority, details=dict(details), token=token)
        return Authority.of((await self._asked(prompt, asked, AUTH_REQUIRED)).value, authority)

    async def ask_on(self, done: Delegated) -> tuple[Message, Sent]:
        """Ask what a delegated task asks, just as it does, and return what is to be answered there."""
        status = done.task.status
        asked = Asked.of(status.message) or Asked(question="")
        step = await self._asked(done.text, asked, status.state, relayed=True)
        by, message = step.value[0], Message.FromString(step.value[1])
        said = Sent.of_message(message)
        answer = Message(parts=message.parts, task_id=done.task.id, context_id=done.task.context_id)
        sent = Sent(skill=done.skill, subject=by, question=asked.question, grant=said.grant, proof=said.proof)
        return answer, self._proven(asked, answer, sent)

    async def _asked(self, prompt: str, asked: Asked, state: int = INPUT_REQUIRED, *, relayed: bool = False) -> Step:
        """Open a question and wait for its answer: its step, ended."""
        arguments: list[object] = [asked.options, asked.scope, asked.by_other]
        if asked.authority:
            arguments += [asked.authority, asked.details]
        fingerprint = nameless(fingerprint_of(prompt, tuple(arguments)))
        key, recorded = await self._run.step(ASK, fingerprint)
        if recorded is None:
            live = self._run.live
            with self._run.droppable(key, ASK, fingerprint):
                while live.question is not None:
                    await self._run.idle(live.question_closed(), lambda: live.question is not None)
            decided, prompt, asked = await self._inspected(prompt, asked, key)
            prompt, asked = self._signed(prompt, asked, f"{self._task_id}:{key}", relayed=relayed)
            status = asked.attach(self.says(prompt, key))
            if relayed and asked.signed:  # it says what was signed elsewhere
                decided += await self._run.screened.signed(status)
            self._run.append(
                *decided,
                ["begun", key, ASK, fingerprint, None],
                ["question", asked.question, key, _spec(prompt, asked)],
                live.status(state, status.SerializeToString()),
            )
        return recorded if recorded and recorded.done else await self.park(key, ASK, fingerprint, watched=False)

    async def _inspected(self, prompt: str, asked: Asked, key: str) -> tuple[list[Record], str, Asked]:
        """What content inspection lets be asked, and what it has decided; what is signed is what is left."""
        status = asked.attach(self.says(prompt, key))
        decided, _ = await self._run.screened.status(status)
        if not decided:
            return [], prompt, asked
        return decided, binding.text_of(status), Asked.of(status) or asked

    def _signed(self, prompt: str, asked: Asked, question: str, *, relayed: bool) -> tuple[str, Asked]:
        """What is asked under this task's own question id: signed here, or, `relayed`, by the agent that asks.

        Of that just what is signed is shown: an agent between could have a person agree to something else.
        Raises NotBelieved for what should be signed and is not.
        """
        vouching, meta = self._vouching, self._run.live.meta
        if vouching is None or not needs_proof(asked):
            return prompt, asked.model_copy(update={"question": question})
        if not relayed:
            asked = asked.model_copy(update={"question": question})
            token = vouching.sign_question(asked, prompt, tenant=meta["tenant"], subject=meta["subject"])
            return prompt, asked.model_copy(update={"signed": token})
        believed = vouching.believe_question(asked.signed, tenant=meta["tenant"])
        return believed.prompt, believed.as_asked(asked.signed).model_copy(update={"question": question})

    def _proven(self, asked: Asked, answer: Message, sent: Sent) -> Sent:
        """With the proof that came with it; what was said at this agent's own door is signed here."""
        if self._vouching is None or sent.proof or not (asked.signed and needs_proof(asked)):
            return sent
        said = said_by(answer, sent.grant)
        tenant = self._run.live.meta["tenant"]
        proof = self._vouching.sign_answer(asked.signed, by=sent.subject, tenant=tenant, said=said)
        return sent.model_copy(update={"proof": proof})

    async def call(self, agent: str, message: Message, sent: Sent) -> Delegated:
        """Have an agent take a message, and return its task once that rests.

        Where it is called by a token of whom the task is for, and none is at hand any more, they are asked for another;
        then the same message goes on its way, or what came of it is followed on.

        Raises AgentUnavailable, NotTaken where it is certain that nothing came of it; TokenRefused.
        """
        first, step = await self._call(agent, message, sent)
        while isinstance(step.value, list):
            await self._bring_token(agent, sent.skill, step.value[1])
            _, step = await self._call(agent, message, sent, first)
        if isinstance(step.value, str):
            raise (NotTaken if step.end == "done" else AgentUnavailable)(step.value)
        done = Delegated(agent, sent.skill, A2ATask.FromString(step.value))
        if withheld := done.withheld:
            raise Withheld(withheld)
        return done

    async def _call(self, agent: str, message: Message, sent: Sent, before: str = "") -> tuple[str, Step]:
        """Send a message, or go on with what was sent with the step `before`; the key of the step, and its end."""
        message.message_id = ""
        fingerprint = fingerprint_of(agent, (sent.skill, message.SerializeToString(deterministic=True).hex()))
        key, recorded = await self._run.step(CALL, fingerprint)
        if recorded is None:
            out = Message()
            out.CopyFrom(message)
            decided = await self._run.screened.request(agent, out)
            out.message_id = hashlib.sha256(f"{self._task_id}:{before or key}".encode()).hexdigest()[:32]
            sent.attach(out)
            child = self._run.live.folded.children.get(before)
            taken = [["child", key, agent, child.task_id]] if child else []
            self._run.append(*decided, ["begun", key, CALL, fingerprint, [agent, out.SerializeToString()]], *taken)
        if recorded and recorded.done:
            return key, recorded
        return key, await self.park(key, CALL, fingerprint, watched=True)

    async def _bring_token(self, agent: str, skill: str, why: str) -> None:
        """Ask whom the task is for to come with a token, unless they have done so meanwhile. Raises TokenRefused."""
        live = self._run.live
        fingerprint = fingerprint_of(agent, ())
        key, recorded = await self._run.step("token", fingerprint)
        if recorded is None:
            while live.question is not None and not self._run.bears():  # several branches may want it: one asks
                await self._run.idle(live.question_closed(), lambda: live.question is not None)
            recorded = Step("token", fingerprint, "done", self._run.bears())
            self._run.append([recorded.end, key, recorded.kind, recorded.arguments, recorded.value])
        if recorded.value:
            return
        prompt = f"{why}, and none is at hand any more: grant this with a new one"
        details = {"agent": agent, "skill": skill}
        decided = await self.authorize(prompt, f"token:{agent}", details, token=True)
        if not decided.granted:
            raise TokenRefused(f"{decided.by} lends no token for {skill} of {agent}")

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

    def says(self, text: str, key: str) -> Message:
        """A message of the task's agent, for a status."""
        context = self._run.live.meta["context"]
        return binding.agent_says(text, f"{self._task_id}:{key}", task_id=self._task_id, context_id=context)


def _spec(prompt: str, asked: Asked) -> dict[str, object]:
    """A question as it is recorded; most have no more than the first four."""
    spec = {"prompt": prompt, "options": asked.options, "scope": asked.scope, "by_other": asked.by_other}
    more = {"authority": asked.authority, "details": asked.details, "signed": asked.signed, "token": asked.token}
    return spec | {name: value for name, value in more.items() if value}
