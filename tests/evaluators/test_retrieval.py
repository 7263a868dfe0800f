import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from distpre.evaluators import retrieval
from distpre.evaluators.retrieval import Retrieval, wrong_ahead
from distpre.types import Batch
from tests.evaluators.towers import FakeTowers, batches, people


def brute_force(queries, ids, candidates, candidate_ids, most):
    """By sorting each query's candidates, wrong ones first where scores tie."""
    counts = []
    for query, own in zip(queries, ids, strict=True):
        ranked = sorted(
            zip((candidates @ query).tolist(), (candidate_ids == own).tolist(), strict=True),
            key=lambda pair: (-pair[0], pair[1]),
        )
        first_right = next((i for i, (_, right) in enumerate(ranked) if right), len(ranked))
        counts.append(min(first_right, most))
    return torch.tensor(counts)


@settings(max_examples=60)
@given(st.integers(1, 12), st.integers(1, 30), st.integers(1, 6), st.integers(1, 10), st.integers(0, 10**6))
def test_count_of_wrong_candidates_ahead_equals_sorting(n, m, classes, most, seed):
    torch.manual_seed(seed)
    queries, candidates = torch.randint(-2, 3, (n, 3)).double(), torch.randint(-2, 3, (m, 3)).double()  # many ties
    ids, candidate_ids = torch.randint(classes, (n,)), torch.randint(classes, (m,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "TILE", 7)
        found, asked = wrong_ahead(queries, ids, candidates, candidate_ids, most)
    assert asked.tolist() == [bool((candidate_ids == own).any()) for own in ids]
    assert found.tolist() == brute_force(queries, ids, candidates, candidate_ids, most).tolist()


def both(a, b, weight):
    def data():
        for part in torch.arange(len(a)).split(5):
            yield Batch({"a": a[part], "b": b[part]}, {"own": part % 4}, part, weight[part])

    return data


def test_equal_pairs_are_all_found_and_a_constant_embedding_finds_nothing():
    a, weight = torch.randn(20, 8), torch.ones(20)
    perfect = list(Retrieval("a", "b", k=[1, 5]).run(FakeTowers(), both(a, a, weight)))
    assert [row.value for row in perfect] == [1.0] * 4 and [row.name for row in perfect][:2] == ["a->b R@1", "a->b R@5"]
    same = torch.ones(20, 8)
    constant = list(Retrieval("a", "b", k=[1, 5]).run(FakeTowers(), both(same, same, weight)))
    assert [row.value for row in constant] == [0.0] * 4


def test_samples_of_weight_zero_are_neither_queries_nor_candidates():
    a, weight = torch.randn(20, 8), torch.ones(20)
    weight[7] = 0
    rows = list(Retrieval("a", "b", k=[1]).run(FakeTowers(), both(a, a, weight)))
    assert [row.n for row in rows] == [19, 19]


def test_recognition_in_another_recording_equals_a_search_by_hand():
    views, ids = people(count=12, each=5)
    ids["person"][7] = 99  # someone with one recording only is not asked for
    ids["recording"][7] = 990
    x = F.normalize(views["x"], dim=1)
    hits = []
    for i in range(len(x)):
        there = ids["recording"] != ids["recording"][i]
        if (ids["person"][there] == ids["person"][i]).any():
            best = torch.where(there, x @ x[i], -2).argmax()
            hits.append(bool(ids["person"][best] == ids["person"][i]))
    [row] = Retrieval("x", "x", "person", [1], apart="recording", by="person").run(FakeTowers(), batches(views, ids))
    assert (row.name, row.n) == ("x->x R@1", 59) and row.value == sum(hits) / 59
    assert row.low < row.value < row.high
    [itself] = Retrieval("x", "x", "person", [1]).run(FakeTowers(), batches(views, ids))
    assert itself.n == 59 and itself.value > row.value - 0.1  # without `apart` only the sample itself is no candidate


def test_within_a_view_nothing_finds_itself():
    x = torch.eye(8)
    [row] = Retrieval("x", "x", "twin", [1]).run(FakeTowers(), batches({"x": x}, {"twin": torch.arange(8) // 2}))
    assert row.value == 0.0 and row.n == 8
