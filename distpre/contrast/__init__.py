"""The global contrast: rows of every rank against columns of every rank, exact, without a B-by-B matrix.

N ranks, b pairs a rank, B = N·b. Rows x_i, columns y_j, logits l_ij = s·<x_i, y_j>. With pair weights w_ij >= 0,
W_i = Σ_j w_ij and V_j = Σ_i w_ij:

    row loss_i    = lse_j(l_ij) - Σ_j (w_ij / W_i) l_ij          (cross-entropy against the normalised weights)
    column loss_j = lse_i(l_ij) - Σ_i (w_ij / V_j) l_ij

Forward: every rank gathers the columns once and sweeps its b-by-B block in tiles; rows finish locally, columns by
merging log-sum-exps over ranks. Backward: with g_i, h_j the gradients of the two losses and p, q the softmax of rows
and columns,

    G_ij = g_i (p_ij - w_ij / W_i) + h_j (q_ij - w_ij / V_j),    dX = s·G Y,    dY = s·Gᵀ X,    ds = Σ_i <x_i, dX_i> / s

in a second sweep that computes each tile again. dY is summed over ranks by a reduce-scatter. A row or column that is
absent is removed before every sum (minus infinity in the logits): it is no positive, no negative, and gets no gradient.

Contents tables: the name a recipe uses -> module:Class.
"""

from distpre.contrast.sweep import Block, Contrast, contrast

TARGETS = {
    "own_pair": "distpre.contrast.targets:OwnPair",  # CLIP, InfoNCE
    "same_id": "distpre.contrast.targets:SameId",  # SupCon (Khosla et al. 2020), duplicates-aware
}
SIMILARITIES: dict[str, str] = {}
BANKS: dict[str, str] = {}

__all__ = ["Block", "Contrast", "contrast", "TARGETS", "SIMILARITIES", "BANKS"]
