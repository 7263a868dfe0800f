"""Any encoder of the transformers library for text: by config, by local folder, or by name when fetching is allowed."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from distpre.errors import RecipeError
from distpre.types import Padded


class TransformersText(nn.Module):
    """Padded (or plain) int64 tokens (b, n) -> (b, hidden_size).

    model: a local folder, or a hub name with fetch: true; or config: {model_type: bert, hidden_size: ...}, random
    weights. pool: "mean" over real tokens, or "first" (the CLS token). pad: the id that fills plain token rows.
    """

    def __init__(
        self,
        model: str | None = None,
        config: dict[str, Any] | None = None,
        pool: str = "mean",
        pad: int = 0,
        fetch: bool = False,
    ):
        super().__init__()
        if pool not in ("mean", "first"):
            raise RecipeError(f"transformers_text: pool is {pool!r}.", 'It may be "mean" or "first".')
        from transformers import AutoConfig, AutoModel

        try:
            if model is not None:
                self.net = AutoModel.from_pretrained(model, local_files_only=not fetch, **(config or {}))
            else:
                self.net = AutoModel.from_config(AutoConfig.for_model(**(config or {})))
        except (OSError, ValueError, TypeError) as e:
            first = str(e).strip().splitlines()[0]
            raise RecipeError(
                f"transformers_text: cannot build {model or config}: {first}",
                "Give a local folder, or `config` with a `model_type`, or `fetch: true` to download by name.",
            ) from e
        self.pool, self.pad = pool, pad
        self.width = self.net.config.hidden_size

    def forward(self, x: Tensor | Padded) -> tuple[Tensor, dict[str, Tensor]]:
        tokens, mask = (x.values, x.mask) if isinstance(x, Padded) else (x, x != self.pad)
        hidden = self.net(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        if self.pool == "first":
            return hidden[:, 0], {}
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1), {}
