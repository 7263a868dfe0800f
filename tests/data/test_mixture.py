"""open_clip's cases for its loader (tars of 10 and 5 samples; one or two sources; weights 1:1, 2:1), and any others."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distpre.data.loader import Loader
from distpre.data.mixture import Mixture, MixtureOrder, quotas
from distpre.data.order import Order
from distpre.data.source import Source
from distpre.errors import DataError
from tests.data.tars import FIELDS, IDS, VIEWS, numbered


@pytest.fixture
def tars(tmp_path):
    return numbered(tmp_path, [10, 5])


def opened(names):
    return Source.open(names, FIELDS, IDS)


def drawn(its, steps, batch, world_size=1, **options):
    options |= {"batch": batch, "seed": 1, "world_size": world_size}
    loaders = [Loader(its, VIEWS, rank=r, **options) for r in range(world_size)]
    streams = [loader.batches() for loader in loaders]
    numbers = []
    for _ in range(steps):
        for loader, stream in zip(loaders, streams, strict=True):
            batch_ = next(stream)
            loader.consumed(batch_)
            numbers += batch_.views["number"][:, 0].tolist()
            assert batch_.ids["n"].tolist() == batch_.views["number"][:, 0].tolist()
    return numbers


@pytest.mark.parametrize("joined", [str, list, "brace"])
def test_one_source_of_two_tars_gives_each_sample_once(tars, joined):
    written = {str: "::".join(tars), list: tars, "brace": tars[0].replace("000", "{000..001}")}[joined]
    assert Counter(drawn(opened(written), 3, 5)) == Counter(range(15))


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize(("weights", "expected"), [((1, 1), (30, 30)), ((2, 1), (40, 20))])
def test_two_sources_are_drawn_by_their_weights(tars, world_size, weights, expected):
    ten, five = opened(tars[:1]), opened(tars[1:])
    mixture = Mixture({"ten": (ten, weights[0]), "five": (five, weights[1])})
    counts = Counter(drawn(mixture, 10, 6, world_size))
    assert sum(counts[n] for n in range(10)) == expected[0] and sum(counts[n] for n in range(10, 15)) == expected[1]
    assert {counts[n] for n in range(10)} == {expected[0] // 10}, "each source passes over its samples evenly"
    assert {counts[n] for n in range(10, 15)} == {expected[1] // 5}


@settings(max_examples=80)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    data=st.data(),
    seed=st.integers(0, 1000),
)
def test_the_deal_is_that_of_a_plain_list(sizes, data, seed):
    deal = data.draw(st.lists(st.integers(1, 5), min_size=len(sizes), max_size=len(sizes)))
    order = MixtureOrder([Order([n], seed + i, 10) for i, n in enumerate(sizes)], deal, seed)
    slots = np.arange(4 * sum(deal) + 3)
    sources, draws = order.draws(slots)
    seen = Counter()
    for source, draw in zip(sources.tolist(), draws.tolist(), strict=True):
        assert draw == seen[source]
        seen[source] += 1
    for cycle in range(4):
        part = sources[cycle * sum(deal) : (cycle + 1) * sum(deal)]
        assert np.bincount(part, minlength=len(deal)).tolist() == deal
    some = data.draw(st.lists(st.sampled_from(slots.tolist()), min_size=1, max_size=10))
    epochs, ordinals = order.at(some)
    whole = order.at(slots)
    assert epochs.tolist() == whole[0][some].tolist() and ordinals.tolist() == whole[1][some].tolist()


def test_a_mixture_resumes_anywhere_in_under_a_kilobyte(tars):
    mixture = Mixture({"ten": (opened(tars[:1]), 0.7), "five": (opened(tars[1:]), 0.3)})
    plain = drawn(mixture, 8, 7)
    first = Loader(mixture, VIEWS, batch=7, seed=1)
    stream = first.batches()
    for _ in range(3):
        first.consumed(next(stream))
    state = json.dumps(first.state_dict())
    second = Loader(mixture, VIEWS, batch=7, seed=1, workers=1)
    second.load_state_dict(json.loads(state))
    stream, rest = second.batches(), []
    for _ in range(5):
        batch = next(stream)
        second.consumed(batch)
        rest += batch.views["number"][:, 0].tolist()
    second.close()
    assert rest == plain[21:] and len(state) < 1024


def test_weights_become_the_smallest_whole_numbers():
    assert quotas({"a": 2, "b": 4}) == [1, 2]
    assert quotas({"a": 0.7, "b": 0.3}) == [7, 3]
    with pytest.raises(DataError, match="'b' has weight 0"):
        quotas({"a": 1, "b": 0})
    with pytest.raises(DataError, match="need a cycle of 100000 slots"):
        quotas({"a": 0.33333, "b": 0.66667})


def test_sources_of_a_mixture_need_the_same_names(tars):
    other = Source.open(tars[1], {"caption": "txt"}, IDS)
    with pytest.raises(DataError, match=r"'five' has fields \['caption'\].*'ten' has \['text'\]"):
        Mixture({"ten": (opened(tars[:1]), 1), "five": (other, 1)})
