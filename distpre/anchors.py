"""Anchors: frozen vectors of classes, made once, that points and other parts of samples are held to and named by."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from distpre.errors import RecipeError

REMEDY = "Make it with `python -m tools.anchors`."


@dataclass(frozen=True)
class Anchors:
    """vectors: (c, d) float32, unit; classes: their names. A file holds `anchors` and, as metadata, `classes`."""

    vectors: Tensor
    classes: tuple[str, ...]

    @classmethod
    def read(cls, path: str | Path) -> Anchors:
        """Raises RecipeError for a file that is absent or no such file."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), "pt") as file:
                vectors, said = file.get_tensor("anchors").float(), file.metadata() or {}
            classes = tuple(json.loads(said["classes"]))
        except (OSError, SafetensorError, KeyError, ValueError) as e:
            raise RecipeError(f"anchors: {path} cannot be read: {type(e).__name__}: {e}.", REMEDY) from e
        lengths = vectors.norm(dim=-1)
        if vectors.ndim != 2 or len(vectors) != len(classes) or not bool((lengths.isfinite() & (lengths > 0)).all()):
            what = f"anchors: {path} holds vectors {tuple(vectors.shape)} of {len(classes)} classes"
            raise RecipeError(f"{what}; each class has one vector of a finite length above 0.", REMEDY)
        return cls(F.normalize(vectors, dim=-1), classes)

    def write(self, path: str | Path) -> None:
        from safetensors.torch import save_file

        Path(path).parent.mkdir(parents=True, exist_ok=True)
        save_file({"anchors": self.vectors.float().contiguous()}, str(path), {"classes": json.dumps(self.classes)})

    def of(self, x: Tensor) -> Tensor:
        """The vectors (c, d), in the dtype and on the device of parts x (b, k, d). Raises RecipeError for another d."""
        if x.ndim != 3 or x.shape[2] != self.vectors.shape[1]:
            raise RecipeError(
                f"anchors: {tuple(self.vectors.shape)} for embeddings {tuple(x.shape)}; it asks for (b, k, d).",
                "Give the head the anchors' width, and the tower an encoder of parts (point_graph).",
            )
        return self.vectors.to(x)


def likest(x: Tensor, vectors: Tensor) -> Tensor:
    """(..., d) -> (...) int64: the anchor with the largest product."""
    with torch.no_grad():
        return (x @ vectors.T).argmax(-1)
