"""What an evaluation inside a run reads."""

from distpre.recipe import load, prepare
from distpre.runtime import build
from distpre.runtime.evaluation import Evaluation


def test_a_view_of_training_alone_is_not_made(tmp_path):
    folder = f"{tmp_path}/digits"
    words = [f"data.prepare.out={folder}", f"data.train.shards={folder}/train-000.tar", "data.prepare.shards=1"]
    words += [f"data.test.shards={folder}/test-000.tar", "towers.image.views=[image, again]", "data.workers=0"]
    words += ["views.again={field: image, ops: [{name: auto_augment}]}"]
    recipe = load("recipes/quickstart.yaml:small", words)
    prepare(recipe, lambda text: None)
    evaluation = Evaluation.of(recipe, build.model(recipe), build.views(recipe), lambda text: None)
    assert list(recipe.views) == ["image", "text", "again"]
    assert set(next(evaluation._once()).views) == {"image", "text"}
    evaluation.close()
