"""mIoU of points named by the likest anchor, by counting them one by one, at one rank and three."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from distpre.anchors import Anchors
from distpre.errors import RecipeError
from distpre.evaluators.iou import Iou
from tests.evaluators.towers import FakeTowers, batches
from tests.ranks import ranks

CLASSES = ("floor", "ball", "box", "never")


def data(path, size: int = 3):
    """13 scenes of 6 points, one of weight 0; class `never` is named and is nowhere."""
    g = torch.Generator().manual_seed(0)
    vectors = F.normalize(torch.randn(4, 5, generator=g), dim=1)
    Anchors(vectors, CLASSES).write(path)
    truth, said = (torch.randint(-1, 3, (13, 6), generator=g) for _ in range(2))
    x = vectors[torch.where(torch.rand(13, 6, generator=g) < 0.3, 3, truth)] + 0.3 * torch.randn(13, 6, 5, generator=g)
    weight = torch.ones(13)
    weight[4] = 0
    views = {"points": x, "truth": truth, "said": said}
    return views, vectors, weight, batches(views, {"scene": torch.arange(13) // 2}, size, weight)


def by_hand(truth, named, weight) -> dict[str, float]:
    real = weight > 0
    every = zip(truth[real].flatten().tolist(), named[real].flatten().tolist(), strict=True)
    pairs = [(t, n) for t, n in every if t >= 0 and n >= 0]
    shares = {}
    for c in sorted({t for t, _ in pairs}):
        either = [t == n for t, n in pairs if c in (t, n)]
        shares[f"IoU {CLASSES[c]}"] = sum(t == n == c for t, n in pairs) / len(either)
    return {
        "mIoU": sum(shares.values()) / len(shares),
        "accuracy": sum(t == n for t, n in pairs) / len(pairs),
        **shares,
    }


def tables(path: str) -> list[list[tuple]]:
    if not dist.is_initialized():
        dist.init_process_group("gloo")
    each = data(path)[3]
    asked = ({"truth": "truth"}, {"truth": "truth", "said": "said"})
    every = [Iou("points", path, facts, "scene").run(FakeTowers(), each) for facts in asked]
    return [[(r.name, r.value, r.n, r.low) for r in rows] for rows in every]


@pytest.mark.cluster
def test_iou_is_that_of_the_points_counted_one_by_one_at_any_number_of_ranks(tmp_path):
    path = str(tmp_path / "anchors.safetensors")
    views, vectors, weight, _ = data(path)
    likest = (F.normalize(views["points"], dim=-1) @ vectors.T).argmax(-1)
    for world in (1, 3):
        every = ranks(world).run(tables, path)
        assert all(one == every[0] for one in every)
        for rows, named in zip(every[0], (likest, views["said"]), strict=True):
            expected = by_hand(views["truth"], named, weight)
            assert {name: value for name, value, *_ in rows} == pytest.approx(expected)
            assert rows[0][3] < rows[0][1] and "IoU never" not in expected
    assert every[0][0][0][2] == int((views["truth"] >= 0)[weight > 0].sum()) > every[0][1][0][2]


def test_data_without_truth_is_named(tmp_path):
    path = str(tmp_path / "anchors.safetensors")
    views, _, weight, _ = data(path)
    views["truth"][:] = -1
    with pytest.raises(RecipeError, match="no part of truth has a class"):
        each = batches(views, {"scene": torch.arange(13)})
        list(Iou("points", path, {"truth": "truth"}, "scene").run(FakeTowers(), each))
    with pytest.raises(RecipeError, match="facts name no truth"):
        Iou("points", path, {}, "scene")


@pytest.mark.parametrize("view", ["truth", "said"])
def test_a_class_that_the_anchors_do_not_have_is_named(tmp_path, view):
    path = str(tmp_path / "anchors.safetensors")
    views = data(path)[0]
    views[view][3, 2] = 4
    with pytest.raises(RecipeError, match=f"{view} has a part of class 4; the anchors have 4"):
        each = batches(views, {"scene": torch.arange(13)})
        list(Iou("points", path, {"truth": "truth", "said": "said"}, "scene").run(FakeTowers(), each))
