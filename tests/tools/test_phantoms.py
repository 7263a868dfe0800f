"""The phantoms: pictures that belong to their volumes, lesions that are fluid, eyes that are in one part only."""

import numpy as np
import pytest

from distpre.data.source import Source
from distpre.errors import DataError
from tools.shard.phantoms import Retina, write

FIELDS = {"oct": "oct.npy", "ir": "ir.png", "faf": "faf.png"}
IDS = {"eye": "json.eye", "lesion": "json.lesion"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    said = write(str(folder), train=60, test=20, frames=6, side=32, twice=0.3)
    assert said == f"wrote 60 made-up OCT volumes for training and 20 held out, as tars in {folder}"
    every = {}
    for split in ("train", "test"):
        source = Source.open(str(folder / f"{split}-000.tar"), FIELDS, IDS, optional=["ir", "faf"])
        ids = source.id_columns(np.arange(len(source)))
        every[split] = [(source.sample(source.raw(i)).fields, int(ids["eye"][i])) for i in range(len(source))]
        assert 0.3 < ids["lesion"].mean() < 0.7
    return every


def test_shapes_missing_pictures_and_eyes(world):
    train, test = world["train"], world["test"]
    assert (len(train), len(test)) == (60, 20)
    assert {fields["oct"].shape for fields, _ in train} == {(6, 32, 32)} and train[0][0]["oct"].dtype == np.uint8
    assert {f.shape for fields, _ in train for name, f in fields.items() if name != "oct"} == {(32, 32)}
    lacking = {name: np.mean([name not in fields for fields, _ in train + test]) for name in ("ir", "faf")}
    assert 0.02 < lacking["ir"] < 0.25 and 0.15 < lacking["faf"] < 0.45
    assert not {eye for _, eye in train} & {eye for _, eye in test}


def test_two_scans_of_an_eye_have_one_picture_and_differ(world):
    eyes = {}
    for fields, eye in world["train"]:
        eyes.setdefault(eye, []).append(fields)
    twice = [scans for scans in eyes.values() if len(scans) == 2]
    assert len(twice) > 5
    for a, b in twice:
        assert a.keys() == b.keys() and all((a[name] == b[name]).all() for name in a if name != "oct")
        assert (a["oct"] != b["oct"]).any()


def test_ir_is_the_projection_of_its_own_volume():
    retinas = [Retina(0, eye, 48) for eye in range(12)]
    projected = np.stack([r.volume(0, 48).mean(1).ravel() for r in retinas])
    pictures = np.stack([r.pictures()[0].ravel() for r in retinas]).astype(float)
    alike = np.corrcoef(projected, pictures)[:12, 12:]
    assert (alike.argmax(1) == np.arange(12)).mean() > 0.9


def test_a_lesion_is_fluid_in_some_b_scans_only():
    ill = next(r for eye in range(20) if (r := Retina(0, eye, 48)).ill)
    fluid = (ill.edges[4] - ill.edges[3]).max(1)
    assert fluid.max() > 3 and 0.1 < (fluid > 1).mean() < 0.7
    assert np.diff(ill.edges, axis=0).min() > -1e-9  # no layer runs through another
    well = next(r for eye in range(20) if not (r := Retina(0, eye, 48)).ill)
    assert np.allclose(well.edges[4], well.edges[3])


def test_sizes_without_a_retina_are_refused(tmp_path):
    with pytest.raises(DataError, match="1 frames of 32 x 32 hold no retina"):
        write(str(tmp_path), frames=1, side=32)
