"""The frame of a recipe. Keys of components are their constructors' keywords and are checked in resolve.py."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_serializer, model_validator

from distpre.recipe.document import text_of


class Frame(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Component(BaseModel):
    """`name`, and the keywords of the class or function that it names."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    def keywords(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


Where = dict[str, list[int | str]]
Shape = list[PositiveInt]
Rate = float | dict[str, dict[str, Any]]  # a number, or {cosine: {...}}, {linear: {...}}, {steps: {...}}


class Paper(Frame):
    """hardware: what the paper trained on, "32 x A100" or, with the memory of one, "8 x A100 40 GB"; for --check.

    number: the paper's among the 90 that this project takes up.
    """

    title: str
    number: int | None = None
    year: int | None = None
    hardware: str | None = Field(None, pattern=r"^[1-9]\d* x \S.*$")


class SourceSpec(Frame):
    """shards: path, URL, brace list, `::` list or list of them; fields {name: extension}; ids {name: field path}.

    optional: fields that a sample may lack; it then counts in no term that reads their views.
    where: {id: values}: only the samples that have one of the values, for every id that is named.
    shapes: {field: shape} of arrays and pictures, {field: {key: shape}} of npz, as the shards are to hold them; what
    --check goes by until those of `train` are written.
    """

    shards: str | list[str]
    fields: dict[str, str]
    shapes: dict[str, Shape | dict[str, Shape]] = {}
    ids: dict[str, str] = {}
    optional: list[str] = []
    where: Where = {}


class ReplaySpec(Frame):
    """Samples of earlier stages mixed into a stage: `share` or `samples` of each, `weight` of the batch's slots.

    how: drawn evenly from those that the stage had seen, or herded (Rebuffi et al. 2017, algorithm 4).
    """

    weight: float = Field(gt=0, lt=1)
    share: float | None = Field(None, gt=0, le=1)
    samples: PositiveInt | None = None
    how: Literal["reservoir", "herded"] = "reservoir"


