"""The sample states of a run: read before a step, written after it, in every commit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from distpre.data.loader import Loader
from distpre.errors import DataError, DistpreError, RecipeError
from distpre.group import rank
from distpre.objectives.objective import StepResult
from distpre.recipe import Recipe
from distpre.recipe.resolve import build
from distpre.runtime.pictures import histogram
from distpre.types import Batch, Memory
from distpre.weighting.histogram import Histogram
from distpre.weighting.state import SampleState


class Remembered:
    """The recipe's `weighting`: {name: (weighting, its state over the loader's source)}. A stage begins with none.

    What a weighting has to show is drawn into the run folder, weighting/NAME-epoch-N.png. Raises DataError for a source
    of fewer samples than a weighting needs.
    """

    def __init__(self, recipe: Recipe, loader: Loader, note: Callable[[str], None]):
        made = {name: build(component, "weighting") for name, component in recipe.weighting.items()}
        size, digest = len(loader.source), loader.source.digest if made else ""
        for name, each in made.items():
            if size < (fewest := getattr(each, "fewest", 0)):
                what = f"weighting.{name}: {recipe.weighting[name].name} needs at least {fewest} samples"
                raise DataError(f"{what}; data.train has {size}.", "Give it more shards, or leave the weighting out.")
        self.parts = {name: (each, SampleState(size, each.columns, digest)) for name, each in made.items()}
        self.loader, self.seed, self.note = loader, recipe.seed, note
        self.pictures: Path | None = Path(recipe.run.dir, "weighting") if rank() == 0 else None
        self.figures: dict[str, float] = {}

    def weigh(self, batch: Batch) -> None:
        """Puts {name: (b,)} into batch.state."""
        for name, (weighting, state) in self.parts.items():
            batch.state[name] = weighting.weigh(state, batch)

    def observe(self, batch: Batch, result: StepResult) -> dict[str, float]:
        """After the loader has counted the batch; returns the figures of the last epoch that ended."""
        size, end = len(self.loader.source), self.loader.position
        for name, (weighting, state) in self.parts.items():
            if not result.skipped:
                if weighting.of not in result.per_sample:
                    what = f"weighting.{name}.of: the term {weighting.of!r} says nothing of single samples."
                    raise RecipeError(what, f"There is {', '.join(result.per_sample) or 'none that does'}.")
                weighting.observe(state, batch, result.per_sample[weighting.of])
            if end // size > (end - self.loader.batch) // size:
                epoch = end // size
                said, seen = weighting.end_epoch(state, epoch, self.seed)
                self.figures |= {f"{name}/{key}": value for key, value in said.items()}
                if seen and self.pictures:
                    self._draw(f"{name}-epoch-{epoch}.png", seen, f"{name} after epoch {epoch}")
        return self.figures

    def _draw(self, file: str, seen: Histogram, title: str) -> None:
        """A picture that cannot be drawn costs the pictures, not the run."""
        try:
            self.pictures.mkdir(exist_ok=True)
            histogram(self.pictures / file, seen, title)
        except (DistpreError, OSError) as e:
            self.note(str(e))
            self.pictures = None

    @property
    def memories(self) -> dict[str, Memory]:
        """For the commits."""
        return {f"state.{name}": state for name, (_, state) in self.parts.items()}
