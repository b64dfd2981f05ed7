"""What a template is: a notebook, the declaration of its parameters and metrics, and a digest over all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

LANGUAGES = ("nb", "nn", "en")

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Text:
    """A text in the three languages of the lab; a missing one falls back nn -> nb, nb -> nn, en -> nb."""

    nb: str = ""
    nn: str = ""
    en: str = ""

    def get(self, language: str) -> str:
        wanted = getattr(self, language, "") if language in LANGUAGES else ""
        return str(wanted or self.nb or self.nn or self.en)


class ParameterType(StrEnum):
    NUMBER = "number"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    TEXT = "text"
    CHOICE = "choice"
    DATE = "date"


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """One declared parameter. ``minimum`` and ``maximum`` are inclusive, in ``unit``."""

    name: str
    type: ParameterType
    default: Scalar
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    max_length: int = 1000
    choices: tuple[str, ...] = ()
    choice_labels: Mapping[str, Text] = field(default_factory=dict)
    label: Text = Text()
    help: Text = Text()


@dataclass(frozen=True, slots=True)
class MetricSpec:
    name: str
    unit: str = ""
    better: str | None = None  # higher | lower
    label: Text = Text()


class TemplateState(StrEnum):
    SUBMITTED = "submitted"  # published by one coordinator, waits for a second person's approval
    PUBLISHED = "published"
    DEPRECATED = "deprecated"


@dataclass(frozen=True, slots=True)
class TemplateVersion:
    """One immutable version. ``digest`` is "sha256:<hex>" over its three files; one changed byte is another version."""

    name: str  # [a-z0-9-], 1 to 60
    version: str  # MAJOR.MINOR.PATCH
    digest: str
    title: Text
    summary: Text
    language: str  # of the notebook's own text
    kernel: str
    timeout_seconds: int
    data_class: str  # synthetic | open | anonymised
    data_source: Text
    parameters: tuple[ParameterSpec, ...]
    metrics: tuple[MetricSpec, ...]
    notebook: bytes
    declaration: bytes  # template.toml as it was published
    readme: str = ""
    start: str = "forked"  # how its kernel is started: forked (in a moment, from a warm process) | ordinary

    def parameter(self, name: str) -> ParameterSpec | None:
        return next((p for p in self.parameters if p.name == name), None)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with an input. ``code`` is a machine word, the fields are what its sentence needs."""

    code: str
    field: str = ""
    value: str = ""
    limit: str = ""
    message: str = ""  # English, complete: what, which value, what next

    def as_dict(self) -> dict[str, str]:
        fields = {"code": self.code, "field": self.field, "value": self.value, "limit": self.limit}
        return {**fields, "message": self.message}


class InvalidInput(ValueError):
    """Every problem at once: raised by ``parameters.bind`` and by the publish gate (``checks``)."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        super().__init__(" ".join(p.message for p in problems))


@dataclass(frozen=True, slots=True)
class Parameters:
    """Bound parameters: every declared name has a value of its declared type."""

    values: Mapping[str, Scalar]
