"""Teachers: further sets of a recipe's towers' weights, which no gradient reaches.

A teacher stands inside the Model, so that ZeRO-3 divides it and the commit holds it. It embeds in evaluation mode (no
dropout, stored batch statistics) and draws no random number. "ema.image" names what the teacher `ema` says of the view
`image`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor, nn

from distpre.errors import CheckpointError
from distpre.schedule import Constant, Schedule
from distpre.towers.tower import Tower
from distpre.towers.weights import fill, load_tower, read, weights_file


class Teaching(Protocol):
    """What a recipe's `teachers` names: which towers are copied, which views embedded, where the weights come from.

    momentum: of the exponential mean that the weights are (1 for a teacher that stands still). lasting: the weights
    outlive a stage's start. around: the teacher that the student is held to, where the weights say how much (Fisher).
    facts: {view: view of the batch that holds what the teacher says of it} (Cached).
    """

    of: Sequence[str] | None
    views: Sequence[str] | None
    momentum: Schedule
    lasting: bool
    around: str | None
    facts: Mapping[str, str]

    def begin(self, teacher: Teacher) -> None:
        """Weights of a teacher whose towers are, at the start of a stage, copies of the student's."""


@dataclass(frozen=True)
class Ema:
    """After each update θ' <- m θ' + (1 - m) θ; buffers are copied (He et al. 2020, eq. 2; Tarvainen & Valpola 2017).

    of: towers (default: all); views: those it embeds (default: all of its towers'); momentum: m, a number or a
    schedule. Starts as the student where a stage starts anew.
    """

    momentum: Schedule
    of: list[str] | None = None
    views: list[str] | None = None
    lasting: ClassVar[bool] = True
    around: ClassVar[None] = None
    facts: ClassVar[Mapping[str, str]] = {}

    def begin(self, teacher: Teacher) -> None:
        pass


@dataclass(frozen=True)
class Previous:
    """The student as it stood at the start of the stage, frozen; without stages, at the start of the run."""

    of: list[str] | None = None
    views: list[str] | None = None
    momentum: ClassVar[Schedule] = Constant(1.0)
    lasting: ClassVar[bool] = False
    around: ClassVar[None] = None
    facts: ClassVar[Mapping[str, str]] = {}

    def begin(self, teacher: Teacher) -> None:
        pass


@dataclass(frozen=True)
class Fisher:
    """EWC: the student is held to another teacher by λ/2 Σ F (θ - θ*)² (Kirkpatrick et al. 2017, eq. 3).

    Its weights are not the student's but F, the diagonal Fisher information that the stages before left
    (runtime/fisher.py): one sum of all, around the newest θ* alone (Schwarz et al. 2018, section 3.2, without decay); 0
    in the first stage. It says nothing of a view; Engine.step adds the gradient λ F (θ - θ*).

    around: the teacher θ*, as in {old: {name: previous, views: []}}; weight: λ, a number or a schedule; of: towers
    (default: all).
    """

    around: str
    weight: Schedule
    of: list[str] | None = None
    views: ClassVar[list[str]] = []
    momentum: ClassVar[Schedule] = Constant(1.0)
    lasting: ClassVar[bool] = True
    facts: ClassVar[Mapping[str, str]] = {}

    def begin(self, teacher: Teacher) -> None:
        for importance in teacher.parameters():
            importance.zero_()


@dataclass(frozen=True)
class Frozen:
    """Weights that stand still, of the same architecture as the recipe's towers.

    weights: a commit's folder, a run's folder (its newest commit), a .safetensors of distpre (a commit's, an export's,
    a stage's), or an open_clip checkpoint. Raises CheckpointError naming the first weight that does not fit.
    """

    weights: str
    of: list[str] | None = None
    views: list[str] | None = None
    momentum: ClassVar[Schedule] = Constant(1.0)
    lasting: ClassVar[bool] = True
    around: ClassVar[None] = None
    facts: ClassVar[Mapping[str, str]] = {}

    def begin(self, teacher: Teacher) -> None:
        path = weights_file(self.weights)
        state = read(path)
        if any(name.startswith("towers.") for name in state):
            mine = {name: state[name] for name in state if name.split(".")[0] == "towers" and _tower(name) in teacher}
            fill(teacher.holder(), mine, f"{path} does not fit the teacher of {', '.join(teacher)}")
            return
        for name, tower in teacher.items():
            part = getattr(tower.encoder, "part", None)
            if part is None or tower.head is not None:
                raise CheckpointError(
                    f"{path} is no checkpoint of distpre, and the tower {name!r} is none of open_clip's.",
                    "Give a commit's or a stage's weights, or name open_clip towers only with `of`.",
                )
            load_tower(getattr(tower.encoder, part), path, part=part)


@dataclass(frozen=True)
class Cached:
    """No weights: what a model said of each sample stands in the sample, as `python -m tools.embed` writes it.

    facts: {view: view of the batch that holds its unit vectors}, as in {image: said_of_image}. It saves the teacher's
    forward pass and memory; the views must draw nothing at random, or the teacher would have seen other ones.
    """

    facts: dict[str, str]
    of: ClassVar[list[str]] = []
    views: ClassVar[list[str]] = []
    momentum: ClassVar[Schedule] = Constant(1.0)
    lasting: ClassVar[bool] = True
    around: ClassVar[None] = None

    def begin(self, teacher: Teacher) -> None:
        pass


class Teacher(nn.ModuleDict):
    """{tower: its copy}, without gradient, always in evaluation mode."""

    def __init__(self, teaching: Teaching, towers: dict[str, Tower]):
        super().__init__({name: copy.deepcopy(tower) for name, tower in towers.items()})
        self.teaching = teaching
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Teacher:
        return super().train(False)

    def copy_from(self, towers: nn.ModuleDict) -> None:
        for name, tower in self.items():
            tower.load_state_dict(towers[name].state_dict())

    def pairs(self, towers: nn.ModuleDict) -> Iterator[tuple[Tensor, Tensor]]:
        """(teacher's, student's) parameter, in one order on every rank."""
        for name, tower in self.items():
            yield from zip(tower.parameters(), towers[name].parameters(), strict=True)

    def buffer_pairs(self, towers: nn.ModuleDict) -> Iterator[tuple[Tensor, Tensor]]:
        for name, tower in self.items():
            yield from zip(tower.buffers(), towers[name].buffers(), strict=True)

    def holder(self) -> nn.Module:
        """A module whose state dict names the weights as a Model names its own towers'."""
        return nn.ModuleDict({"towers": self})


def previous_weights(model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of a whole model's weights, the student's under the names that they have in teachers which do not last."""
    fresh = {name for name, teacher in model.teachers.items() if not teacher.teaching.lasting}
    names = [name for name in model.state_dict() if name.split(".")[0] == "teachers" and name.split(".")[1] in fresh]
    return {name: weights[f"towers.{name.split('.', 2)[2]}"] for name in names}


def _tower(weight: str) -> str:
    return weight.split(".")[1]
