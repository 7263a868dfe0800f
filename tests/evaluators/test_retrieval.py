import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from distpre.evaluators import retrieval
from distpre.evaluators.retrieval import Retrieval, wrong_ahead
from distpre.types import Batch


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


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 30), st.integers(1, 6), st.integers(1, 10), st.integers(0, 10**6))
def test_count_of_wrong_candidates_ahead_equals_sorting(n, m, classes, most, seed):
    torch.manual_seed(seed)
    queries, candidates = torch.randint(-2, 3, (n, 3)).double(), torch.randint(-2, 3, (m, 3)).double()  # many ties
    ids, candidate_ids = torch.randint(classes, (n,)), torch.randint(classes, (m,))
    retrieval.TILE = 7
    found = wrong_ahead(queries, ids, candidates, candidate_ids, most)
    assert found.tolist() == brute_force(queries, ids, candidates, candidate_ids, most).tolist()


class FakeTowers:
    """The batch's views are already the embeddings."""

    def batch(self, batch, *views):
        return {view: F.normalize(batch.views[view], dim=-1) for view in views}


def batches(a, b, weight):
    def data():
        for part in torch.arange(len(a)).split(5):
            yield Batch({"a": a[part], "b": b[part]}, {"own": part % 4}, part, weight[part])

    return data


def test_equal_pairs_are_all_found_and_a_constant_embedding_finds_nothing():
    torch.manual_seed(0)
    a, weight = torch.randn(20, 8), torch.ones(20)
    perfect = list(Retrieval("a", "b", k=[1, 5]).run(FakeTowers(), batches(a, a, weight)))
    assert [row.value for row in perfect] == [1.0] * 4 and [row.name for row in perfect][:2] == ["a->b R@1", "a->b R@5"]
    same = torch.ones(20, 8)
    constant = list(Retrieval("a", "b", k=[1, 5]).run(FakeTowers(), batches(same, same, weight)))
    assert [row.value for row in constant] == [0.0] * 4


def test_samples_of_weight_zero_are_neither_queries_nor_candidates():
    torch.manual_seed(0)
    a, weight = torch.randn(20, 8), torch.ones(20)
    weight[7] = 0
    rows = list(Retrieval("a", "b", k=[1]).run(FakeTowers(), batches(a, a, weight)))
    assert [row.n for row in rows] == [19, 19]
