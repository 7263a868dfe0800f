import pytest
import torch
import torch.nn.functional as F

from distpre.evaluators.zero_shot import ZeroShot
from distpre.types import Batch

CLASSES = ["ant", "bee", "cat"]


class FakeTowers:
    """A prompt's embedding points to its class, more or less by its template; an image is its own embedding."""

    def batch(self, batch, *views):
        return {view: F.normalize(batch.views[view], dim=-1) for view in views}

    def values(self, view, values):
        assert view == "text"
        rows = [torch.eye(3)[next(i for i, c in enumerate(CLASSES) if c in v)] + 0.1 * len(v) % 0.3 for v in values]
        return F.normalize(torch.stack(rows), dim=-1)


def test_images_of_a_class_are_named_by_the_nearest_and_others_are_not_asked():
    labels = torch.tensor([0, 1, 2, 0, 1, 2, -1, 3])
    images = torch.eye(3)[torch.tensor([0, 1, 2, 0, 1, 0, 0, 0])]  # the sixth looks like an ant
    weight = torch.tensor([1.0, 1, 1, 1, 0, 1, 1, 1])  # the fifth could not be read

    def data():
        yield Batch({"image": images, "text": images}, {"kind": labels}, torch.arange(8), weight)

    rows = list(ZeroShot("image", "text", "kind", CLASSES, ["a {}", "one {}."], by="kind").run(FakeTowers(), data))
    assert [(row.name, row.n) for row in rows] == [("top-1", 5), ("macro F1", 5)]
    assert rows[0].value == 4 / 5 and rows[0].low <= 4 / 5 <= rows[0].high
    assert rows[1].value == pytest.approx((4 / 5 + 1 + 2 / 3) / 3)  # ants 2 right of 3 named, 2 there; cats 1 of 1, 2
