"""An update under DeepSpeed, at any world size, stage and accumulation, against a plain loop on one process."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from distpre.schedule import Constant, Cosine
from tests.ranks import ranks

STEPS, BATCH = 6, 24
LR = Cosine(start=3e-2, end=1e-3, warm_up=2)
CLIP, DECAY, BETAS, EPS = 0.5, 0.2, (0.9, 0.98), 1e-6


class Net(nn.Module):
    """A small encoder; dropout only where a test asks for it."""

    width = 8

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(12, 16), nn.GELU(), nn.Dropout(dropout), nn.Linear(16, 8))

    def forward(self, x):
        return self.layers(x), {}


def small_model(dropout: float = 0.0, start: float = 14.0):
    from distpre.towers.model import LogitScale, Model
    from distpre.towers.tower import Tower

    torch.manual_seed(0)
    towers = {"image": Tower(Net(dropout)), "text": Tower(Net(dropout))}
    return Model(towers, {"image": "image", "text": "text"}, {"logit": LogitScale(start)}, "fp32")


def global_views(index: int) -> dict[str, torch.Tensor]:
    """Two noisy looks at the same latent."""
    generator = torch.Generator().manual_seed(index)
    latent = torch.randn(BATCH, 12, generator=generator)
    return {name: latent + 0.3 * torch.randn(BATCH, 12, generator=generator) for name in ("image", "text")}


def plain_trace() -> tuple[list[float], dict[str, torch.Tensor]]:
    """The same training written out: one process, torch.optim.AdamW, clip_grad_norm_, F.cross_entropy."""
    model = small_model()
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=0.0, betas=BETAS, eps=EPS)
    losses = []
    for index in range(STEPS):
        embedded, scales = model(global_views(index))
        logits = scales["logit"][0] * embedded["image"][0] @ embedded["text"][0].T
        own = torch.arange(BATCH)
        loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        for group in optimiser.param_groups:
            group["lr"] = LR.at(index, STEPS)
        optimiser.step()
        losses.append(loss.item())
    return losses, {k: v.detach().clone() for k, v in model.state_dict().items()}


def engine_trace(zero: int, accumulation: int, dropout: float = 0.0, shares: list[int] | None = None):
    """What our engine does on this rank's slice of the same batches; rank 0 returns losses and weights."""
    from distpre import group
    from distpre.contrast.targets import OwnPair
    from distpre.objectives.contrast import PairContrast
    from distpre.objectives.objective import Objective
    from distpre.runtime.engine import Engine, join_group
    from distpre.runtime.update import update
    from distpre.types import Batch

    join_group()
    engine = Engine(
        small_model(dropout),
        lr=LR,
        steps=STEPS,
        zero=zero,
        accumulation=accumulation,
        clip=CLIP,
        weight_decay=DECAY,
        betas=BETAS,
        eps=EPS,
    )
    objective = Objective({"match": (PairContrast("image", "text", scale="logit", targets=OwnPair()), Constant(1.0))})
    bounds = [0]
    for share in shares or [
        BATCH * (r + 1) // group.world_size() - BATCH * r // group.world_size() for r in range(group.world_size())
    ]:
        bounds.append(bounds[-1] + share)
    mine = slice(bounds[group.rank()], bounds[group.rank() + 1])
    losses = []
    for index in range(STEPS):
        views = {name: x[mine] for name, x in global_views(index).items()}
        n = len(views["image"])
        batch = Batch(views, {}, torch.arange(BATCH)[mine], torch.ones(n))
        result = update(engine, objective, batch, index=index, seed=0)
        losses.append(group.total(result.loss).item() / group.world_size())
    weights = engine.full_weights()
    return (losses, weights) if group.rank() == 0 else None


def assert_same_training(found, expected):
    torch.testing.assert_close(torch.tensor(found[0]), torch.tensor(expected[0]), rtol=1e-5, atol=1e-6)
    for name, value in expected[1].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-4, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.cluster
@pytest.mark.parametrize("zero", [0, 1, 2, 3])
@pytest.mark.parametrize("world,accumulation", [(1, 1), (2, 1), (2, 4), (3, 2)])
def test_training_equals_a_plain_loop_on_one_process(zero, world, accumulation):
    if world == 1 and zero > 1:
        world = 4  # nothing to shard alone
    found = ranks(world).run(engine_trace, zero, accumulation)[0]
    assert_same_training(found, plain_trace())


