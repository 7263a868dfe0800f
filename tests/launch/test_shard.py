import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.cluster
def test_shards_are_written_over_a_ray_cluster_as_by_one_process(ray_of_two, tmp_path):
    import ray

    for i in range(6):
        picture = tmp_path / "in" / f"class{i % 2}" / f"{i}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), i).save(picture)
    address = ray.get_runtime_context().gcs_address
    for out, workers in (("one", "1"), ("many", f"ray:{address}")):
        command = [sys.executable, "-m", "tools.shard", "class-folder", str(tmp_path / "in"), "--workers", workers]
        command += ["--out", str(tmp_path / out), "--shard-samples", "2"]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    names = sorted(p.name for p in (tmp_path / "one").iterdir())
    assert names == sorted(p.name for p in (tmp_path / "many").iterdir()) and "train-002.tar" in names
    for name in names:
        if name.endswith(".tar"):
            assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "many" / name).read_bytes(), json.dumps(name)


def test_a_cluster_that_does_not_answer_is_named(tmp_path):
    (tmp_path / "in/a").mkdir(parents=True)
    Image.new("L", (4, 4)).save(tmp_path / "in/a/0.png")
    command = [
        sys.executable,
        "-m",
        "tools.shard",
        "class-folder",
        str(tmp_path / "in"),
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run([*command, "--workers", "ray:127.0.0.1:9"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2 and "no Ray cluster answers there" in done.stderr
