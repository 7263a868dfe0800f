"""Exactly once, whatever the number of ranks and workers, and however often the run is killed and resumed."""

import io
import itertools
import json
import pickle
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distpre.data.loader import Loader
from distpre.data.pairing import Apart, Blocks, Neighbours
from distpre.data.source import Source
from distpre.errors import CheckpointError, DataError
from distpre.types import Padded
from tests.data.tars import FIELDS, IDS, VIEWS, Number, numbered, source, tar


def loaders(its, world_size, **options):
    options = {"batch": 5, "seed": 3, "window": 20} | options
    return [Loader(its, VIEWS, rank=r, world_size=world_size, **options) for r in range(world_size)]


def step(ranks, streams):
    """One global step: every rank consumes its part; the parts, joined: [(ordinal, number, draw)]."""
    rows = []
    for loader, stream in zip(ranks, streams, strict=True):
        batch = next(stream)
        rows += [(o, *v) for o, v in zip(batch.ordinal.tolist(), batch.views["number"].tolist(), strict=True)]
        loader.consumed(batch)
    return rows


def run(ranks, steps):
    streams = [loader.batches() for loader in ranks]
    return [step(ranks, streams) for _ in range(steps)]


@settings(max_examples=25)
@given(
    counts=st.lists(st.integers(0, 50), min_size=1, max_size=5).filter(sum),
    batch=st.integers(1, 23),
    window=st.integers(1, 80),
    lives=st.lists(st.tuples(st.integers(1, 7), st.integers(0, 6), st.integers(0, 3)), min_size=1, max_size=5),
)
def test_kills_and_resizes_change_nothing(tmp_path_factory, counts, batch, window, lives):
    """Each life: (ranks, steps that are committed, steps that are lost with the kill)."""
    its = source(tmp_path_factory.mktemp("set"), counts)
    options = {"batch": batch, "window": window}
    unbroken = run(loaders(its, 1, **options), sum(kept for _, kept, _ in lives))
    state, trained = None, []
    for world_size, kept, lost in lives:
        ranks = loaders(its, world_size, **options)
        for loader in ranks if state else []:
            loader.load_state_dict(json.loads(state))
        streams = [loader.batches() for loader in ranks]
        trained += [step(ranks, streams) for _ in range(kept)]
        states = {json.dumps(loader.state_dict()) for loader in ranks}
        assert len(states) == 1, "ranks disagree"
        state = states.pop()
        for _ in range(lost):
            step(ranks, streams)
    assert trained == unbroken
    assert len(state) < 1024
    ordinals = [row[0] for rows in trained for row in rows]
    for epoch in range(len(ordinals) // len(its)):
        assert sorted(ordinals[epoch * len(its) :][: len(its)]) == list(range(len(its)))
    assert all(row[0] == row[1] for rows in trained for row in rows), "the text read is another sample's"


def test_workers_change_nothing(tmp_path):
    its = source(tmp_path, [13, 0, 8])
    seen = []
    for workers in (0, 1, 3):
        ranks = loaders(its, 2, workers=workers)
        seen.append(run(ranks, 9))
        for loader in ranks:
            loader.close()
    assert seen[0] == seen[1] == seen[2]


def test_the_draws_of_a_view_differ_between_epochs(tmp_path):
    its = source(tmp_path, [6])
    first, second = run(loaders(its, 1, batch=6), 2)
    assert {o for o, _, _ in first} == {o for o, _, _ in second}
    assert not {d for _, _, d in first} & {d for _, _, d in second}


def test_a_batch_longer_than_the_data_goes_on_into_the_next_epochs(tmp_path):
    its = source(tmp_path, [3])
    (rows,) = run(loaders(its, 2, batch=7), 1)
    ordinals = [o for o, _, _ in rows]
    assert sorted(ordinals[:3]) == sorted(ordinals[3:6]) == [0, 1, 2]


def test_the_batch_may_change_between_lives(tmp_path):
    """The position counts samples, not steps."""
    its = source(tmp_path, [11])
    (first,) = loaders(its, 1, batch=4)
    before = run([first], 2)
    (second,) = loaders(its, 1, batch=7)
    second.load_state_dict(first.state_dict())
    after = run([second], 2)
    plain = its.order(3, 20).at(np.arange(8 + 14))[1].tolist()
    assert [o for rows in before + after for o, _, _ in rows] == plain


def test_steps_that_are_not_consumed_do_not_count(tmp_path):
    (loader,) = loaders(source(tmp_path, [20]), 1)
    stream = loader.batches()
    kept, _, _ = next(stream), next(stream), next(stream)
    loader.consumed(kept)
    assert loader.state_dict()["position"] == 5 and loader.epoch == 0.25


def test_a_batch_consumed_twice_or_out_of_turn_is_refused(tmp_path):
    (loader,) = loaders(source(tmp_path, [20]), 1)
    stream = loader.batches()
    first, second = next(stream), next(stream)
    with pytest.raises(DataError, match="out of turn"):
        loader.consumed(second)
    loader.consumed(first)
    with pytest.raises(DataError, match="out of turn"):
        loader.consumed(first)


@pytest.mark.parametrize("moved", [-5, 5, 1])
def test_a_position_that_was_moved_breaks_the_proof(tmp_path, moved):
    its = source(tmp_path, [20])
    (loader,) = loaders(its, 1)
    run([loader], 2)
    state = loader.state_dict()
    (resumed,) = loaders(its, 1)
    resumed.load_state_dict({**state, "position": state["position"] + moved})
    with pytest.raises(DataError, match="proof of epoch 0 is broken.*difference"):
        run([resumed], 4)


@pytest.mark.parametrize("change", [{"seed": 4}, {"window": 21}])
def test_a_position_in_another_order_is_refused(tmp_path, change):
    its = source(tmp_path, [20])
    state = loaders(its, 1)[0].state_dict()
    with pytest.raises(CheckpointError, match=next(iter(change)) + r".*means nothing here"):
        loaders(its, 1, **change)[0].load_state_dict(state)


def test_a_position_in_other_data_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    state = loaders(source(tmp_path / "a", [20]), 1)[0].state_dict()
    with pytest.raises(CheckpointError, match="digest"):
        loaders(source(tmp_path / "b", [21]), 1)[0].load_state_dict(state)


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 7))
def test_evaluation_sees_every_sample_once_in_order(tmp_path_factory, n, batch, world_size):
    its = source(tmp_path_factory.mktemp("set"), [n])
    passes = [list(loader.once()) for loader in loaders(its, world_size, batch=batch)]
    assert {len(batches) for batches in passes} == {-(-n // batch)}
    rows = [o for together in zip(*passes, strict=True) for part in together for o in part.ordinal.tolist()]
    assert rows == list(range(n))
    for part in itertools.chain(*passes):
        assert part.views["number"].shape == (len(part), 2) and part.ids["n"].tolist() == part.ordinal.tolist()


def test_evaluation_may_stand_between_two_training_steps(tmp_path):
    its = source(tmp_path, [20])
    plain = run(loaders(its, 1), 6)
    (loader,) = loaders(its, 1, workers=2)
    stream, mixed = loader.batches(), []
    for _ in range(6):
        mixed.append(step([loader], [stream]))
        assert sum(len(batch) for batch in itertools.islice(loader.once(), 2)) == 10  # left early
    loader.close()
    assert mixed == plain


def test_ids_and_weights_come_with_the_rows(tmp_path):
    (loader,) = loaders(source(tmp_path, [9]), 1)
    batch = next(loader.batches())
    assert batch.ids["group"].tolist() == [n % 3 for n in batch.ordinal.tolist()]
    assert batch.weight.tolist() == [1.0] * 5 and batch.weight.dtype == torch.float32


def test_rows_of_unequal_length_are_padded(tmp_path):
    class Letters:
        field = "text"

        def at(self, value, *, seed, epoch, ordinal):
            return np.frombuffer(value.encode(), np.uint8)

    loader = Loader(source(tmp_path, [12]), {"letters": Letters()}, batch=12, seed=0)
    letters = next(loader.batches()).views["letters"]
    assert isinstance(letters, Padded) and letters.values.shape == (12, 2)
    assert letters.mask.sum(1).tolist().count(2) == 2  # 10 and 11


def test_a_view_without_its_field_is_refused_before_training(tmp_path):
    view = Number()
    view.field = "picture"
    with pytest.raises(DataError, match="number reads the field 'picture'.*text"):
        Loader(source(tmp_path, [3]), {"number": view}, batch=2, seed=0)


@settings(max_examples=20)
@given(
    sizes=st.lists(st.integers(1, 4), min_size=40, max_size=60),
    batch=st.integers(2, 6),
    world_size=st.integers(1, 4),
)
def test_apart_keeps_an_id_out_of_a_batch_twice(tmp_path_factory, sizes, batch, world_size):
    group = [g for g, size in enumerate(sizes) for _ in range(size)]
    names = numbered(tmp_path_factory.mktemp("set"), [len(group)], group=lambda n: group[n])
    its = Source.open(names, FIELDS, IDS)
    ranks = loaders(its, world_size, batch=batch, pairing=Apart("group"))
    rows = run(ranks, 3 * len(its) // batch)
    for batch_rows in rows:
        assert len({group[o] for o, _, _ in batch_rows}) == batch
    ordinals = [o for batch_rows in rows for o, _, _ in batch_rows]
    for epoch in range(len(ordinals) // len(its)):
        assert sorted(ordinals[epoch * len(its) :][: len(its)]) == list(range(len(its)))


def test_apart_says_when_it_cannot_be(tmp_path):
    its = source(tmp_path, [30])  # three groups of ten
    with pytest.raises(DataError, match="one group has 10 samples, but an epoch of 30 .* has only 6 whole batches"):
        Loader(its, VIEWS, batch=4, seed=0, pairing=Apart("group"))
    with pytest.raises(DataError, match="asks for the id 'person'; the source has n, group"):
        Loader(its, VIEWS, batch=4, seed=0, pairing=Apart("person"))


@settings(max_examples=40)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=12), st.integers(1, 4), st.integers(1, 4))
def test_blocks_hold_one_id_and_are_never_cut(tmp_path_factory, sizes, size, per_batch):
    group = [g for g, count in enumerate(sizes) for _ in range(count)]
    names = numbered(tmp_path_factory.mktemp("set"), [len(group)], group=lambda n: group[n])
    its = Source.open(names, FIELDS, IDS)
    epochs = 3
    order = Blocks("group", size).order(its, seed=1, batch=size * per_batch)
    ordinals = order.at(np.arange(epochs * len(its)))[1].tolist()
    whole = 0
    for i in range(0, len(ordinals) - size + 1, size):
        whole += len({group[o] for o in ordinals[i : i + size]}) == 1
    assert whole >= sum(s // size for s in sizes) * epochs - (epochs - 1)  # one may be dissolved at an epoch's start
    for epoch in range(epochs):
        assert sorted(ordinals[epoch * len(its) :][: len(its)]) == list(range(len(its)))


def test_neighbours_stand_together_and_each_sample_once(tmp_path):
    from distpre.data.pairing import nearest

    angle = np.random.default_rng(0).permutation(23) * 2 * np.pi / 23
    places = np.stack([np.cos(angle), np.sin(angle)], 1)
    members = [(f"{i}.{e}", c) for i in range(23) for e, c in (("txt", b"x"), ("npy", _saved(places[i])))]
    its = Source.open([str(tar(tmp_path / "a.tar", members))], {"text": "txt", "near": "npy"})
    near = nearest(places, 4)
    assert [set(n) for n in near] == [set(np.argsort(-(places @ p))[1:5]) for p in places]
    order = Neighbours("near", size=2, among=4).order(its, seed=1, batch=4)
    ordinals = order.at(np.arange(4 * 23))[1]
    assert [sorted(o) for o in ordinals.reshape(4, 23).tolist()] == [list(range(23))] * 4
    pairs = ordinals.reshape(-1, 2)
    together = [b in near[a] or a in near[b] for a, b in pairs]
    assert np.mean(together) > 0.8  # an order by chance: 4 / 22; the rest found no free neighbour
    assert set(map(frozenset, pairs[:11].tolist())) != set(map(frozenset, pairs[23:34].tolist()))
    assert (pickle.loads(pickle.dumps(order)).at(np.arange(30))[1] == ordinals[:30]).all()
    with pytest.raises(DataError, match="asks for the field 'far'; the source has text, near"):
        Neighbours("far", 2).order(its, seed=1, batch=4)


def _saved(x: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, x)
    return content.getvalue()


def test_a_long_wait_names_its_stage_shard_and_worker(tmp_path):
    class Slow(Number):
        def at(self, value, *, seed, epoch, ordinal):
            time.sleep(0.4 if ordinal else 0)
            return super().at(value, seed=seed, epoch=epoch, ordinal=ordinal)

    said = []
    loader = Loader(source(tmp_path, [20]), {"number": Slow()}, batch=4, seed=0, note=said.append)
    for _, batch in zip(range(3), loader.batches(), strict=False):
        loader.consumed(batch)
    assert loader.last_wait.stage == "view" and loader.last_wait.shard.endswith("shard-000.tar")
    assert len(said) == 1 and "view took" in said[0] and "MainProcess" in said[0] and "shard-000.tar" in said[0]


def test_a_slow_way_from_the_worker_is_named(tmp_path, monkeypatch):
    from distpre.data import workers

    def slow(end):
        time.sleep(1.1)
        return receive(end)

    receive = workers.receive
    monkeypatch.setattr(workers, "receive", slow)
    said = []
    loader = Loader(source(tmp_path, [20]), {"number": Number()}, batch=4, seed=0, workers=1, note=said.append)
    for _, batch in zip(range(2), loader.batches(), strict=False):
        loader.consumed(batch)
    loader.close()
    assert loader.last_wait.stage == "transfer" and "transfer took" in said[0] and "data-worker-0" in said[0]