def normed(zero: int):
    """One update of a model with BatchNorm in its image tower: this rank's statistics, and all inputs of it."""
    from distpre import group
    from distpre.runtime.engine import Engine, join_group

    join_group()
    model = small_model()
    model.towers["image"].encoder.layers[2] = nn.BatchNorm1d(16)
    engine = Engine(model, lr=LR, steps=STEPS, zero=zero)
    with torch.no_grad():
        seen = model.towers["image"].encoder.layers[:2](global_views(0)["image"]) if zero < 3 else None
    part = BATCH // group.world_size()
    mine = slice(group.rank() * part, (group.rank() + 1) * part)
    embedded, _ = engine({name: x[mine] for name, x in global_views(0).items()})
    engine.backward(embedded["image"][0].sum() + embedded["text"][0].sum())
    engine.step(0)
    norm = model.towers["image"].encoder.layers[2]
    return norm.running_mean.clone(), norm.running_var.clone(), seen


@pytest.mark.cluster
@pytest.mark.parametrize("zero", [0, 3])
def test_statistics_of_batch_norm_are_the_mean_over_ranks(zero):
    found = ranks(2).run(normed, zero)
    seen = ranks(2).run(normed, 0)[0][2]
    variances = torch.stack([half.var(0) for half in seen.chunk(2)])
    for mean, variance, _ in found:
        torch.testing.assert_close(mean, 0.1 * seen.mean(0))
        torch.testing.assert_close(variance, 0.9 + 0.1 * variances.mean(0))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


@pytest.mark.cluster
def test_uneven_shares_of_the_batch_change_nothing():
    found = ranks(3).run(engine_trace, 1, 1, 0.0, [11, 9, 4])[0]
    assert_same_training(found, plain_trace())


@pytest.mark.cluster
def test_dropout_is_replayed_in_the_second_pass():
    """Were the masks of the two passes different, the embeddings' gradients would belong to other embeddings."""
    first = ranks(1).run(engine_trace, 0, 2, 0.5)[0]
    again = ranks(1).run(engine_trace, 0, 2, 0.5)[0]
    without = ranks(1).run(engine_trace, 0, 2, 0.0)[0]
    assert first[0] == again[0] and first[0] != without[0]


