"""Texts and pictures of a sample through an open_clip model: prompts averaged, what is missing left out."""

import io

import numpy as np
import pytest
from PIL import Image

from distpre.data.source import Source
from distpre.errors import DataError
from tests.data.tars import tar
from tools.embed_sources import Clip, Wanted, open_clip_model, write

WORDS = ["red", "chair", "photo", "of"]


def vector(text: str) -> np.ndarray:
    x = np.array([float(text.split().count(word)) for word in WORDS])
    return x / np.linalg.norm(x)


def png(grey: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((2, 2), grey, np.uint8)).save(out, "png")
    return out.getvalue()


CLIP = Clip(
    lambda said: np.stack([vector(t) for t in said]), lambda seen: np.stack([[x[0, 0], 1.0] for x in seen]), "a model"
)
WANTED = Wanted(
    {"raw": "txt", "found": "found.txt"},
    {"thumbnail": "thumb.png", "renders": "render_*.png"},
    {"flagged": "json.bad"},
    ("{}", "photo of {}"),
    ("found",),
)


def test_a_sample_gains_the_vectors_of_what_it_has(tmp_path):
    members = [
        ("0.txt", b"red chair"),
        ("0.found.txt", b"chair\n\nred\n"),
        ("0.json", b'{"bad": 1}'),
        ("0.render_1.png", png(9)),
        ("0.render_0.png", png(7)),
        ("1.thumb.png", png(5)),
    ]
    shard = str(tar(tmp_path / "train-000.tar", members))
    assert write(CLIP, WANTED, [shard], tmp_path / "out").startswith("wrote 2 samples")
    fields = {"text": "text.npz", "image": "image.npz", "said": "txt"}
    first, second = Source.open(str(tmp_path / "out/train-000.tar"), fields, optional=["text", "said"]).samples()
    text, image = first.fields["text"], first.fields["image"]
    mean = vector("red chair") + vector("photo of red chair")
    np.testing.assert_allclose(text["raw"], [mean / np.linalg.norm(mean)], rtol=1e-6)
    np.testing.assert_allclose(text["found"], [vector("chair"), vector("red")], rtol=1e-6)  # no prompts
    assert text["flagged"] == 1 and first.fields["said"] == "red chair"
    assert set(image) == {"renders"} and image["renders"][:, 0].tolist() == [7, 9]
    assert "text" not in second.fields and set(second.fields["image"]) == {"thumbnail"}


def test_weights_that_are_not_there_are_not_fetched(tmp_path):
    with pytest.raises(DataError, match="there is no such file"):
        open_clip_model("ViT-B-32", "laion2b_s34b_b79k")
