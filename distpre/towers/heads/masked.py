"""The decoder of a masked autoencoder: a head, since it has parameters (He et al. 2022, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distpre.towers.encoders.tubelets import places, rows, start


class MaskedDecoder(nn.Module):
    """Pooled (b, w) as it is and, while training, what the hidden tubelets look like to the encoder `tubelets`.

    pixels: of a tubelet, of each kind of view (volumes, single frames), which have a last matrix each. All tubelets
    pass its blocks: seen ones as the encoder says, hidden ones as one learned vector, each with the encoder's position
    through a matrix. taps: predicted (b, hidden, pixels); target, likewise; hidden (b, hidden), which they are.
    """

    def __init__(self, pixels: list[int], width: int = 512, layers: int = 8, heads: int = 16):
        super().__init__()
        self.pixels, self.inner, self.layers, self.heads = pixels, width, layers, heads

    def build(self, width: int) -> None:
        from timm.models.vision_transformer import Block

        self.width = width
        self.enter, self.place = nn.Linear(width, self.inner), nn.Linear(width, self.inner, bias=False)
        self.blank = nn.Parameter(torch.randn(self.inner) * 0.02)
        self.blocks = nn.ModuleList(Block(self.inner, self.heads, qkv_bias=True) for _ in range(self.layers))
        self.norm = nn.LayerNorm(self.inner)
        self.paint = nn.ModuleDict({str(pixels): nn.Linear(self.inner, pixels) for pixels in self.pixels})
        self.apply(start)

    def forward(self, pooled: Tensor, taps: dict[str, Tensor]) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        if not self.training:
            return pooled
        entered, hidden, pixels = self.enter(taps["tokens"]), places(~taps["seen"]), taps["pixels"]
        n = pixels.shape[1]
        x = self.blank.to(entered.dtype).expand(len(pixels), n, -1)
        x = x.scatter(1, taps["at"][..., None].expand(-1, -1, self.inner), entered[:, 1:])
        x = torch.cat([entered[:, :1], x + self.place(taps["positions"][:1])], 1)
        for block in self.blocks:
            x = block(x)
        predicted = self.paint[str(pixels.shape[2])](rows(self.norm(x)[:, 1:], hidden))
        return pooled, {"predicted": predicted, "target": rows(pixels, hidden), "hidden": hidden}
