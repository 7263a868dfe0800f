import numpy as np
import pytest

from distpre.data.proof import MODULUS, Proof, hash_of, total
from distpre.errors import DataError
from tests.data.tars import source


def test_totals_are_exact_in_128_bits():
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**64, (1000, 2), dtype=np.uint64)
    words[:10] = 2**64 - 1
    assert total(words) == sum(int(a) << 64 | int(b) for a, b in words) % MODULUS


def test_a_hash_depends_on_key_and_row():
    assert len({hash_of(b"a", 0), hash_of(b"b", 0), hash_of(b"a", 1)}) == 3


def test_a_source_adds_up_to_its_total_in_any_order(tmp_path):
    its = source(tmp_path, [4, 0, 7, 2])
    shuffled = np.random.default_rng(0).permutation(13)
    parts = [its.manifest.hash_sum(shuffled[:5]), its.manifest.hash_sum(shuffled[5:])]
    assert sum(parts) % MODULUS == its.manifest.hash_total


def test_equal_keys_of_two_shards_do_not_stand_for_each_other(tmp_path):
    its = source(tmp_path, [3, 3])  # keys 0000 0001 0002 in both
    assert its.manifest.hash_sum(np.array([0, 0, 1, 1, 2, 2])) != its.manifest.hash_total


def test_a_sum_that_differs_breaks_the_proof_with_the_difference():
    proof = Proof(expected=100, size=2)
    proof.add(0, 1, 60)
    with pytest.raises(DataError, match="epoch 0 is broken: 2 samples consumed of 2.*difference of 0{31}3"):
        proof.add(0, 1, 43)


def test_an_epoch_that_is_left_early_breaks_the_proof():
    proof = Proof(expected=100, size=3)
    proof.add(4, 2, 60)
    with pytest.raises(DataError, match="epoch 4 is broken: 2 samples consumed of 3"):
        proof.add(5, 1, 1)


def test_whole_epochs_pass_and_leave_nothing_behind():
    proof = Proof(expected=(1 << 127) + 1, size=2)
    proof.add(0, 1, 1)
    proof.add(0, 1, 1 << 127)
    assert proof.state_dict() == {}
