"""A part of a source is a source: every sample once an epoch, at any number of ranks, from any position."""

import numpy as np
import pytest

from distpre.data.loader import Loader
from distpre.data.subset import Subset, buffer, domain, herded, replayed
from distpre.errors import DataError
from tests.data.tars import VIEWS, source


@pytest.fixture
def whole(tmp_path):
    return source(tmp_path, [7, 12, 1, 10])


def loader(its, **options) -> Loader:
    return Loader(its, VIEWS, **{"batch": 6, "seed": 3, "window": 8, **options})


def numbers(loaders: list[Loader], steps: int) -> list[list[int]]:
    streams, found = [each.batches() for each in loaders], []
    for _ in range(steps):
        step = []
        for each, stream in zip(loaders, streams, strict=True):
            batch = next(stream)
            each.consumed(batch)
            assert batch.ids["n"].tolist() == batch.views["number"][:, 0].tolist()
            step += batch.ids["n"].tolist()
        found.append(step)
    return found


def test_a_domain_is_every_sample_with_one_of_the_values_once_an_epoch(whole):
    part = domain(whole, {"group": [0, 2]})
    expected = [n for n in range(30) if n % 3 != 1]
    assert len(part) == 20
    found = numbers([loader(part)], 10)  # 60 slots: three epochs, which the proof watches
    assert sorted(sum(found, [])) == sorted(expected * 3)
    assert [b.ids["n"].tolist() for b in loader(part, batch=20).once()] == [expected]


def test_ranks_and_resume_change_nothing(whole):
    part = domain(whole, {"group": [1]})
    one = numbers([loader(part)], 6)
    assert numbers([loader(part, rank=r, world_size=2) for r in (0, 1)], 6) == one
    first, then = loader(part), loader(part)
    numbers([first], 2)
    then.load_state_dict(first.state_dict())
    assert numbers([then], 4) == one[2:]


@pytest.mark.parametrize(
    "where,said", [({"group": [0, 7]}, "no sample of the source has the group 7"), ({"n": [3], "group": [1]}, "all of")]
)
def test_a_domain_nobody_is_in_is_refused(whole, where, said):
    with pytest.raises(DataError, match=said):
        domain(whole, where)


def test_a_buffer_holds_only_what_was_seen_and_no_more_than_that(whole):
    order = whole.order(3, 8)
    seen = set(order.at(np.arange(12))[1].tolist())
    picked = buffer(whole, 5, 3, order, slots=12)
    assert len(set(picked.tolist())) == 5 and set(picked.tolist()) <= seen
    with pytest.raises(DataError, match="a buffer of 13 samples is larger than the 12"):
        buffer(whole, 13, 3, order, slots=12)


def test_each_seen_sample_is_as_likely_in_the_buffer_as_any_other(whole):
    order = whole.order(3, 8)
    counts = np.zeros(30)
    for seed in range(1000):
        counts[buffer(whole, 6, seed, order, slots=10**6)] += 1
    # 200 expected each, with a standard deviation of 12.6
    assert counts.sum() == 6000 and np.abs(counts - 200).max() < 5 * 12.6


def test_replay_takes_its_weight_of_the_slots_and_marks_its_rows(whole):
    current = domain(whole, {"group": [0]})
    earlier = {g: (domain(whole, {"group": [g]}), np.array([1, 4])) for g in (1, 2)}
    mixed = replayed(current, earlier, 0.25)
    stream, rows = (each := loader(mixed, batch=8)).batches(), []
    for _ in range(10):
        batch = next(stream)
        each.consumed(batch)
        rows += list(zip(batch.ids["n"].tolist(), batch.ids["part"].tolist(), strict=True))
    own, again = [n for n, part in rows if part == 0], [n for n, part in rows if part == 1]
    assert len(again) == 20 and sorted(set(again)) == [4, 5, 13, 14]
    assert sorted(own) == sorted([n for n in range(30) if n % 3 == 0] * 6)


def test_nested_parts_of_a_mixture_read_the_right_samples(whole):
    part = Subset(replayed(whole, {"a": (whole, np.array([3, 9]))}, 0.5), np.array([5, 30, 31]))
    assert [b.views["number"][:, 0].tolist() for b in loader(part, batch=3).once()] == [[5, 3, 9]]


def test_herding_picks_greedily_what_keeps_the_mean():
    rows = np.random.default_rng(0).normal(size=(40, 5))
    picked, taken = herded(rows, 7).tolist(), []
    for _ in range(7):
        gaps = [np.inf if i in taken else np.linalg.norm(rows.mean(0) - rows[[*taken, i]].mean(0)) for i in range(40)]
        taken.append(int(np.argmin(gaps)))
    assert picked == taken
