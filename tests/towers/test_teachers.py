"""Frozen teachers: where their weights come from, and what is said where they do not fit."""

import pytest
import torch
from safetensors.torch import save_file

from distpre.errors import CheckpointError
from distpre.towers.encoders.open_clip import OpenClipImage
from distpre.towers.model import Model
from distpre.towers.teachers import Ema, Frozen, Teacher
from distpre.towers.tower import Tower


def tower(seed: int, width: int = 16) -> Tower:
    torch.manual_seed(seed)
    config = {"image_size": 8, "patch_size": 4, "width": width, "layers": 1, "head_width": 8}
    return Tower(OpenClipImage(config=config, embed_dim=8))


def model(towers: dict, teachers: dict) -> Model:
    return Model(towers, {"image": "image"}, {}, "fp32", teachers)


def taught(path, width: int = 16) -> Teacher:
    teaching = Frozen(str(path))
    teacher = Teacher(teaching, {"image": tower(0, width)})
    teaching.begin(teacher)
    return teacher


def test_weights_come_from_a_file_a_commit_or_the_newest_commit_of_a_run(tmp_path):
    other = tower(1)
    for step, its in ((4, tower(2)), (12, other)):
        commit = tmp_path / f"run/checkpoints/step-{step}"
        commit.mkdir(parents=True)
        save_file({f"towers.image.{n}": v for n, v in its.state_dict().items()}, commit / "weights.safetensors")
        (commit / "COMMIT").touch()
    x = torch.randn(3, 3, 8, 8)
    for path in (commit / "weights.safetensors", commit, tmp_path / "run"):
        found, _ = model({"image": tower(0)}, {"old": taught(path)})({"image": x, "old.image": x})
        torch.testing.assert_close(found["old.image"][0], other(x)[0].detach(), rtol=0, atol=1e-6)
        assert not found["old.image"][0].requires_grad and not torch.allclose(found["old.image"][0], found["image"][0])


def test_weights_come_from_an_open_clip_checkpoint(tmp_path):
    import open_clip

    theirs = open_clip.CustomTextCLIP(
        embed_dim=8,
        vision_cfg={"image_size": 8, "patch_size": 4, "width": 16, "layers": 1, "head_width": 8},
        text_cfg={"context_length": 4, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1},
    )
    torch.save(theirs.state_dict(), tmp_path / "theirs.pt")
    assert torch.equal(taught(tmp_path / "theirs.pt")["image"].encoder.visual.proj, theirs.visual.proj)


def test_a_teacher_of_another_architecture_is_refused_with_the_first_weight(tmp_path):
    save_file({f"towers.image.{n}": v for n, v in tower(1).state_dict().items()}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"of image: towers.image.\S+ is \(.*16.*\), the tower's is \(.*24"):
        taught(tmp_path / "w.safetensors", width=24)
    with pytest.raises(CheckpointError, match="no such weights file"):
        taught(tmp_path / "absent.safetensors")
    with pytest.raises(CheckpointError, match="neither a commit nor a run"):
        taught(tmp_path)


def test_a_teacher_never_trains_and_costs_nothing_where_there_is_none():
    student = model({"image": tower(0)}, {"ema": Teacher(Ema(0.5), {"image": tower(0)})})
    student.train()
    assert student.towers.training and not student.teachers["ema"].training
    assert {p.requires_grad for p in student.teachers.parameters()} == {False}
    assert student.taught == {"ema.image": "image"} and model({"image": tower(0)}, {}).taught == {}
