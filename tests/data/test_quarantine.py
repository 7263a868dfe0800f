"""Bad samples keep their position with weight 0; the same sample stands in for them everywhere; too many stop a run."""

import numpy as np
import pytest

from distpre.data.loader import Loader
from distpre.data.source import Source
from distpre.errors import DataError
from tests.data.tars import FIELDS, VIEWS, Number, tar


def with_bad(folder, n, bad, content=b"\xff"):
    members = [(f"{i:04d}.txt", content if i in bad else str(i).encode()) for i in range(n)]
    return Source.open(str(tar(folder / "a.tar", members)), FIELDS)


def epoch(its, world_size=1, **options):
    """{ordinal: (weight, number)} of one epoch over all ranks, and the ledger."""
    seen, ledger = {}, []
    options = {"batch": 10, "seed": 2, "max_bad_fraction": 0.5, "quarantine": ledger.append} | options
    for rank in range(world_size):
        loader = Loader(its, VIEWS, rank=rank, world_size=world_size, **options)
        stream = loader.batches()
        for _ in range(len(its) // 10):
            batch = next(stream)
            loader.consumed(batch)
            rows = zip(batch.ordinal.tolist(), batch.weight.tolist(), batch.views["number"].tolist(), strict=True)
            seen |= {o: (w, v[0]) for o, w, v in rows}
        loader.close()
    return seen, ledger


def test_a_bad_sample_has_weight_zero_and_a_line_in_the_ledger(tmp_path):
    seen, ledger = epoch(with_bad(tmp_path, 40, {3, 17}))
    assert sorted(seen) == list(range(40)), "every position is kept"
    assert {o for o, (weight, _) in seen.items() if weight == 0} == {3, 17}
    assert all(number == o for o, (weight, number) in seen.items() if weight)
    assert sorted((line["ordinal"], line["key"]) for line in ledger) == [(3, "0003"), (17, "0017")]
    line = ledger[0]
    assert line["shard"].endswith("a.tar") and line["reason"].startswith("decode .txt") and line["epoch"] == 0


def test_the_substitute_is_the_same_for_any_ranks_and_workers(tmp_path):
    its = with_bad(tmp_path, 40, {3, 17, 18, 19})
    plain = epoch(its)[0]
    assert epoch(its, world_size=3)[0] == plain
    assert epoch(its, workers=2)[0] == plain
    assert plain[3][1] not in (3, 17, 18, 19)


def test_more_than_the_fraction_stops_the_run_with_the_list(tmp_path):
    its = with_bad(tmp_path, 100, set(range(0, 100, 10)))
    with pytest.raises(DataError) as stopped:
        epoch(its, max_bad_fraction=0.005)
    text = str(stopped.value)
    assert "6 of " in text and "max_bad_fraction = 0.005" in text and text.count("decode .txt") == 6
    assert len(epoch(its, max_bad_fraction=0.01)[1]) == 10


def test_a_fraction_of_zero_forbids_any(tmp_path):
    with pytest.raises(DataError, match="1 of "):
        epoch(with_bad(tmp_path, 20, {5}), max_bad_fraction=0.0)


def test_where_nothing_can_be_read_it_says_so_at_once(tmp_path):
    with pytest.raises(DataError, match="could not be read .*nor could 8 others in its place.*UnicodeDecodeError"):
        epoch(with_bad(tmp_path, 20, set(range(20))))


def test_an_odd_shape_or_dtype_is_a_bad_sample(tmp_path):
    class Odd(Number):
        def at(self, value, *, seed, epoch, ordinal):
            odd = {7: np.zeros((3, 3), int), 8: np.zeros(2, np.float32)}
            return odd.get(int(value), np.array([int(value), 0]))

    ledger = []
    loader = Loader(with_bad(tmp_path, 20, ()), {"number": Odd()}, batch=20, seed=0, quarantine=ledger.append)
    loader.quarantine.max_bad_fraction = 1
    batch = next(loader.batches())
    loader.consumed(batch)
    assert sorted(line["ordinal"] for line in ledger) == [7, 8]
    assert all("for the source's first sample it gives int64 (n,)" in line["reason"] for line in ledger)
    assert batch.weight.sum() == 18


def test_a_view_that_raises_names_itself_in_the_ledger(tmp_path):
    class Raises(Number):
        def at(self, value, *, seed, epoch, ordinal):
            if value == "4":
                raise ValueError("too short for a crop")
            return super().at(value, seed=seed, epoch=epoch, ordinal=ordinal)

    ledger = []
    loader = Loader(with_bad(tmp_path, 20, ()), {"number": Raises()}, batch=20, seed=0, quarantine=ledger.append)
    loader.consumed(next(loader.batches()))
    assert [line["reason"] for line in ledger] == ["view number: ValueError: too short for a crop"]


def test_evaluation_marks_bad_samples_too(tmp_path):
    ledger = []
    its = with_bad(tmp_path, 12, {0, 7})
    loader = Loader(its, VIEWS, batch=5, seed=0, quarantine=ledger.append, max_bad_fraction=0.5)
    weights = np.concatenate([batch.weight.numpy() for batch in loader.once()])
    assert np.flatnonzero(weights == 0).tolist() == [0, 7] == [line["ordinal"] for line in ledger]
