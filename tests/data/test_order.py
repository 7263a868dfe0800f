"""The order against a plain list, built epoch by epoch with sorts instead of arithmetic."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distpre.data.order import SAMPLES, SHARDS, Order
from distpre.data.permutation import derived, permute

counts_with_a_sample = st.lists(st.integers(0, 50), min_size=1, max_size=8).filter(sum)


def plain_epoch(counts, seed, epoch, window):
    """One epoch as a list of ordinals, by the definition in order.py."""
    key = derived(seed, epoch)
    shards = [list(range(sum(counts[:s]), sum(counts[: s + 1]))) for s in range(len(counts))]
    row = [shards[s] for s in permute(np.arange(len(counts)), len(counts), derived(key, SHARDS))]
    out, inside, number = [], [], 0
    for i, shard in enumerate(row):
        inside += shard
        if len(inside) >= window or (i == len(row) - 1 and inside):
            moved = permute(np.arange(len(inside)), len(inside), derived(key, SAMPLES, number))
            out += [inside[i] for i in moved]
            inside, number = [], number + 1
    return out


@settings(max_examples=150)
@given(counts_with_a_sample, st.integers(1, 120), st.integers(0, 2**63), st.data())
def test_any_slots_are_those_of_the_plain_list(counts, window, seed, data):
    n, epochs = sum(counts), 3
    plain = [(e, o) for e in range(epochs) for o in plain_epoch(counts, seed, e, window)]
    slots = data.draw(st.lists(st.integers(0, epochs * n - 1), min_size=1, max_size=40))
    e, o = Order(counts, seed, window).at(slots)
    assert list(zip(e.tolist(), o.tolist(), strict=True)) == [plain[s] for s in slots]


@settings(max_examples=100)
@given(counts_with_a_sample, st.integers(1, 120), st.integers(0, 1000))
def test_an_epoch_has_every_sample_once(counts, window, seed):
    order, n = Order(counts, seed, window), sum(counts)
    epochs, ordinals = order.at(np.arange(2 * n))
    assert sorted(ordinals[:n].tolist()) == sorted(ordinals[n:].tolist()) == list(range(n))
    assert epochs.tolist() == [0] * n + [1] * n


def test_epochs_and_seeds_differ():
    def first(seed, epoch):
        return tuple(Order([50] * 6, seed, 100).at(np.arange(300) + 300 * epoch)[1].tolist())

    assert len({first(0, 0), first(0, 1), first(1, 0), first(1, 1)}) == 4


@settings(max_examples=50)
@given(counts_with_a_sample, st.integers(1, 120))
def test_reads_stay_inside_a_window_of_whole_shards(counts, window):
    epoch = Order(counts, 0, window).epoch(0)
    n, place, windows = sum(counts), 0, []
    shard_of = np.repeat(np.arange(len(counts)), counts)
    while place < n:
        shards, end = epoch.shards_of_window(place)
        read = shard_of[epoch.at(np.arange(place, end))]
        assert set(read.tolist()) == set(shards.tolist())
        windows.append(end - place)
        place = end
    assert all(size >= window for size in windows[:-1])


@pytest.mark.parametrize("slot", [0, 123_456_789_012, 10**9 - 1, 7 * 10**9 + 3])
def test_a_billion_samples_are_sought_in_little_memory(slot):
    counts = np.full(100_000, 10_000)
    tracemalloc.start()
    epochs, ordinals = Order(counts, 0, 262_144).at(np.arange(slot, slot + 4096))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20
    assert epochs[0] == slot // 10**9 and len(set(zip(epochs.tolist(), ordinals.tolist(), strict=True))) == 4096
    shards = len(set((ordinals // 10_000).tolist()))
    assert shards <= 2 * 27  # a window of 262,144 samples is 27 shards; the slots may lie in two windows
