"""A run's weights for other programs: `python -m distpre.export RUN --to open_clip|safetensors`.

open_clip: a folder with open_clip_config.json and open_clip_model.safetensors, which open_clip.create_model loads as
"local-dir:FOLDER". safetensors: one file of the whole model under distpre's own names.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from distpre.errors import CheckpointError, program
from distpre.recipe import Recipe, resolved
from distpre.runtime import build, commit
from distpre.towers.encoders.open_clip import OpenClipImage, OpenClipText
from distpre.towers.model import Model

TARGETS = ("open_clip", "safetensors")


def export(run_dir: str | Path, to: str, out: str | Path | None = None) -> Path:
    """Writes RUN's newest commit in the form `to`, by default into RUN/export/; returns the file or folder.

    Raises CheckpointError if RUN has no commit, or if its towers are not one open_clip image and one text tower.
    """
    found, _ = commit.newest_whole(run_dir, lambda text: print(text, file=sys.stderr), commit.WEIGHTS)
    if found is None:
        raise CheckpointError(f"{run_dir} holds no commit.", "Train it first, or name another run folder.")
    weights = {name: w for name, w in found.weights().items() if not name.startswith("teachers.")}
    if to == "safetensors":
        path = Path(out or Path(run_dir, "export", "model.safetensors"))
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(weights, path, metadata={"step": str(found.step)})
        return path
    recipe = resolved(Path(run_dir, "recipe.yaml").read_text())
    folder = Path(out or Path(run_dir, "export", "open_clip"))
    model = build.model(recipe.model_copy(update={"teachers": {}}), fresh=False)
    model.load_state_dict(weights)
    config, state = to_open_clip(model, recipe)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2))
    return folder


def to_open_clip(model: Model, recipe: Recipe) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(open_clip_config.json's content, the state dict of its CustomTextCLIP)."""
    image, text = _only(model, OpenClipImage), _only(model, OpenClipText)
    clip = {
        "embed_dim": image.config["embed_dim"],
        "quick_gelu": image.config["quick_gelu"],
        "custom_text": True,
        "vision_cfg": image.config["vision_cfg"],
        "text_cfg": text.config["text_cfg"],
    }
    state = {f"visual.{k}": v for k, v in image.visual.state_dict().items()}
    state |= {f"text.{k}": v for k, v in text.text.state_dict().items()}
    scale = next(iter(model.scales.values()))
    state["logit_scale"] = scale.log.detach().clamp(max=scale.bound).squeeze(0)
    if scale.bias is not None:
        clip["init_logit_bias"] = 0.0
        state["logit_bias"] = scale.bias.detach().squeeze(0)
    return {"model_cfg": clip, "preprocess_cfg": _preprocessing(model, recipe, image)}, {
        k: v.contiguous().clone() for k, v in state.items()
    }


def _only(model: Model, kind: type) -> Any:
    """The one encoder of a kind, in a tower without a head."""
    found = [t for t in model.towers.values() if isinstance(t.encoder, kind) and t.head is None]
    if len(found) != 1 or len(model.scales) == 0:
        raise CheckpointError(
            f"open_clip holds one image tower, one text tower and a logit scale; this run has {len(found)} headless "
            f"tower(s) of kind {kind.__name__} and {len(model.scales)} scale(s).",
            "Export it with --to safetensors.",
        )
    return found[0].encoder


def _preprocessing(model: Model, recipe: Recipe, image: OpenClipImage) -> dict[str, Any]:
    """Mean and std of the image view's to_tensor op, so that open_clip's transform gives the tower what it saw."""
    view = next(v for v, tower in model.tower_of.items() if model.towers[tower].encoder is image)
    spec = recipe.views[view]
    for op in spec.eval_ops if spec.eval_ops is not None else spec.ops:
        keywords = op.keywords()
        if op.name == "to_tensor" and "mean" in keywords:
            return {key: list(keywords[key]) * (3 // len(keywords[key])) for key in ("mean", "std") if key in keywords}
    return {}


@program
def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m distpre.export", description=__doc__)
    parser.add_argument("run", help="a run folder")
    parser.add_argument("--to", choices=TARGETS, required=True)
    parser.add_argument("--out", help="where to write; default: RUN/export/")
    arguments = parser.parse_args()
    print(export(arguments.run, arguments.to, arguments.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
