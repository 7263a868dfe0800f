"""OpenShape's recipe: which text a visit draws, what a shape without text counts in, and what the sampling is for."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from distpre.recipe import load
from distpre.runtime.build import objective, views
from distpre.towers.heads.projection import Linear
from distpre.towers.tower import Tower
from distpre.types import Batch, Embedding, Step
from distpre.views.sources import OneSource
from tools.shard.objects import KINDS, Thing, texts

RECIPE = str(Path(__file__).parents[2] / "recipes/shapes/openshape.yaml")
RNG = np.random.default_rng(0)
NAMED = {name: np.eye(8, dtype=np.float32)[i] for i, name in enumerate(["raw", "blip", "azure"])}
NAMED |= {"retrieved": 3 * np.eye(8, dtype=np.float32)[3:6]}


def drawn(value: dict, times: int = 6000) -> Counter:
    op = views(load(RECIPE))["text"].ops[0]
    return Counter(None if (x := op(value, RNG)) is None else int(x.argmax()) for _ in range(times))


def test_a_visit_draws_one_of_the_sources_evenly_and_a_flagged_text_never():
    seen = drawn(NAMED | {"flagged": np.float32(0)})
    np.testing.assert_allclose([seen[i] / 6000 for i in range(6)], [1 / 3, 1 / 6, 1 / 6, *[1 / 9] * 3], atol=0.02)
    seen = drawn(NAMED | {"flagged": np.float32(1)})
    assert seen[0] == 0 and seen[1] / 6000 == pytest.approx(1 / 4, abs=0.02)
    assert drawn({"raw": NAMED["raw"], "flagged": np.float32(1)}, 3) == {None: 3}
    np.testing.assert_allclose(np.linalg.norm(OneSource([["retrieved"]])(NAMED, RNG)), 1, rtol=1e-6)


def test_a_shape_without_text_asks_for_none_and_its_absent_text_is_no_negative():
    points, text, image = (F.normalize(torch.randn(5, 8, dtype=torch.float64), dim=1) for _ in range(3))
    points.requires_grad_()
    there = torch.tensor([True, True, False, True, True])
    batch = Batch({}, {}, torch.arange(5), torch.ones(5, dtype=torch.float64), {"text": there})
    said = {"points": Embedding(points), "text": Embedding(text * there[:, None]), "image": Embedding(image)}
    scale = torch.full((1,), 10.0, dtype=torch.float64)

    def clip(x, y, own):
        """y's rows are of the shapes `own`; x has all, which are negatives of y's whether they have a text or not."""
        return (F.cross_entropy(10 * x[own] @ y.T, torch.arange(len(y))) + F.cross_entropy(10 * y @ x.T, own)) / 2

    ours = objective(load(RECIPE))(Step(batch, said, {"logit": scale}, {}, 0, 1)).loss
    wanted = clip(points, text[there], there.nonzero()[:, 0]) + clip(points, image, torch.arange(5))
    torch.testing.assert_close(ours, wanted, rtol=1e-7, atol=0)
    torch.testing.assert_close(torch.autograd.grad(ours, points), torch.autograd.grad(wanted, points))


def test_mined_batches_mask_pairs_that_are_as_right_and_judge_no_shape_without_text():
    points = F.normalize(torch.randn(4, 6, dtype=torch.float64), dim=1)
    words = F.normalize(torch.randn(4, 6, dtype=torch.float64), dim=1)
    words[1] = words[0]  # 0 and 1 are described alike
    there = torch.tensor([True, True, True, False])
    words[3] = 0
    picture = words + 0.0
    picture[3] = words[0]
    batch = Batch(
        {"image": picture, "text": words}, {}, torch.arange(4), torch.ones(4, dtype=torch.float64), {"text": there}
    )
    said = {"points": Embedding(points), "text": Embedding(words), "image": Embedding(picture)}
    scale = torch.ones(1, dtype=torch.float64)
    mined = load(f"{RECIPE}:mined")
    ours = objective(mined)(Step(batch, said, {"logit": scale}, {}, 0, 1)).loss

    def masked(x, y, keep):
        logits = (x @ y.T).masked_fill(~keep, -torch.inf)
        return (F.cross_entropy(logits, torch.arange(len(x))) + F.cross_entropy(logits.T, torch.arange(len(x)))) / 2

    right = (picture * words).sum(1, keepdim=True)
    keep = right - picture @ words.T > 0.1
    keep |= torch.eye(4, dtype=torch.bool)
    keep[3], keep[:, 3] = True, True
    assert not keep[0, 1] and keep[0, 3]
    texts_ask = (words[:3] @ points.T).masked_fill(~keep.T[:3], -torch.inf)
    points_ask = (points[:3] @ words[:3].T).masked_fill(~keep[:3, :3], -torch.inf)
    of_texts = F.cross_entropy(points_ask, torch.arange(3)) + F.cross_entropy(texts_ask, torch.arange(3))
    wanted = of_texts / 2 + masked(points, picture, keep)
    torch.testing.assert_close(ours, wanted, rtol=1e-7, atol=0)


def trained(variant: str) -> float:
    """Zero-shot top-1 on held-out combinations of words: a matrix on noisy words, texts as the variant draws them."""
    recipe, steps = load(f"{RECIPE}:{variant}"), 30
    seen, terms = views(recipe), objective(recipe)
    kinds = np.random.default_rng(0).permutation(int(np.prod(KINDS)))
    things = [
        [Thing(tuple(map(int, np.unravel_index(k, KINDS))), int(k)) for k in part] for part in (kinds[:90], kinds[90:])
    ]
    hot = [
        torch.cat([F.one_hot(torch.tensor([t.words[i] for t in part]), n) for i, n in enumerate(KINDS)], 1).float()
        for part in things
    ]
    torch.manual_seed(0)
    mixing = torch.randn(sum(KINDS), 40)
    x, unseen = (h @ mixing + 0.5 * torch.randn(len(h), 40) for h in hot)
    told = [texts(t) for t in things[0]]
    tower = Tower(_Plain(), Linear(64))
    optimiser = torch.optim.Adam(tower.parameters(), lr=0.04)
    for step in range(steps):
        text = [seen["text"].at(v, seed=0, epoch=step // 3, ordinal=i) for i, v in enumerate(told)]
        there = torch.tensor([t is not None for t in text])
        text = torch.from_numpy(np.stack([np.zeros(64, np.float32) if t is None else t for t in text]))
        said = {"points": Embedding(tower(x)[0]), "text": Embedding(text)}
        batch = Batch({}, {}, torch.arange(len(x)), torch.ones(len(x)), {"text": there})
        loss = terms(Step(batch, said, {"logit": torch.full((1,), 14.3)}, {}, step, steps)).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    kind = torch.tensor([t.kind for t in things[1]])
    names = {int(k): torch.from_numpy(texts(t)["label"]) for k, t in zip(kind.tolist(), things[1], strict=True)}
    with torch.no_grad():
        named = (tower(unseen)[0] @ torch.stack(list(names.values())).T).argmax(1)
    return float((torch.tensor(list(names))[named] == kind).float().mean())


class _Plain(torch.nn.Module):
    width = 40

    def forward(self, x):
        return x, {}


def test_many_sources_make_up_for_spoilt_texts():
    clean, spoilt, many = map(trained, ("world_clean", "world_raw", "world_text"))
    assert clean - spoilt > 0.15
    assert many > spoilt + (clean - spoilt) / 2
