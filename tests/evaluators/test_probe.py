"""Probes and neighbours: what can be read is read, what only identifies a person is not, at any number of ranks."""

import numpy as np
import pytest
import torch
import torch.distributed as dist

from distpre.errors import DataError, RecipeError
from distpre.evaluators import geometry, knn, probe
from distpre.evaluators.features import participants
from distpre.evaluators.geometry import Geometry
from distpre.evaluators.intervals import bootstrap
from distpre.evaluators.knn import Knn
from distpre.evaluators.probe import Probe
from distpre.evaluators.retrieval import Retrieval
from tests.evaluators.towers import FakeTowers, batches, people
from tests.ranks import ranks

TABLES = {
    "sex": lambda: Probe("x", "sex", "person"),
    "sex of samples": lambda: Probe("x", "sex", "person", each="sample", features="head"),
    "age": lambda: Probe("x", "age", "person", kind="ridge"),
    "old": lambda: Probe("x", "age", "person", above=52, features="input"),
    "neighbours": lambda: Knn("x", "sex", "person", k=7),
    "neighbours of persons": lambda: Knn("x", "sex", "person", k=7, each="participant"),
    "geometry": lambda: Geometry("x", "person"),
    "again": lambda: Retrieval("x", "x", "person", k=[1], apart="recording", by="person"),
}


def rows(seed: int = 0) -> dict:
    views, ids = people(seed=seed)
    return {name: list(make().run(FakeTowers(), batches(views, ids))) for name, make in TABLES.items()}


def on_rank() -> dict:
    dist.init_process_group("gloo")
    return rows()


@pytest.fixture(scope="module")
def alone() -> dict:
    return rows()


@pytest.mark.cluster
def test_three_ranks_say_what_one_says(alone):
    for said in ranks(3).run(on_rank):
        for name, mine in alone.items():
            assert [(r.name, r.n) for r in said[name]] == [(r.name, r.n) for r in mine]
            for ours, theirs in zip(mine, said[name], strict=True):
                assert theirs.value == pytest.approx(ours.value, rel=1e-5), name
                if ours.low is not None:
                    assert (theirs.low, theirs.high) == pytest.approx((ours.low, ours.high), rel=1e-4), name


def test_what_the_features_hold_is_read_from_unseen_persons(alone):
    auroc, accuracy = alone["sex"]
    assert (
        auroc.value > 0.9
        and auroc.low < auroc.value <= auroc.high
        and (auroc.n, alone["sex of samples"][0].n) == (40, 240)
    )
    mae, r2 = alone["age"]
    assert r2.value > 0.7 and mae.value < 5
    assert alone["old"][0].value > 0.9 and alone["neighbours"][0].value > 0.6 and alone["again"][0].value > 0.8


def test_a_curve_of_labels_climbs_and_ends_where_all_are_labelled(alone):
    views, ids = people()
    tables = [Probe("x", id, "person", kind, labelled=[0.1, 1]) for id, kind in (("sex", "linear"), ("age", "ridge"))]
    sex, age = ({r.name: r.value for r in table.run(FakeTowers(), batches(views, ids))} for table in tables)
    assert sex["sex AUROC"] == alone["sex"][0].value > sex["sex AUROC of 10% labels"] + 0.02
    assert age["age MAE"] == alone["age"][0].value < age["age MAE of 10% labels"] - 1
    with pytest.raises(RecipeError, match="a list of shares"):
        Probe("x", "sex", "person", labelled=[10, 100])


def test_labelled_participants_are_whole_nested_and_of_two_targets_at_least():
    groups = np.repeat(np.arange(20), 3)
    rare, fitted = (groups > 17).astype(int), np.arange(45, 60)  # persons 15 .. 19, two of whom have the rare target
    for target, most in ((rare, 5), (groups, 2)):
        parts = [set(probe.labelled(fitted, target, groups, share)) for share in (0.01, 0.5, 1)]
        assert parts[0] <= parts[1] <= parts[2] == set(fitted)
        assert all(len({i for i in part if groups[i] == p}) in (0, 3) for part in parts for p in range(20))
        assert len({target[i] for i in parts[0]}) == 2 and len(parts[0]) <= 3 * most
    assert len(parts[0]) == 6


def test_a_persons_own_samples_do_not_help_a_target_that_is_drawn_at_random():
    """Identity is in the features, with room for a plane through any persons: a split through them knows the answer."""
    views, ids = people(width=64)
    coin = torch.arange(40) % 2
    ids["coin"] = coin[torch.randperm(40, generator=torch.Generator().manual_seed(3))][ids["person"]]
    for table in (Probe("x", "coin", "person", each="sample"), Knn("x", "coin", "person")):
        row = next(table.run(FakeTowers(), batches(views, ids)))
        assert abs(row.value - 0.5) < 0.2
    own = {**ids, "recording": torch.arange(240)}
    for table in (Probe("x", "coin", "recording", each="sample"), Knn("x", "coin", "recording")):
        assert next(table.run(FakeTowers(), batches(views, own))).value > 0.9


