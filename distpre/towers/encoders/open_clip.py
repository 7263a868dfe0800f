"""The image and text towers of open_clip, by model name or by config; nothing is fetched.

Source: open-clip-torch, open_clip.model.CustomTextCLIP. Each class keeps the tower's own parameter names, so a tower
here and the same tower in open_clip exchange weights without renaming (distpre.export).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from distpre.errors import RecipeError
from distpre.towers.weights import load_tower

# The half of a CLIP that is not wanted still has to be built: this one costs nothing.
TINY = {
    "vision_cfg": {"image_size": 8, "patch_size": 8, "width": 8, "layers": 1, "head_width": 8},
    "text_cfg": {"context_length": 4, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1},
}


class OpenClipImage(nn.Module):
    """(b, 3, h, w) floats -> (b, embed_dim).

    model: an open_clip model's name ("ViT-B-32"), or config: keywords of its CLIPVisionCfg, with embed_dim.
    weights: a local open_clip checkpoint (.pt read with weights_only, or .safetensors) to start from.
    """

    part = "visual"

    def __init__(
        self,
        model: str | None = None,
        config: dict[str, Any] | None = None,
        embed_dim: int | None = None,
        weights: str | None = None,
    ):
        super().__init__()
        self.config = tower_config("vision_cfg", model, config, embed_dim)
        self.visual = build_clip(self.config, "vision_cfg").visual
        self.width = self.config["embed_dim"]
        if weights:
            load_tower(self.visual, weights, part=self.part)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self.visual(x), {}


class OpenClipText(nn.Module):
    """(b, context) int64 tokens -> (b, embed_dim). Keywords as OpenClipImage's, config of CLIPTextCfg."""

    part = "text"

    def __init__(
        self,
        model: str | None = None,
        config: dict[str, Any] | None = None,
        embed_dim: int | None = None,
        weights: str | None = None,
    ):
        super().__init__()
        self.config = tower_config("text_cfg", model, config, embed_dim)
        self.text = build_clip(self.config, "text_cfg").text
        self.width = self.config["embed_dim"]
        if weights:
            load_tower(self.text, weights, part=self.part)

    def forward(self, tokens: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self.text(tokens), {}


def tower_config(part: str, model: str | None, config: dict[str, Any] | None, embed_dim: int | None) -> dict[str, Any]:
    """{embed_dim, quick_gelu, part: {...}}, from the model's published config with `config` laid over it."""
    import open_clip

    whole: dict[str, Any] = {"embed_dim": embed_dim, part: {}}
    if model is not None:
        known = open_clip.get_model_config(model)
        if known is None:
            import difflib

            near = difflib.get_close_matches(model, open_clip.list_models(), 3)
            raise RecipeError(
                f"open_clip has no model {model!r}.",
                f"Nearest: {', '.join(near) or 'none'}; all of them: python -c "
                "'import open_clip; print(open_clip.list_models())'.",
            )
        whole = {**known, "embed_dim": embed_dim or known["embed_dim"]}
    if whole["embed_dim"] is None:
        raise RecipeError(f"The encoder's {part} has no embed_dim.", "Give `model`, or `config` and `embed_dim`.")
    merged = {**whole[part], **(config or {})}
    if merged.get("hf_model_name"):
        merged["hf_model_pretrained"] = False  # never fetched in the dark
    if merged.get("timm_model_name"):
        merged["timm_model_pretrained"] = False
    return {"embed_dim": whole["embed_dim"], "quick_gelu": whole.get("quick_gelu", False), part: merged}


def build_clip(config: dict[str, Any], part: str) -> nn.Module:
    """An open_clip CustomTextCLIP whose `part` is as configured; unknown keys of the config are refused."""
    import open_clip

    try:
        return open_clip.CustomTextCLIP(**{**TINY, **config})
    except (TypeError, AssertionError) as e:
        raise RecipeError(f"open_clip cannot build {part} {config[part]}: {e}.", "Mend the encoder's `config`.") from e
