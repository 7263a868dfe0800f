"""The Model: every tower and every logit scale, one forward, which is what DeepSpeed wraps."""

from __future__ import annotations

import contextlib
import math

import torch
from torch import Tensor, nn

from distpre.towers.teachers import Teacher
from distpre.towers.tower import Tower
from distpre.types import Padded


class LogitScale(nn.Module):
    """The multiplier of cosines, kept as its logarithm, and the optional bias of a sigmoid loss.

    Both have shape [1] (DeepSpeed cannot broadcast 0-dim parameters) and are read only in forward (elsewhere they are
    empty under ZeRO-3). The value never exceeds `max`. The gradient passes the clamp untouched, as it does in CLIP,
    whose parameter is clamped in place after each step; runtime/engine.py does that under every ZeRO stage.
    """

    def __init__(self, start: float, max: float = 100.0, bias: float | None = None, learn: bool = True):
        super().__init__()
        self.bound = math.log(max)
        self.log = nn.Parameter(torch.tensor([math.log(start)]), requires_grad=learn)
        self.bias = None if bias is None else nn.Parameter(torch.tensor([bias]), requires_grad=learn)

    def forward(self) -> tuple[Tensor, ...]:
        log = self.log.float()
        scale = (log + (log.clamp(max=self.bound) - log).detach()).exp()
        return (scale,) if self.bias is None else (scale, self.bias.float())


class Model(nn.Module):
    """forward({view: (b, ...)}) -> ({view: (vector (b, d), taps)}, {scale: ([1],) or ([1], [1])}).

    Views may be a part of those in the recipe (an evaluator embeds captions alone); those of no tower are passed over.
    A name "teacher.view" is embedded by that teacher, without gradient; `taught`: {such a name: its view}, all that
    training embeds. With precision "bf16" matrix products run in bfloat16 over fp32 parameters (torch.autocast), so
    that no ZeRO stage rounds differently.
    """

    def __init__(
        self,
        towers: dict[str, Tower],
        views: dict[str, str],
        scales: dict[str, LogitScale],
        precision: str,
        teachers: dict[str, Teacher] | None = None,
    ):
        super().__init__()
        self.towers = nn.ModuleDict(towers)
        self.scales = nn.ModuleDict(scales)
        self.teachers = nn.ModuleDict(teachers or {})
        self.tower_of = views
        self.precision = precision
        self.taught = {f"{name}.{view}": view for name, its in self.teachers.items() for view in self._views(its)}

    def forward(self, views: dict[str, Tensor | Padded]) -> tuple[dict, dict]:
        with self._autocast(views):
            known = {name: x for name, x in views.items() if name.rpartition(".")[2] in self.tower_of}
            embedded = {name: self._embed(name, x) for name, x in known.items()}
        return embedded, {name: scale() for name, scale in self.scales.items()}

    def _embed(self, name: str, x: Tensor | Padded) -> tuple[Tensor, dict[str, Tensor]]:
        teacher, _, view = name.rpartition(".")
        tower = self.tower_of[view]
        if not teacher:
            return self.towers[tower](x)
        with torch.no_grad():
            return self.teachers[teacher][tower](x)

    def _views(self, teacher: Teacher) -> list[str]:
        wanted = teacher.teaching.views
        return [v for v, tower in self.tower_of.items() if tower in teacher and (wanted is None or v in wanted)]

    def _autocast(self, views: dict) -> contextlib.AbstractContextManager:
        if self.precision == "fp32" or not views:
            return contextlib.nullcontext()
        x = next(iter(views.values()))
        kind = (x.values if isinstance(x, Padded) else x).device.type
        return torch.autocast(kind, dtype=torch.bfloat16)