def test_too_few_participants_or_classes_are_told():
    views, ids = people(count=4)
    with pytest.raises(DataError, match="sex of 4 person cannot be probed in 5 folds"):
        list(Probe("x", "sex", "person").run(FakeTowers(), batches(views, ids)))
    views, ids = people()
    with pytest.raises(DataError, match="Every class needs two participants"):
        list(Probe("x", "age", "person", above=1000).run(FakeTowers(), batches(views, ids)))


def test_a_participant_is_the_mean_of_the_samples_that_could_be_read():
    views, ids = people(count=5, each=3)
    weight = torch.ones(15)
    weight[4] = 0
    mean, said = participants(FakeTowers(), batches(views, ids, 4, weight), "x", "person", ["sex"], "encoder")
    for key, sex, row in zip(said["person"], said["sex"], mean, strict=True):
        mine = (ids["person"] == key) & (weight > 0)
        torch.testing.assert_close(row, 2 * views["x"][mine].mean(0))
        assert sex == ids["sex"][mine][0]


@pytest.mark.parametrize("classes", [2, 4])
def test_figures_are_those_of_scikit_learn(classes):
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score

    rng = np.random.default_rng(0)
    target = rng.integers(classes, size=200)
    scores = (rng.random((200, classes)) + 0.3 * np.eye(classes)[target]).round(1)  # with ties
    parts = [roc_auc_score(target == c, scores[:, c]) for c in range(classes)]
    assert probe.auroc(scores, target) == pytest.approx(np.mean(parts), rel=1e-12)
    named = scores.argmax(1)
    assert probe.balanced_accuracy(named, target) == pytest.approx(balanced_accuracy_score(target, named), rel=1e-12)


def test_neighbours_equal_sorting(monkeypatch):
    monkeypatch.setattr(knn, "TILE", 7)
    x, group = torch.nn.functional.normalize(torch.randn(30, 4), dim=1), torch.arange(30) % 5
    cosines, places = knn.neighbours(x, group, x, group, 6)
    full = (x @ x.T).masked_fill(group[:, None] == group[None], -torch.inf)
    expected = full.topk(6, dim=1)
    torch.testing.assert_close(cosines, expected.values)
    assert (places == expected.indices).all()
    voted = knn.vote(cosines / 0.1, (places % 3))
    brute = [
        max(range(3), key=lambda c, i=i: float(cosines[i][places[i] % 3 == c].div(0.1).exp().sum())) for i in range(30)
    ]
    assert voted.tolist() == brute


def test_geometry_is_its_formulas(monkeypatch):
    monkeypatch.setattr(geometry, "TILE", 7)
    views, ids = people(count=6, each=4)
    x = torch.nn.functional.normalize(views["x"].double(), dim=1)
    rank, align, uniform = Geometry("x", "person").run(FakeTowers(), batches({"x": views["x"].double()}, ids))
    p = np.linalg.svd(x.numpy(), compute_uv=False)
    p = p / p.sum()
    assert rank.value == pytest.approx(float(np.exp(-(p * np.log(p)).sum())), rel=1e-9)
    far = torch.cdist(x, x).square()
    other = ~torch.eye(24, dtype=torch.bool)
    same = (ids["person"][:, None] == ids["person"]) & other
    assert align.value == pytest.approx(float(far[same].mean()), rel=1e-9) and align.n == 36
    assert uniform.value == pytest.approx(float((-2 * far[other]).exp().mean().log()), rel=1e-9)


@pytest.mark.parametrize("width, kept", [(8, 1), (8, 3), (8, 8)])
def test_effective_rank_counts_equal_directions(width, kept):
    x = torch.eye(width, dtype=torch.float64)[torch.arange(50 * kept) % kept]
    assert geometry.effective_rank(x.T @ x) == pytest.approx(kept, rel=1e-6)


def test_the_interval_of_participants_is_wider_than_that_of_samples():
    rng = np.random.default_rng(0)
    values = np.repeat(rng.normal(size=20), 50) + 0.1 * rng.normal(size=1000)
    low, high = bootstrap(lambda at: values[at].mean(), np.repeat(np.arange(20), 50))
    assert high - low == pytest.approx(2 * 1.96 * values.reshape(20, 50).mean(1).std() / np.sqrt(20), rel=0.15)
    narrow = bootstrap(lambda at: values[at].mean(), np.arange(1000))
    assert high - low > 4 * (narrow[1] - narrow[0])
    assert bootstrap(lambda at: 1.0, np.zeros(5)) == (None, None)
