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


def test_top_1_counts_images_nearest_to_their_own_class():
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    images = torch.eye(3)[torch.tensor([0, 1, 2, 0, 1, 0])]  # the last one looks like an ant
    weight = torch.tensor([1.0, 1, 1, 1, 0, 1])  # the fifth could not be read

    def data():
        yield Batch({"image": images, "text": images}, {"kind": labels}, torch.arange(6), weight)

    [row] = ZeroShot("image", "text", "kind", CLASSES, ["a {}", "one {}."]).run(FakeTowers(), data)
    assert (row.name, row.value, row.n) == ("top-1", 4 / 5, 5)
