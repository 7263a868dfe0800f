"""An op that leaves nothing: the sample lacks the view where its field is optional, and is bad where it is not."""

import io

import numpy as np
import pytest

from distpre.data.loader import Loader
from distpre.data.source import Source
from distpre.views.pipeline import View
from distpre.views.sources import OneSource
from tests.data.tars import tar


def npz(**arrays) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


@pytest.mark.parametrize("optional", [True, False])
def test_a_sample_whose_only_text_is_flagged_lacks_the_view(tmp_path, optional):
    flagged = [0, 1, 0, 1]
    members = [(f"{n}.npz", npz(raw=np.full(3, n + 1.0), flagged=np.float32(f))) for n, f in enumerate(flagged)]
    source = Source.open(str(tar(tmp_path / "s.tar", members)), {"t": "npz"}, optional=["t"] if optional else [])
    op = OneSource([["raw"]], unless={"raw": "flagged"})
    loader = Loader(source, {"t": View("t", "t", [op], [op])}, batch=4, seed=0, max_bad_fraction=1.0)
    batch = next(loader.batches())
    order = [flagged[n] == 0 for n in batch.ordinal.tolist()]
    assert batch.present_in("t").tolist() == order
    if optional:
        assert batch.weight.tolist() == [1.0] * 4
        np.testing.assert_allclose(batch.views["t"].norm(dim=1).numpy(), order, rtol=1e-6)
    else:
        assert batch.weight.tolist() == [float(there) for there in order]


def test_a_vector_of_no_length_makes_its_sample_bad():
    with pytest.raises(ValueError, match="length 0"):
        OneSource([["raw"]])({"raw": np.zeros(3)}, np.random.default_rng(0))
