"""Made-up patients for COMET: the ill have more of 10 Hz, trials are one patient's, shuffled ids no one's."""

import numpy as np

from tools.shard.trials import RATE, windows

MADE = windows(60, seed=1)


def test_the_disease_is_a_stronger_rhythm_of_10_hz():
    spectrum = np.stack([np.abs(np.fft.rfft(w.signal, axis=1)) ** 2 for w in MADE])
    near = np.abs(np.fft.rfftfreq(MADE[0].signal.shape[1], 1 / RATE) - 10) <= 1
    share = (spectrum[..., near].sum(-1) / spectrum.sum(-1)).mean(1)
    ill = np.array([w.disease for w in MADE])
    assert share[ill == 1].mean() > 1.3 * share[ill == 0].mean()


def test_a_trial_is_of_one_patient_and_shuffled_ids_are_dealt_out_trial_by_trial():
    owner = {w.trial: w.patient for w in MADE}
    assert all(owner[w.trial] == w.patient for w in MADE) and len(owner) == 60 * 6
    dealt = {w.trial: w.shuffled for w in MADE}
    assert np.bincount(list(dealt.values())).tolist() == [6] * 60
    assert np.mean([dealt[t] == p for t, p in owner.items()]) < 0.1
