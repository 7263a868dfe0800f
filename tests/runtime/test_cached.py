"""The teacher `cached`: what samples hold of a teacher trains as the teacher does, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from distpre.errors import RecipeError
from distpre.recipe import load
from tests.ranks import ranks
from tests.runtime.test_update import BATCH, Net, global_views

QUICKSTART = str(Path(__file__).parents[2] / "recipes/quickstart.yaml")
STEPS = 3
FACTS = {"image": "said_of_image", "text": "said_of_text"}


def an_engine(teaching, accumulation: int):
    from distpre.runtime.engine import Engine
    from distpre.schedule import Constant
    from distpre.towers.model import LogitScale, Model
    from distpre.towers.teachers import Teacher
    from distpre.towers.tower import Tower

    torch.manual_seed(0)
    towers = {"image": Tower(Net(0.5)), "text": Tower(Net())}
    teacher = Teacher(teaching, towers if teaching.of is None else {})
    model = Model(towers, {"image": "image", "text": "text"}, {"logit": LogitScale(14.0)}, "fp32", {"old": teacher})
    return Engine(model, lr=Constant(0.05), steps=STEPS, zero=1, accumulation=accumulation, clip=1.0)


def trained(engine, batches):
    from distpre.objectives.contrast import PairContrast
    from distpre.objectives.distance import Distance
    from distpre.objectives.objective import Objective
    from distpre.objectives.off_diagonal import OffDiagonal
    from distpre.runtime.update import update
    from distpre.schedule import Constant

    terms = {
        "match": PairContrast("image", "text", scale="logit"),
        "modx": OffDiagonal("image", "text", "old"),
        "hold": Distance("image", "old.image"),
    }
    objective = Objective({name: (term, Constant(2.0)) for name, term in terms.items()})
    results = [update(engine, objective, batch, index=i, seed=0) for i, batch in enumerate(batches)]
    return [result.loss.item() for result in results], engine.full_weights()


def both(accumulation: int):
    """[(losses, the student's weights)] with the teacher, and with what it said in the batches."""
    from distpre import group
    from distpre.runtime.engine import join_group
    from distpre.towers.teachers import Cached, Previous
    from distpre.types import Batch

    join_group()
    share = BATCH // group.world_size()
    mine = slice(share * group.rank(), share * (group.rank() + 1))
    views = [{name: x[mine] for name, x in global_views(i).items()} for i in range(STEPS)]
    batches = [Batch(its, {}, torch.arange(BATCH)[mine], torch.ones(share)) for its in views]
    live = an_engine(Previous(), accumulation)
    held = []
    for batch in batches:
        said = [live({f"old.{v}": x for v, x in part.views.items()})[0] for part in batch.split(accumulation)]
        facts = {holder: torch.cat([its[f"old.{view}"][0] for its in said]) for view, holder in FACTS.items()}
        held.append(replace(batch, views=batch.views | facts))
    found = [trained(live, batches), trained(an_engine(Cached(FACTS), accumulation), held)]
    return [(losses, {k: v for k, v in (weights or {}).items() if k.startswith("towers")}) for losses, weights in found]


@pytest.mark.cluster
@pytest.mark.parametrize("accumulation", [1, 2])
def test_losses_and_weights_are_those_with_the_teacher_itself_bit_for_bit(accumulation):
    (live, weights), (cached, others) = ranks(2).run(both, accumulation)[0]
    assert live == cached and len(set(live)) == STEPS
    assert weights and [name for name in weights if not torch.equal(weights[name], others[name])] == []


def words(facts: str = "{image: said}", ops: str = "[]") -> list[str]:
    cached = f"teachers={{old: {{name: cached, facts: {facts}}}}}"
    hold = "objective.hold={name: distance, rows: image, columns: old.image}"
    return [cached, hold, "views.said={field: image, ops: []}", f"views.image.ops={ops}", "views.image.eval_ops=null"]


def test_a_view_that_training_sees_otherwise_is_refused():
    assert load(QUICKSTART, words()).teachers["old"].name == "cached"
    with pytest.raises(
        RecipeError, match="teachers.old.facts.image: samples hold what was said of views.image.eval_ops"
    ):
        load(QUICKSTART, [*words(), "views.image.eval_ops=[{name: resize, size: 32}]"])
    with pytest.raises(RecipeError, match="teachers.old.facts.image: there is no view 'sadi'"):
        load(QUICKSTART, words("{image: sadi}")[:2])
    with pytest.raises(RecipeError, match="objective.hold.columns: there is no view that a tower embeds 'old.image'"):
        load(QUICKSTART, words("{text: said}"))


class OneOfTwo:
    """A source of two samples, the first of them damaged."""

    def __len__(self):
        return 2

    def raw(self, ordinal: int):
        from distpre.data.source import Unreadable

        if ordinal == 0:
            raise Unreadable("its bytes are gone")
        return ordinal

    def sample(self, raw: int):
        from distpre.types import Sample

        return Sample("1", 1, {"image": np.zeros((8, 8), np.uint8)})


@pytest.mark.parametrize(
    "ops,draws", [("[{name: resize, size: 32}]", False), ("[{name: random_shift, pixels: 2}]", True)]
)
def test_a_view_that_draws_at_random_is_refused(ops, draws):
    from distpre.runtime import build

    recipe = load(QUICKSTART, words(ops=ops))
    if not draws:
        return build.check_cached(recipe, OneOfTwo(), build.views(recipe))
    with pytest.raises(RecipeError, match="teachers.old.facts: views.image.ops draw at random"):
        build.check_cached(recipe, OneOfTwo(), build.views(recipe))
