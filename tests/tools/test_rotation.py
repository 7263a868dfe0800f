"""Wrong pairs are as many as asked, and have the y of another pair; the others are as they were."""

import numpy as np

from distpre.data.source import Source
from tools.shard.rotation import write


def test_wrong_pairs_have_each_the_y_of_another(tmp_path):
    said = {}
    for name, wrong in (("right", 0.0), ("wrong", 0.4)):
        write(str(tmp_path / name), first=50, parts=0, test=2, wrong=wrong)
        source = Source.open(str(tmp_path / name / "train-000.tar"), {"x": "x.npy", "y": "y.npy", "said": "json"}, {})
        said[name] = [sample.fields for sample in source.samples()]
    marked = np.array([now["said"]["wrong"] for now in said["wrong"]])
    assert marked.sum() == 20 and not any(was["said"]["wrong"] for was in said["right"])
    for was, now, wrong in zip(said["right"], said["wrong"], marked, strict=True):
        assert np.array_equal(was["x"], now["x"]) and np.array_equal(was["y"], now["y"]) == (not wrong)
    before, after = (sorted(fields["y"].tobytes() for fields in said[name]) for name in ("right", "wrong"))
    assert before == after
