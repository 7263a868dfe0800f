"""A recipe's stages in sequence, each as a recipe of its own. A recipe without stages is one stage."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass

from distpre.errors import RecipeError
from distpre.recipe.check import check
from distpre.recipe.document import Document
from distpre.recipe.explain import validated
from distpre.recipe.schema import Recipe

FIXED = ("towers", "scales", "run", "launch", "seed", "stages", "paper")  # what no stage may change


@dataclass(frozen=True)
class Stage:
    """Steps first .. last - 1 of the run. recipe: complete, without stages. begins: the step its schedules count from.

    of: the steps that its schedules run over. seen: samples of the stages before it.
    """

    number: int
    name: str
    recipe: Recipe
    first: int
    last: int
    restart: bool = True
    begins: int = 0
    of: int = 0
    seen: int = 0

    def samples(self, step: int) -> int:
        """Those of all global batches up to `step` of this stage."""
        return self.seen + (step - self.first) * self.recipe.train.batch


def stages(recipe: Recipe, document: Document | None = None) -> list[Stage]:
    """document: where the recipe was written, for errors. Raises RecipeError for what a stage may not be."""
    if not recipe.stages:
        return [Stage(0, "", recipe, 0, recipe.train.steps, True, 0, recipe.train.steps)]
    origins = document or Document({})
    plain = recipe.model_dump(mode="json", exclude={"stages"})
    _check_names(recipe, origins)
    found: list[tuple[str, bool, Recipe]] = []
    for number, spec in enumerate(recipe.stages):
        mine = Document(copy.deepcopy(plain), dict(origins.origins))
        for key, value in spec.keys().items():
            origin = origins.origin(("stages", number, key))
            if key.split(".")[0] in FIXED:
                what = f"{origin}: stages.{number}.{key}: a stage cannot change this."
                raise RecipeError(what, f"It may set any dotted key outside {', '.join(FIXED)}.")
            mine.set(key, value, origin)
        its = validated(mine)
        check(its, mine)
        if found and not spec.restart and _optimised(its) != _optimised(found[-1][-1]):
            what = (
                f"{origins.origin(('stages', number, 'restart'))}: stages.{number}.restart: the optimiser cannot go on,"
            )
            what += " because the stage changes teachers, train.freeze or train.zero."
            raise RecipeError(what, "Leave `restart` out, or keep those of the stage before.")
        found.append((spec.name, spec.restart, its))
    total = sum(its.train.steps for *_, its in found)
    made, first, seen = [], 0, 0
    for number, (name, restart, its) in enumerate(found):
        last = first + its.train.steps
        begins, of = (first, its.train.steps) if restart else (0, total)
        made.append(Stage(number, name, its, first, last, restart, begins, of, seen))
        first, seen = last, made[-1].samples(last)
    return made


def stage_of(recipe: Recipe, step: int) -> Stage:
    """The one that made the commit of `step`."""
    return next((stage for stage in stages(recipe) if step <= stage.last), stages(recipe)[-1])


def _check_names(recipe: Recipe, origins: Document) -> None:
    names = [spec.name for spec in recipe.stages]
    for number, name in enumerate(names):
        origin = origins.origin(("stages", number, "name"))
        if not re.fullmatch(r"[\w-]+", name):
            what = f"{origin}: stages.{number}.name: {name!r} will not do."
            raise RecipeError(what, "It names files: letters, digits, - and _.")
        if name in names[:number]:
            raise RecipeError(f"{origin}: stages.{number}.name: {name!r} is given twice.", "Give each its own name.")


def _optimised(recipe: Recipe) -> tuple:
    """What must be the same for one stage's optimiser state to be another's."""
    return sorted(recipe.train.freeze), recipe.train.zero, recipe.teachers
