"""Any timm vision model by name, without its classifier."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from distpre.errors import RecipeError


class Timm(nn.Module):
    """(b, c, h, w) floats -> (b, num_features), timm's pooled features before the classifier.

    model: a timm model name; config: more keywords of timm.create_model (img_size, in_chans, drop_path_rate ...);
    weights: a local checkpoint file; fetch: take timm's pretrained weights from its hub.
    """

    def __init__(
        self, model: str, config: dict[str, Any] | None = None, weights: str | None = None, fetch: bool = False
    ):
        super().__init__()
        import timm

        if not timm.is_model(model.split(".")[0]):
            import difflib

            near = difflib.get_close_matches(model, timm.list_models(), 3)
            raise RecipeError(f"timm has no model {model!r}.", f"Nearest: {', '.join(near) or 'none'}.")
        self.net = timm.create_model(
            model, pretrained=fetch, num_classes=0, checkpoint_path=weights or "", **(config or {})
        )
        self.width = self.net.num_features

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self.net(x), {}
