"""What an author writes: an agent, and its skills as plain async functions."""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from pydantic import BaseModel, Field, TypeAdapter
from pydantic.errors import PydanticUserError

from sidecard.actions import SURFACE, declared
from sidecard.errors import ConfigurationError
from sidecard.screening.policy import DEFAULT, Policy

_POSITIONAL = inspect.Parameter.POSITIONAL_OR_KEYWORD


class File(BaseModel):
    """A file that came with a message, or goes out with an artifact."""

    name: str = Field(default="", description="File name, as the sender gave it.")
    media_type: str = Field(default="application/octet-stream", description="Media type, such as text/csv.")
    content: bytes = Field(default=b"", description="The bytes.")
    url: str = Field(default="", description="Where the bytes are, if not sent along; never fetched by itself.")


@dataclass(frozen=True, slots=True)
class Skill:
    """One skill of an agent: a function, what it takes and gives, and who may invoke it."""

    id: str
    function: Callable[..., Awaitable[Any]]
    description: str
    scope: str
    idempotent: bool
    input: type[Any]
    output: TypeAdapter[Any]
    tags: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    version: str = "1"
    failed: str = SURFACE
    rejected: str = SURFACE
    screening: Policy | None = None
    prompts_model: bool = False

    @property
    def name(self) -> str:
        """The id in words: `search_flights` is "Search flights"."""
        return self.id.replace("_", " ").capitalize()


@dataclass(slots=True)
class Agent:
    """An A2A agent: its name is its Dapr app-id and its folder in `agents/`.

    `publisher` is the organization that signs its card; `asks` lists scopes that its questions may demand of whoever
    answers them (see `Task.ask`), so that `sidecard check` knows them; `screening` says what is done about prompt
    injection, personal data and secrets in the messages of skills that have no policy of their own.
    """

    name: str
    version: str
    description: str
    publisher: str
    publisher_url: str = ""
    asks: tuple[str, ...] = ()
    screening: Policy = DEFAULT
    skills: dict[str, Skill] = field(default_factory=dict)
    formers: dict[tuple[str, str], Skill] = field(default_factory=dict)
    """Former versions of skills, by id and version: only tasks that began with them run them."""

    def skill(
        self,
        *,
        scope: str,
        idempotent: bool,
        tags: tuple[str, ...] | list[str] = (),
        examples: tuple[str, ...] | list[str] = (),
        version: str = "1",
        failed: str = "",
        rejected: str = "",
        screening: Policy | None = None,
        prompts_model: bool = False,
    ) -> Callable[[Callable[..., Awaitable[Any]]], Callable[..., Awaitable[Any]]]:
        """Make an async function `(input, task) -> output` a skill, named after it and described by its docstring.

        Input and output are pydantic models, or `str`; a skill whose output is None has told everything by
        `task.artifact`. An `idempotent` skill may start before its task is stored and
        may run again from the top at any time; any other starts once its task is stored, and keeps its effects in
        `task.once`. `failed` and `rejected` say what an agent that delegates to it does when it ends so (see
        `sidecard.actions`); by default what is idempotent is retried when it failed, and all else surfaces.
        `task.once`. A skill that `prompts_model` hands text of its messages to a language model: then what looks like
        prompt injection is blocked by default. `screening` is its policy, if it is not the agent's.

        Raises ConfigurationError for a function that can't be a skill.
        """

        def register(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
            skill_id = function.__name__
            given, output = _signature(function)
            if not inspect.cleandoc(function.__doc__ or ""):
                raise ConfigurationError(f"{skill_id} needs a docstring: other agents' models choose the skill by it")
            if skill_id in self.skills:
                raise ConfigurationError(f"{self.name} has two skills named {skill_id}: rename one")
            if (skill_id, version) in self.formers:
                raise ConfigurationError(f"{skill_id} needs another version than {version!r}, which is a former one")
            actions = declared(skill_id, failed, rejected, idempotent=idempotent)
            self.skills[skill_id] = Skill(
                id=skill_id,
                function=function,
                description=inspect.cleandoc(function.__doc__ or ""),
                scope=scope,
                idempotent=idempotent,
                input=given,
                output=output,
                tags=tuple(tags),
                examples=tuple(examples),
                version=version,
                failed=actions[0],
                rejected=actions[1],
                screening=screening,
                prompts_model=prompts_model,
            )
            return function

        return register

    def former(
        self, skill: str, *, version: str
    ) -> Callable[[Callable[..., Awaitable[Any]]], Callable[..., Awaitable[Any]]]:
        """Keep a former version of a skill, under any function name, for the tasks that began with it.

        They go on over their recorded steps as they began; new tasks have the present version, which is another one.
        Without it they run the present version, and are stopped where they are when that takes another way.

        Raises ConfigurationError for a function that can't be a skill.
        """

        def register(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
            given, output = _signature(function)
            if (skill, version) in self.formers or (skill in self.skills and self.skills[skill].version == version):
                raise ConfigurationError(
                    f"{self.name} has two versions {version!r} of {skill}: give one another version"
                )
            self.formers[skill, version] = Skill(
                id=skill,
                function=function,
                description="",
                scope="",
                idempotent=False,
                input=given,
                output=output,
                version=version,
            )
            return function

        return register

    def skill_of(self, skill: str, version: str) -> Skill | None:
        """What runs a task that began with that version: it, if it is kept, else the present one."""
        return self.formers.get((skill, version)) or self.skills.get(skill)

    @property
    def scopes(self) -> frozenset[str]:
        """Every scope that means something at this agent."""
        return frozenset(skill.scope for skill in self.skills.values()) | frozenset(self.asks)


def _signature(function: Callable[..., Awaitable[Any]]) -> tuple[type[Any], TypeAdapter[Any]]:
    """What a function takes and gives. Raises ConfigurationError, which says how to write it as a skill."""
    name = function.__name__
    form = f"write `async def {name}(request: Model, task: Task) -> Model`"
    parameters = list(inspect.signature(function).parameters.values())
    if not inspect.iscoroutinefunction(function) or [one.kind for one in parameters] != [_POSITIONAL, _POSITIONAL]:
        raise ConfigurationError(f"{name} can't be a skill: {form}")
    try:
        hints = get_type_hints(function)
    except NameError as error:
        raise ConfigurationError(
            f"{name} can't be a skill: {error}; import what its annotations name at the top of the module"
        ) from error
    if "return" not in hints or parameters[0].name not in hints:
        raise ConfigurationError(f"{name} can't be a skill without its annotations: {form}")
    given = hints[parameters[0].name]
    if given is not str and not (inspect.isclass(given) and issubclass(given, BaseModel)):
        raise ConfigurationError(f"{name} can't take {_shown(given)}: its input is a pydantic model, or str; {form}")
    try:
        output: TypeAdapter[Any] = TypeAdapter(hints["return"])
        output.json_schema(mode="serialization")
    except PydanticUserError as error:
        raise ConfigurationError(
            f"{name} can't give {_shown(hints['return'])}: its output is a pydantic model, str or None; {form}"
        ) from error
    return given, output


def _shown(annotation: object) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
