import numpy as np
import pytest

from distpre.data.permutation import derived, permute


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 255, 257, 1000])
def test_every_place_is_taken_once(n):
    for key in range(20):
        assert sorted(permute(np.arange(n), n, derived(key)).tolist()) == list(range(n))


def test_one_call_serves_many_sizes_and_keys():
    sizes, keys = np.repeat([1, 7, 300], [1, 7, 300]), np.repeat(derived(3, [0, 1, 2]), [1, 7, 300])
    places = np.concatenate([np.arange(n) for n in (1, 7, 300)])
    together = permute(places, sizes, keys)
    apart = [permute(np.arange(n), n, derived(3, i)) for i, n in enumerate((1, 7, 300))]
    assert (together == np.concatenate(apart)).all()


def test_places_are_taken_evenly_over_keys():
    n, keys = 10, 20_000
    where = permute(np.zeros(keys, int), n, derived(11, np.arange(keys)))
    expected = keys / n
    chi_squared = ((np.bincount(where, minlength=n) - expected) ** 2 / expected).sum()
    assert chi_squared < 27.9  # 99.9 % of the distribution with 9 degrees of freedom


def test_neighbours_do_not_stay_neighbours():
    moved = permute(np.arange(100_000), 100_000, derived(5))
    assert abs(np.corrcoef(np.arange(100_000), moved)[0, 1]) < 0.02
    assert (np.diff(moved) == 1).mean() < 0.001


def test_a_key_depends_on_each_part_and_on_their_order():
    keys = {int(derived(*parts)) for parts in [(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0), (0, 1, 2), (0, 2, 1)]}
    assert len(keys) == 8


def test_it_reaches_far_beyond_memory():
    n = 10**12
    places = np.array([0, 1, n // 2, n - 1])
    out = permute(places, n, derived(1))
    assert len(set(out.tolist())) == 4 and (out >= 0).all() and (out < n).all()
