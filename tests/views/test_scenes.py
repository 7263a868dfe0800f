"""Scene ops: the same points in all views of a scene, cubes of space, mirrors."""

import numpy as np
import pytest

from distpre.views.pipeline import View
from distpre.views.scenes import Mirror, OfScene, SomeOfScene, SuperNodes


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


POINTS = _rng(1).normal(size=(300, 9)).astype(np.float32)
SCENE = {"points": POINTS, "label": np.arange(300, dtype=np.int16), "pixels": POINTS[:, :2].astype(np.float16)}


def test_views_of_a_scene_draw_the_same_points_and_another_epoch_others():
    views = [View(name, "scene", [SomeOfScene(40), OfScene(name)], []) for name in SCENE]
    points, label, pixels = (v.at(SCENE, seed=0, epoch=2, ordinal=5) for v in views)
    assert (points == POINTS[label]).all() and (pixels == POINTS[label, :2].astype(np.float16)).all()
    assert len(set(label.tolist())) == 40 and label.dtype == np.int64 and pixels.dtype == np.float32
    assert label.tolist() != views[1].at(SCENE, seed=0, epoch=3, ordinal=5).tolist()


def test_arrays_of_other_points_too_few_points_and_a_part_that_is_not_there_are_named():
    with pytest.raises(ValueError, match="300 points where the recipe wants 301"):
        SomeOfScene(301)(SCENE, _rng())
    with pytest.raises(ValueError, match="'label': 4"):
        SomeOfScene(3)({**SCENE, "label": np.arange(4)}, _rng())
    with pytest.raises(ValueError, match="no 'truth'; it has points, label, pixels"):
        OfScene("truth")(SCENE, _rng())


def test_super_nodes_are_cubes_with_at_most_so_many_points():
    number = SuperNodes(0.5, most=3)(POINTS, _rng())
    cubes = [tuple(cube) for cube in np.floor(POINTS[:, :3] / 0.5).astype(int)]
    held = {cube: [i for i in range(300) if cubes[i] == cube] for cube in set(cubes)}
    assert len({number[members[0]] for members in held.values()}) == len(held) == number.max() + 1
    for members in held.values():
        assert (number[members[:3]] == number[members[0]]).all() and (number[members[3:]] == -1).all()
    assert max(map(len, held.values())) > 3


def test_a_mirror_turns_places_and_normals_round_along_x_and_y():
    signs = set()
    for seed in range(40):
        out = Mirror()(POINTS, _rng(seed))
        sign = np.sign(out[0, :3] / POINTS[0, :3])
        np.testing.assert_array_equal(out, np.concatenate([sign, sign, np.ones(3)]).astype(np.float32) * POINTS)
        signs.add(tuple(sign))
    assert signs == {(x, y, 1.0) for x in (-1.0, 1.0) for y in (-1.0, 1.0)}
