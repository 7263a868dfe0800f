"""The graph of a body and its convolution: against the papers' partition, and what must not matter."""

import pytest
import torch

from distpre.errors import RecipeError
from distpre.towers.encoders.skeleton import BODY, StGcn, graph

SMALL = {"channels": 3, "parents": [-1, 0, 1, 0], "widths": [8, 16], "strides": [1, 2], "kernel": 3}


def test_a_joint_hears_itself_its_children_and_its_parent_in_shares_of_one():
    """ST-GCN's spatial partition on the released body: same distance from the root, farther, nearer, by loops."""
    shares, n = graph(list(BODY)), len(BODY)
    depth = [0] * n
    for joint in range(1, n):
        depth[joint] = depth[BODY[joint]] + 1
    for w in range(n):
        near = [v for v in range(n) if v == w or BODY[v] == w or BODY[w] == v]
        for v in range(n):
            part = 0 if v == w else 1 if depth[v] > depth[w] else 2
            expect = [1 / len(near) if v in near and part == k else 0 for k in range(3)]
            assert shares[:, v, w].tolist() == pytest.approx(expect)
    torch.testing.assert_close(shares.sum((0, 1)), torch.ones(n))


def test_size_layers_and_stride_are_the_released_ones():
    encoder = StGcn()
    assert len(encoder.blocks) == 10 and encoder.width == 512
    x, seen = torch.randn(1, 22, 3, 40), []
    encoder.blocks[-1].register_forward_hook(lambda module, given, out: seen.append(out.shape))
    assert encoder(x)[0].shape == (1, 512) and seen == [(1, 512, 10, 22)]


def test_a_row_does_not_depend_on_its_neighbours_and_every_parameter_learns():
    encoder, x = StGcn(**SMALL).train(), torch.randn(5, 4, 3, 20)
    pooled, taps = encoder(x)
    assert pooled.shape == (5, 16) and taps == {}
    torch.testing.assert_close(encoder(x[1:3])[0], pooled[1:3], rtol=1e-4, atol=1e-5)
    (pooled * torch.randn_like(pooled)).sum().backward()
    assert not [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_one_block_carries_motion_one_joint_far():
    block, graph_of = StGcn(**SMALL).blocks[0], graph(SMALL["parents"])
    x = torch.randn(1, 3, 20, 4)
    moved = x.clone()
    moved[..., 2] += 1  # a grandchild of the root
    each = [block.spread(v).unflatten(1, (3, -1)) for v in (x, moved)]
    out = [torch.einsum("bkctv,kvw->bctw", e, graph_of * block.importance) for e in each]
    assert (out[0] != out[1]).any(1).any(1)[0].tolist() == [False, True, True, False]


def test_what_is_no_tree_or_another_body_is_refused():
    for parents in ([0, 0], [-1, -1], [-1, 2, 1], [-1, 5]):
        with pytest.raises(RecipeError, match="are no tree"):
            graph(parents)
    with pytest.raises(RecipeError, match="5 joints where `parents` names 4"):
        StGcn(**SMALL)(torch.randn(1, 5, 3, 20))
    with pytest.raises(RecipeError, match="multiples of 8"):
        StGcn(widths=[12], strides=[1])
