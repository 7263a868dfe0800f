"""The global contrast: rows of every rank against columns of every rank, exact, without a B-by-B matrix.

N ranks, b pairs a rank, B = N·b. Rows x_i, columns y_j; logits l_ij = s·<x_i, y_j> + β + r_i + c_j (scale, bias,
log-weights of row and column). A target rule gives each pair the log-weight a_ij of its target, -inf for a negative,
and may remove pairs (they leave every sum). In one direction, say a row's, the sweep returns

    negatives_i = log Σ_j exp(l_ij) over negatives        positives_i = the same over positives
    target_i    = Σ_j q_ij l_ij,   q_ij = exp(a_ij) / Σ_j exp(a_ij)

and every loss is arithmetic on such (b,) vectors: cross-entropy is log(exp(negatives) + exp(positives)) - target, and
Direction.loss has its relatives; a bank's negatives are merged into negatives. The sigmoid puts Σ softplus(l) and
Σ softplus(-l) in the place of the logarithms. Rules differ in a_ij only, and speak tile by tile, from O(b) vectors.

Forward: ranks lie on a grid of R by C (layout.py). Each gathers the rows of its grid row and the columns of its grid
column, b·(R + C) vectors, and sweeps that block once, in tiles; one product serves both directions. Statistics of rows
are merged along the grid row, of columns along the grid column: maximum, then sum of exponentials.

Backward: with g the gradient of a loss by a row's three figures, h by a column's,

    G_ij = g⁻_i p⁻_ij + g⁺_i p⁺_ij + gᵗ_i q_ij + (the same with h, over columns),    p_ij = exp(l_ij) / Σ_k exp(l_ik)
    dX = s·G Y        dY = s·Gᵀ X        ds = Σ_i <x_i, dX_i> / s        dβ = Σ_ij G_ij

in a second sweep that computes each tile again (8·b·B·d FLOP in all; 6 where the tiles fit a budget and stay). dX is
reduce-scattered along the grid row and dY along the grid column. Own pairs (k, k) of one rank lie on that rank: where
they are the only positives the sweep leaves them out and plain autograd finishes them in O(b·d).

Contents tables: the name a recipe uses -> module:Class.
"""

from distpre.contrast.block import Block, Contrast, Direction, joined
from distpre.contrast.primitive import contrast

TARGETS = {
    "own_pair": "distpre.contrast.targets:OwnPair",  # CLIP, InfoNCE
    "same_id": "distpre.contrast.targets:SameId",  # SupCon (Khosla et al. 2020), duplicates-aware
    "other_id": "distpre.contrast.targets:OtherId",  # own pair; same id removed (false negatives)
    "true_negatives": "distpre.contrast.targets:TrueNegatives",  # own pair; what looks as right removed (OpenShape)
    "other_view": "distpre.contrast.targets:OtherView",  # NT-Xent (Chen et al. 2020), SupCon in one modality
    "label_similarity": "distpre.contrast.targets:LabelSimilarity",  # SoftCon
    "mixed": "distpre.contrast.targets:Mixed",  # i-Mix, CLIP-Mixup
    "smoothed": "distpre.contrast.targets:Smoothed",  # NEVLP, label smoothing
    "dropped": "distpre.contrast.targets:Dropped",  # the pairs that look wrong, left out
    "teacher": "distpre.contrast.targets:Teacher",  # Mod-X, distillation
}
SIMILARITIES = {
    "dot": "distpre.contrast.similarity:Dot",
    "gated_subspace": "distpre.contrast.similarity:GatedSubspace",  # SimLAP
    "max_mean": "distpre.contrast.similarity:MaxMean",  # FILIP, SECLA
}
BANKS = {
    "queue": "distpre.contrast.banks:Queue",  # MoCo
    "hard_mixing": "distpre.contrast.banks:HardMixing",  # MoCHi
    "static": "distpre.contrast.banks:StaticBank",
}

__all__ = ["Block", "Contrast", "Direction", "contrast", "joined", "TARGETS", "SIMILARITIES", "BANKS"]
