"""Any timm vision model by name, without its classifier."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from distpre.errors import RecipeError


class Timm(nn.Module):
    """(b, c, h, w) floats -> (b, num_features), timm's pooled features before the classifier.

    model: a timm model name; config: more keywords of timm.create_model (img_size, in_chans, drop_path_rate ...);
    weights: a local checkpoint file; fetch: take timm's pretrained weights from its hub. drop_key: of a transformer,
    with which probability a query, in a head, does without a key while training (DropKey, Li et al. 2023, alg. 1).
    """

    def __init__(
        self,
        model: str,
        config: dict[str, Any] | None = None,
        weights: str | None = None,
        fetch: bool = False,
        drop_key: float = 0.0,
    ):
        super().__init__()
        self.net = built(model, config, weights, fetch)
        if drop_key:
            drop_keys(self.net, drop_key)
        self.width = self.net.num_features

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self.net(x), {}


class TimmStem1d(nn.Module):
    """(b, channels, samples) floats -> (b, num_features): convolutions over time in the place of a timm ViT's patches.

    stem: [[width, kernel, stride], ...], each a convolution without padding, ReLU and GroupNorm of one group. Its
    places must be as many as the model's patches, so that the table of places stays, and its last width the model's.
    MoRE (2024): [[256, 5, 5], [768, 5, 1]] makes of 12 x 1000 the 196 tokens of vit_base_patch16_224; its released code
    normalises over the batch, which would change with the number of ranks. Other keywords: as Timm's.
    """

    def __init__(
        self,
        model: str,
        channels: int,
        samples: int,
        stem: list[tuple[int, int, int]],
        config: dict[str, Any] | None = None,
        weights: str | None = None,
        fetch: bool = False,
        drop_key: float = 0.0,
    ):
        super().__init__()
        self.net = built(model, config, weights, fetch)
        layers: list[nn.Module] = []
        for width, kernel, stride in stem:
            layers += [nn.Conv1d(channels, width, kernel, stride), nn.ReLU(), nn.GroupNorm(1, width)]
            channels, samples = width, (samples - kernel) // stride + 1
        wanted = (getattr(getattr(self.net, "patch_embed", None), "num_patches", 0), self.net.num_features)
        if (samples, channels) != wanted:
            raise RecipeError(
                f"timm_stem1d: the stem makes {samples} tokens of width {channels}; {model} has {wanted[0]} patches of "
                f"width {wanted[1]}.",
                "Change the stem, or the model's `config` (img_size: [1, TOKENS], patch_size: 1, embed_dim).",
            )
        self.net.patch_embed = nn.Sequential(*layers, _Tokens())
        if drop_key:
            drop_keys(self.net, drop_key)
        self.width = self.net.num_features

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self.net(x), {}


class _Tokens(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mT


def built(model: str, config: dict[str, Any] | None, weights: str | None, fetch: bool) -> nn.Module:
    """A timm model without its classifier. Raises RecipeError for a name that timm has not."""
    import timm

    if not timm.is_model(model.split(".")[0]):
        import difflib

        near = difflib.get_close_matches(model, timm.list_models(), 3)
        raise RecipeError(f"timm has no model {model!r}.", f"Nearest: {', '.join(near) or 'none'}.")
    return timm.create_model(model, pretrained=fetch, num_classes=0, checkpoint_path=weights or "", **(config or {}))


def drop_keys(net: nn.Module, p: float) -> None:
    """Raises RecipeError for a model without timm's attention."""
    import inspect

    from timm.models.vision_transformer import Attention

    found = [m for m in net.modules() if isinstance(m, Attention)]
    if not found or "attn_mask" not in inspect.signature(Attention.forward).parameters:
        raise RecipeError("drop_key: this model has no attention of timm's that takes a mask.", "Leave drop_key out.")
    for attention in found:
        attention.register_forward_pre_hook(functools.partial(_dropped, p), with_kwargs=True)


def _dropped(p: float, attention: nn.Module, given: tuple, keywords: dict) -> tuple[tuple, dict] | None:
    if not attention.training:
        return None
    b, n = given[0].shape[:2]
    gone = torch.rand(b, attention.num_heads, n, n, device=given[0].device) < p
    return given, {**keywords, "attn_mask": gone.to(given[0].dtype) * -1e12}
