import torch

from distpre.evaluators.attack_success import AttackSuccess
from distpre.types import Batch


class Echo:
    """Embeds an image as the class that its view names, a prompt as its own class."""

    def batch(self, batch, *views):
        return {view: torch.eye(3)[batch.views[view]] for view in views}

    def values(self, view, values):
        return torch.eye(3)[[int(value) for value in values]]


def test_both_figures_by_hand():
    named = torch.tensor([0, 1, 2, 2, 2, 2, 0, 2])
    label = torch.tensor([0, 1, 1, 2, 0, 1, 1, 2])
    poisoned = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    weight = torch.ones(8)
    batch = Batch({"image": named}, {"label": label, "bad": poisoned}, torch.arange(8), weight)
    table = AttackSuccess("image", "text", "label", "bad", 2, ["0", "1", "2"], ["{}"])
    clean, attack = table.run(Echo(), lambda: iter([batch]))
    assert (clean.value, clean.n) == (3 / 4, 4) and (attack.value, attack.n) == (2 / 3, 3)
    weight[4] = 0  # a sample that could not be read
    assert [r.value for r in table.run(Echo(), lambda: iter([batch]))] == [3 / 4, 1 / 2]
