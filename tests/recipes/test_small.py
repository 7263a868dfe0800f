"""Every recipe's small variant: trained for some steps, evaluated and committed, alike at one rank and at two."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ranks import ranks

REPOSITORY = Path(__file__).parents[2]
RECIPES = sorted(str(p.relative_to(REPOSITORY)) for p in REPOSITORY.glob("recipes/**/*.yaml"))


def shard_emoji(shared_data: Path, folder: Path) -> None:
    from tools.shard.emoji import pairs
    from tools.shard.image_text import write

    source = shared_data / "emoji_noto"
    write(list(pairs(source)), folder / "runs/data/emoji", split_by="base", share=0.15, shard_samples=400)


def shard_wrong_emoji(shared_data: Path, folder: Path) -> None:
    from tools.shard.emoji import pairs
    from tools.shard.image_text import write

    every, out = list(pairs(shared_data / "emoji_noto")), folder / "runs/data/emoji-wrong-40"
    write(every, out, split_by="base", share=0.15, shard_samples=400, wrong=0.4)


def shard_ecg(shared_data: Path, folder: Path) -> None:
    from tools.shard.recordings import Columns
    from tools.shard.signals import Making, write

    making = Making(Columns(("ECG I",)), rate=128.0, seconds=5.0, stride=5.0, band=(0.5, 40.0))
    ids = r"Person_(?P<participant>[0-2]\d)/(?P<recording>rec_[12])"
    write(shared_data / "ecg_id", folder / "runs/data/ecg", ids, making, share=0.4, together=True)


def shard_windows(shared_data: Path, folder: Path) -> None:
    from tools.shard.recordings import Columns
    from tools.shard.signals import Making, write

    making = Making(Columns(("ECG I filtered",)), rate=125.0, seconds=1.2, stride=5.0)
    ids = r"Person_(?P<participant>[0-2]\d)/(?P<recording>rec_[12])"
    write(shared_data / "ecg_id", folder / "runs/data/comet", ids, making, share=0.4)


def shard_ppg(shared_data: Path, folder: Path) -> None:
    from tools.shard.recordings import Columns
    from tools.shard.signals import Making, write

    making = Making(Columns(("R",), time="time", unit=0.001), rate=32.0, seconds=8.0, stride=8.0, band=(0.5, 8.0))
    ids = r"(?P<participant>subject_\d+)/PPG"
    write(shared_data / "ppg_welltory", folder / "runs/data/ppg", ids, making, share=0.4, together=True)


def shard_motion(shared_data: Path, folder: Path) -> None:
    from tools.shard.recordings import Columns
    from tools.shard.signals import Making, write

    columns = Columns(("x_acc", "y_acc", "z_acc"), time="timestamp", unit=0.001, label="label")
    making = Making(columns, rate=50.0, seconds=2.0, stride=2.0, zscore=False)
    ids = r"(?P<run>s(?P<participant>0\d)_01)_(?P<device>sp|sw)"
    write(shared_data / "imu_phone_watch", folder / "runs/data/motion", ids, making, share=0.4, pair="device")


def shard_shapes(shared_data: Path, folder: Path) -> None:
    from tools.shard.shapes import write

    write(shared_data / "shapes_kaykit", folder / "runs/data/shapes", points=1024, share=0.2)


def shard_hippocampus(shared_data: Path, folder: Path) -> None:
    from tools.shard.volumes import Making, write

    ids, making = r"images/(?P<participant>hippocampus_0[0-5]\d)", Making(labels=("images", "labels"))
    write(shared_data / "mri_hippocampus", folder / "runs/data/hippocampus", ids, making, share=0.4)


def as_it_says(recipe: str, source: str) -> Callable[[Path, Path], None]:
    """By the commands at the recipe's top, which end where it says what is whose."""

    def shard(shared_data: Path, folder: Path) -> None:
        lines = (REPOSITORY / recipe).read_text().splitlines()
        top = itertools.takewhile(lambda line: not line.startswith("# Not a paper"), lines)
        lines = [f'python() {{ "{sys.executable}" "$@"; }}', *(line[6:] for line in top if line[:6] == "#     ")]
        words = ["bash", "-ec", "\n".join(lines).replace("FOLDER", str(shared_data / source))]
        subprocess.run(words, cwd=folder, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, check=True)

    return shard


# What a recipe's shards are made of, where the recipe does not prepare them itself.
SHARDS = {
    "recipes/image_text/emoji.yaml": shard_emoji,
    "recipes/continual/emoji.yaml": shard_emoji,
    "recipes/continual/grocery.yaml": as_it_says("recipes/continual/grocery.yaml", "imgtext_grocery"),
    "recipes/continual/omniglot.yaml": as_it_says("recipes/continual/omniglot.yaml", "images_omniglot"),
    "recipes/continual/tatoeba.yaml": as_it_says("recipes/continual/tatoeba.yaml", "text_tatoeba"),
    "recipes/biosignals/ecg.yaml": shard_ecg,
    "recipes/biosignals/ppg.yaml": shard_ppg,
    "recipes/biosignals/comet.yaml": shard_windows,
    "recipes/biosignals/motion.yaml": shard_motion,
    "recipes/robust/fastclip.yaml": shard_emoji,
    "recipes/robust/nevlp_emoji.yaml": shard_wrong_emoji,
    "recipes/shapes/names.yaml": shard_shapes,
    "recipes/volumes/voco.yaml": shard_hippocampus,
}


def trained(recipe: str, folder: str, run_dir: str) -> dict:
    from distpre.group import wait_for_all
    from distpre.recipe import load, prepare
    from distpre.runtime.engine import join_group
    from distpre.train import train

    os.chdir(folder)
    workers = f"launch.workers={os.environ['WORLD_SIZE']}"
    loaded = load(
        f"{REPOSITORY / recipe}:small", [f"run.dir={run_dir}", workers, "train.log_every=1", "data.workers=0"]
    )
    if os.environ["RANK"] == "0":
        prepare(loaded, print)
    join_group()
    wait_for_all()
    return train(loaded, sink=lambda record: None, stop=lambda: None)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.cluster
@pytest.mark.parametrize("recipe", RECIPES)
def test_small_variant_runs_alike_on_one_rank_and_two(recipe, tmp_path, request):
    if recipe in SHARDS:
        SHARDS[recipe](request.getfixturevalue("shared_data"), tmp_path)
    traces = []
    for world in (1, 2):
        results = ranks(world).run(trained, recipe, str(tmp_path), f"run-{world}")
        assert {r["status"] for r in results} == {"finished"}
        folder = tmp_path / f"run-{world}"
        steps = lines(folder / "metrics.jsonl")
        assert [s["step"] for s in steps] == list(range(1, results[0]["step"] + 1))
        assert lines(folder / "eval.jsonl")[-1]["step"] == results[0]["step"]
        assert (folder / "checkpoints" / f"step-{results[0]['step']:08d}" / "COMMIT").exists()
        traces.append([s["loss"] for s in steps])
    assert traces[0] == pytest.approx(traces[1], rel=1e-4)
    assert traces[0][-1] != traces[0][0]
