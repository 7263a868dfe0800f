"""GenView's weights on digits: in 30 % of the pairs the generated view shows another digit, and a noisy score
says in which."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from distpre.objectives.contrast import PairContrast
from distpre.schedule import Constant
from distpre.types import Batch, Embedding, Step
from tools.shard.digits import digits

TRAIN, BAD, BATCH, EPOCHS = 300, 0.3, 60, 15


def accuracy(quality: str | None, bad: float = BAD, seed: int = 0) -> float:
    """Of the nearest of the training scans, for a small network trained on pairs of scans."""
    g = torch.Generator().manual_seed(seed)
    scans, labels = (torch.as_tensor(each) for each in digits())
    order = torch.randperm(len(scans), generator=g)
    x, y = (scans[order] / 8 - 1).float(), labels[order]
    train, test = slice(TRAIN), slice(TRAIN, None)
    wrong = torch.rand(TRAIN, generator=g) < bad
    shown = torch.where(wrong, (y[train] + torch.randint(1, 10, (TRAIN,), generator=g)) % 10, y[train])
    alike = (shown[:, None] == y[train]).float()
    view = x[torch.multinomial(alike, 1, generator=g).squeeze(1)]
    score = torch.where(wrong, -1.0, 1.0) + 0.3 * torch.randn(TRAIN, generator=g)
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 32))
    adam = torch.optim.Adam(net.parameters(), 3e-3)
    term = PairContrast("a", "b", temperature=Constant(0.1), facts={"score": "score"}, quality=quality)
    for _ in range(EPOCHS):
        for rows in torch.randperm(TRAIN, generator=g).split(BATCH):
            batch = Batch({"score": score[rows]}, {}, rows, torch.ones(len(rows)))
            a, b = (Embedding(F.normalize(net(pixels[rows]), dim=1)) for pixels in (x[train], view))
            adam.zero_grad()
            term(Step(batch, {"a": a, "b": b}, {}, {}, 0, 1)).loss.backward()
            adam.step()
    with torch.no_grad():
        u, v = (F.normalize(net(part), dim=1) for part in (x[test], x[train]))
        votes = F.one_hot(y[train][(u @ v.T).topk(9).indices]).sum(1).argmax(1)
    return (votes == y[test]).float().mean().item()


def test_a_noisy_score_recovers_half_of_what_bad_views_cost():
    good, plain, weighed = accuracy(None, bad=0.0), accuracy(None), accuracy("score")
    assert good - plain > 0.03, "otherwise there is nothing to recover"
    assert weighed - plain > (good - plain) / 2, (good, plain, weighed)