def with_a_bad_sample(zero: int, accumulation: int, bad: int | None):
    """Three updates; in the middle one the image of global sample `bad` is NaN. (weights before it, after it, results,
    weights at the end), and a queue that was fed on the way."""
    from distpre import group
    from distpre.contrast.banks import Queue
    from distpre.contrast.targets import OwnPair
    from distpre.objectives.contrast import PairContrast
    from distpre.objectives.objective import Objective
    from distpre.runtime.engine import Engine, join_group
    from distpre.runtime.update import update
    from distpre.types import Batch

    join_group()
    engine = Engine(
        small_model(), lr=LR, steps=STEPS, zero=zero, accumulation=accumulation, clip=CLIP, weight_decay=DECAY
    )
    term = PairContrast("image", "text", scale="logit", targets=OwnPair(), bank=Queue(1000))
    mine = slice(BATCH // 2 * group.rank(), BATCH // 2 * (group.rank() + 1))
    said, weights = [], []
    for index in range(3):
        views = global_views(index)
        if index == 1 and bad is not None:
            views["text"][bad] = float("nan")
        batch = Batch({k: x[mine] for k, x in views.items()}, {}, torch.arange(BATCH)[mine], torch.ones(BATCH // 2))
        result = update(engine, Objective({"match": (term, Constant(1.0))}), batch, index=index, seed=0)
        said.append((result.skipped, result.suspects))
        weights.append(engine.full_weights())
    return said, weights, term.memories["bank"].columns(torch.zeros(1, 8)).vectors


@pytest.mark.cluster
@pytest.mark.parametrize("zero,accumulation", [(0, 2), (3, 1)])
def test_a_loss_that_is_not_finite_changes_no_weight_on_any_rank_and_spoils_no_later_step(zero, accumulation):
    found = ranks(2).run(with_a_bad_sample, zero, accumulation, 17)
    assert [said for said, *_ in found] == [[(False, []), (True, at), (False, [])] for at in ([], [17])]
    _, (first, second, third), _ = found[0]
    assert all(torch.equal(first[name], w) for name, w in second.items())
    assert not all(torch.equal(w, second[name]) for name, w in third.items())
    assert all(w.isfinite().all() for w in third.values())
    queues = torch.cat([vectors for *_, vectors in found])
    assert len(queues) == 3 * BATCH - 1 and queues.isfinite().all()


def masked(accumulation: int):
    """Two steps of a local term alone: the losses, and what is said of the samples."""
    from distpre.objectives.masked_error import MaskedError
    from distpre.objectives.objective import Objective
    from distpre.runtime.engine import Engine, join_group
    from distpre.runtime.update import update
    from distpre.towers.encoders.tubelets import Tubelets
    from distpre.towers.heads.masked import MaskedDecoder
    from distpre.towers.model import Model
    from distpre.towers.tower import Tower
    from distpre.types import Batch, Padded

    join_group()
    torch.manual_seed(0)
    tower = Tower(
        Tubelets([4, 8, 8], [2, 4, 4], width=16, layers=1, heads=2), MaskedDecoder([32], width=8, layers=1, heads=2)
    )
    engine = Engine(Model({"oct": tower}, {"volume": "oct"}, {}, "fp32"), lr=LR, steps=2, accumulation=accumulation)
    objective = Objective({"volumes": (MaskedError("volume", parts=2), Constant(0.5))})
    said = []
    for index in range(2):
        g = torch.Generator().manual_seed(index)
        x = Padded(torch.rand(8, 8, 32, generator=g), torch.rand(8, 8, generator=g).argsort(1) < 4)
        batch = Batch({"volume": x}, {}, torch.arange(8), torch.ones(8))
        result = update(engine, objective, batch, index=index, seed=0)
        said += [result.loss.detach(), result.log["volumes/loss"], result.per_sample["volumes"]]
    return said


@pytest.mark.cluster
def test_a_local_term_alone_is_the_same_in_micro_batches():
    whole, parts = (ranks(1).run(masked, n)[0] for n in (1, 4))
    torch.testing.assert_close(parts, whole, equal_nan=True)
    assert whole[0] == 0.5 * whole[1] > 0


def clustered(zero: int, accumulation: int):
    """Three steps of a term that looks at taps over the effective batch: losses and weights."""
    from distpre import group
    from distpre.objectives.objective import Objective
    from distpre.objectives.swapped_prediction import SwappedPrediction
    from distpre.runtime.engine import Engine, join_group
    from distpre.runtime.update import update
    from distpre.towers.heads.prototypes import Prototypes
    from distpre.towers.model import Model
    from distpre.towers.tower import Tower
    from distpre.types import Batch

    join_group()
    torch.manual_seed(0)
    model = Model({"it": Tower(Net(), Prototypes(5))}, {"image": "it", "text": "it"}, {}, "fp32")
    engine = Engine(model, lr=LR, steps=STEPS, zero=zero, accumulation=accumulation, eps=1e-3)
    objective = Objective({"clusters": (SwappedPrediction(["image", "text"], Constant(0.1), hold=1), Constant(1.0))})
    share = BATCH // group.world_size()
    mine, losses = slice(share * group.rank(), share * (group.rank() + 1)), []
    for index in range(3):
        views = {name: x[mine] for name, x in global_views(index).items()}
        batch = Batch(views, {}, torch.arange(BATCH)[mine], torch.ones(share))
        loss = update(engine, objective, batch, index=index, seed=0).loss
        losses.append(group.total(loss).item() / group.world_size())
    return losses, engine.full_weights()


@pytest.mark.cluster
@pytest.mark.parametrize("zero,world,accumulation", [(0, 1, 4), (3, 2, 3)])
def test_gradients_reach_prototypes_through_the_taps_of_an_accumulated_step(zero, world, accumulation):
    whole, found = ranks(1).run(clustered, 0, 1)[0], ranks(world).run(clustered, zero, accumulation)[0]
    assert_same_training(found, whole)