class DataSpec(Frame):
    """Sources by name (any other key), and how they are read.

    mixture: {source: weight} that training draws from, by default `train` alone. pairing: an order by ids.
    """

    sources: dict[str, SourceSpec]
    prepare: Component | None = None
    workers: int = Field(2, ge=0)
    window: PositiveInt = 262144
    max_bad_fraction: float = Field(0.01, ge=0, le=1)
    stall_seconds: PositiveFloat = 60.0
    cache: str | None = None
    cache_bytes: PositiveInt | None = None
    replay: ReplaySpec | None = None
    mixture: dict[str, PositiveFloat] = {}
    pairing: Component | None = None

    @model_validator(mode="before")
    @classmethod
    def _sources_inline(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "sources" in data:
            return data
        inline = {k: v for k, v in data.items() if k not in cls.model_fields and _like_a_source(v)}
        return {**{k: v for k, v in data.items() if k not in inline}, "sources": inline}

    @model_serializer(mode="wrap")
    def _inline_again(self, handler: Any) -> dict[str, Any]:
        plain = handler(self)
        return {**plain.pop("sources"), **plain}


def _like_a_source(value: Any) -> bool:
    return isinstance(value, dict) and ("shards" in value or "name" not in value)


class ViewSpec(Frame):
    field: str
    ops: list[Component]
    eval_ops: list[Component] | None = None


class TowerSpec(Frame):
    views: list[str] = Field(min_length=1)
    encoder: Component
    head: Component | None = None


class ScaleSpec(Frame):
    start: PositiveFloat
    max: PositiveFloat = 100.0
    bias: float | None = None
    learn: bool = True


class TermSpec(Frame):
    """A term's component and its weight; in YAML `weight` stands beside the component's own keywords."""

    component: Component
    weight: Rate = 1.0

    @model_validator(mode="before")
    @classmethod
    def _split(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "component" in data:
            return data
        split: dict[str, Any] = {"component": {k: v for k, v in data.items() if k != "weight"}}
        return split | ({"weight": data["weight"]} if "weight" in data else {})

    @model_serializer(mode="wrap")
    def _join(self, handler: Any) -> dict[str, Any]:
        plain = handler(self)
        return {**plain["component"], "weight": plain["weight"]}


class OptimiserSpec(Frame):
    """AdamW (Loshchilov & Hutter 2019); betas and eps default to CLIP's for transformers."""

    name: Literal["adamw"] = "adamw"
    lr: Rate
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    eps: PositiveFloat = 1e-6


class TrainSpec(Frame):
    """batch is the global batch; accumulation the micro-batches a rank makes of its share.

    on_nan: what a loss that is not finite does: end the run, or pass that step over without changing a weight.
    freeze: weights that are not trained, by name or by the beginning of one: towers.image, scales.logit.
    """

    steps: PositiveInt
    batch: PositiveInt
    optimiser: OptimiserSpec
    accumulation: PositiveInt = 1
    clip: PositiveFloat | None = None
    zero: Literal[0, 1, 2, 3] = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    commit_every: PositiveInt = 1000
    keep: PositiveInt = 3
    log_every: PositiveInt = 10
    on_nan: Literal["stop", "skip"] = "stop"
    freeze: list[str] = []


class EvaluateSpec(Frame):
    """domains: parts of `data`, each evaluated by itself after each stage."""

    data: str
    tables: dict[str, Component]
    every: PositiveInt = 1000
    batch: PositiveInt = 256
    domains: dict[str, Where] = {}


class RunSpec(Frame):
    dir: str


class Workers(Frame):
    """How many; {min: 2, max: 8} for as many of them as there is room for, and just `n` for min = max = n."""

    min: PositiveInt
    max: PositiveInt

    @model_validator(mode="before")
    @classmethod
    def _one_number(cls, data: Any) -> Any:
        return {"min": data, "max": data} if isinstance(data, int) else data

    @model_validator(mode="after")
    def _in_order(self) -> Workers:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is more than max {self.max}")
        return self

    @model_serializer
    def _one_number_again(self) -> int | dict[str, int]:
        return self.max if self.min == self.max else {"min": self.min, "max": self.max}


class LaunchSpec(Frame):
    """max_restarts: in a row, without a commit in between."""

    workers: Workers = Workers(min=1, max=1)
    max_restarts: int = Field(3, ge=0)
    cpus_per_worker: PositiveInt | None = None
    gpus_per_worker: int | None = Field(None, ge=0)
    stall_seconds: PositiveFloat = 600.0


class StageSpec(BaseModel):
    """A part of the run: the recipe with these dotted keys laid over it, as a variant's are.

    restart: weights go on, optimiser, schedules and lasting teachers begin anew; without it they go on, and schedules
    run over the whole run.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str
    restart: bool = True

    def keys(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Recipe(Frame):
    data: DataSpec
    views: dict[str, ViewSpec] = Field(min_length=1)
    towers: dict[str, TowerSpec] = Field(min_length=1)
    objective: dict[str, TermSpec] = Field(min_length=1)
    train: TrainSpec
    run: RunSpec
    seed: int = Field(0, ge=0)
    paper: Paper | None = None
    scales: dict[str, ScaleSpec] = {}
    teachers: dict[str, Component] = {}
    weighting: dict[str, Component] = {}
    evaluate: EvaluateSpec | None = None
    stages: list[StageSpec] = []
    launch: LaunchSpec = LaunchSpec()

    def accumulation(self, workers: int) -> int:
        """Micro-batches of a worker's share when there are `workers`: none is larger than with launch.workers.max."""
        return -(-self.train.accumulation * self.launch.workers.max // workers)

    def trained_views(self) -> list[str]:
        """Those that a training step makes and embeds: all but those that only a table of `evaluate` names."""
        by_terms = _words([term.component.keywords() for term in self.objective.values()])
        by_terms |= _words([teacher.keywords() for teacher in self.teachers.values()])
        by_tables = _words([table.keywords() for table in self.evaluate.tables.values()] if self.evaluate else [])
        return [view for view in self.views if view in by_terms or view not in by_tables]

    def evaluated_views(self) -> list[str]:
        """Those that an evaluation makes: what its tables name. All there are where domains are to be embedded, and
        where a table names none or is of a class from elsewhere, which may read what it does not name.
        """
        tables = list(self.evaluate.tables.values()) if self.evaluate else []
        named = [_words(table.keywords()) & set(self.views) for table in tables]
        unknown = any(":" in table.name or not words for table, words in zip(tables, named, strict=True))
        if not tables or unknown or self.evaluate.domains:
            return list(self.views)
        return [view for view in self.views if view in set().union(*named)]

    def dump(self) -> str:
        """The resolved recipe as YAML: base, variant, overrides and environment are in it."""
        return text_of(self.model_dump(mode="json"))


def _words(value: Any) -> set[str]:
    """Every text in it, of "teacher.view" the view."""
    if isinstance(value, str):
        return {value.rpartition(".")[2]}
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {word for part in parts for word in _words(part)}
