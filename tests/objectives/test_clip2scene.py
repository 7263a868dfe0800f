"""CLIP2Scene's terms by their formulas, point by point, and the same at any number of ranks, ragged ones too."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from distpre.anchors import Anchors
from distpre.contrast.targets import SameId
from distpre.errors import RecipeError
from distpre.objectives.anchored import Anchored
from distpre.objectives.contrast import PairContrast
from distpre.objectives.group_consistency import GroupConsistency
from distpre.objectives.of_parts import OfParts
from distpre.schedule import Constant, Steps, drawn
from distpre.types import Batch, Embedding, Step
from tests.ranks import ranks

B, K, C, D = 5, 7, 4, 6
LABEL = {"label": "label"}
GROUPS = {"label": "label", "group": "group"}
TEMPERATURE = 0.25  # its inverse is exact in fp32
SHARES = {1: [5], 2: [4, 1], 3: [3, 0, 2]}


def whole(seed: int = 0, index: int = 0) -> Step:
    """Five scenes of seven points; the second is a substitute. No point is of class 3, some are of none."""
    g = torch.Generator().manual_seed(seed)
    said = torch.randn(B, K, D, generator=g, dtype=torch.float64)
    views = {
        "label": torch.randint(-1, C - 1, (B, K), generator=g),
        "group": torch.randint(-1, 3, (B, K), generator=g),
        "pixels": torch.randn(B, K, D, generator=g, dtype=torch.float64),
    }
    views["label"][4], views["label"][3, views["group"][3] == 0] = -1, -1  # a scene, and a group, without a label
    weight = torch.tensor([1.0, 0, 1, 1, 1], dtype=torch.float64)
    said.requires_grad_()
    student = {"points": Embedding(F.normalize(said, dim=2), {"said": said})}
    student["pixels"] = Embedding(F.normalize(views["pixels"], dim=2))
    return Step(Batch(views, {}, torch.arange(B), weight), student, {}, {}, index, 10)


def cut(step: Step, part: slice) -> Step:
    """One rank's scenes; `said` is a leaf of its own."""
    batch = step.batch._map(lambda x: x[part])
    said = step.student["points"].taps["said"].detach()[part].clone().requires_grad_()
    pixels = Embedding(step.student["pixels"].vector[part])
    points = Embedding(F.normalize(said, dim=2), {"said": said})
    return replace(step, batch=batch, student={"points": points, "pixels": pixels})


@pytest.fixture(scope="module")
def anchors(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("anchors") / "four.safetensors"
    vectors = torch.randn(C, D, generator=torch.Generator().manual_seed(1))
    Anchors(vectors, ("floor", "ball", "box", "unseen")).write(path)
    return str(path)


def texts(path: str) -> torch.Tensor:
    return Anchors.read(path).vectors.double()


def labelled(s: Step, t: torch.Tensor, own: bool) -> list[tuple[int, int, int]]:
    """(scene, point, class) of the points that have one."""
    x, label = s.student["points"].vector, s.batch.views["label"]
    found = [(b, k, int(label[b, k])) for b in (0, 2, 3, 4) for k in range(K) if label[b, k] >= 0]
    return [(b, k, int((t @ x[b, k]).argmax()) if own else c) for b, k, c in found]


def over_parts(s: Step, t: torch.Tensor, own: bool = False) -> torch.Tensor:
    x, points, loss = s.student["points"].vector, labelled(s, t, own), 0
    for c in range(C):
        scores = [torch.exp(t[c] @ x[b, k] / TEMPERATURE) for b, k, _ in points]
        right = [score for score, (_, _, of) in zip(scores, points, strict=True) if of == c]
        loss = loss - torch.log(sum(right) / sum(scores)) if right else loss
    return loss


def over_classes(s: Step, t: torch.Tensor, own: bool = False) -> torch.Tensor:
    x, points = s.student["points"].vector, labelled(s, t, own)
    return -sum(torch.log_softmax(t @ x[b, k] / TEMPERATURE, 0)[c] for b, k, c in points) / len(points)


def released(s: Step, t: torch.Tensor) -> torch.Tensor:
    x, points = s.student["points"].taps["said"], labelled(s, t, False)
    return -sum(torch.log_softmax(t @ x[b, k], 0)[c] for b, k, c in points) / len(points)


def groups(s: Step, t: torch.Tensor, pixels: bool = False, second: bool = False) -> torch.Tensor:
    x, sees, group = s.student["points"].vector, s.student["pixels"].vector, s.batch.views["group"]
    x = s.student["points"].taps["said"] if second else x
    loss, count = 0, 0
    for scene in (0, 2, 3, 4):
        points = [(k, c) for b, k, c in labelled(s, t, False) if b == scene]
        for number in range(3):
            members, classes = [], []
            for k, c in points:
                if group[scene, k] == number:
                    members, classes = [*members, k], [*classes, c]
            if not members:
                continue
            text = t[max(range(C), key=lambda c, classes=classes: (classes.count(c), -c))]
            items = [x[scene, k] for k in members] + [sees[scene, k] for k in members if pixels]
            weights = torch.softmax(torch.stack([item @ text for item in items]) / TEMPERATURE, 0)
            fused = sum(w * item for w, item in zip(weights, items, strict=True))
            for k in members:
                loss, count = loss + 1 - torch.sigmoid(x[scene, k] @ fused), count + 1
    return loss / count


def pixel_pairs(s: Step, t: torch.Tensor) -> torch.Tensor:
    points = labelled(s, t, False)
    x, y = (torch.stack([s.student[v].vector[b, k] for b, k, _ in points]) for v in ("points", "pixels"))
    return F.cross_entropy(x @ y.T / TEMPERATURE, torch.arange(len(points)))


HEAT = {"temperature": Constant(TEMPERATURE)}
ITSELF = {"own": Constant(1.0)}
TERMS = {
    "over_parts": (lambda a: Anchored("points", a, LABEL, **HEAT), over_parts),
    "over_classes": (lambda a: Anchored("points", a, LABEL, over="classes", **HEAT), over_classes),
    "released": (
        lambda a: Anchored("points", a, LABEL, over="classes", temperature=Constant(1.0), tap="said"),
        released,
    ),
    "itself": (lambda a: Anchored("points", a, LABEL, **HEAT, **ITSELF), partial(over_parts, own=True)),
    "groups": (lambda a: GroupConsistency("points", a, GROUPS, TEMPERATURE), groups),
    "groups_and_pixels": (
        lambda a: GroupConsistency("points", a, {**GROUPS, "pixels": "pixels"}, TEMPERATURE),
        partial(groups, pixels=True),
    ),
    "groups_of_a_tap": (
        lambda a: GroupConsistency("points", a, GROUPS, TEMPERATURE, tap="said"),
        partial(groups, second=True),
    ),
    "pixel_pairs": (
        lambda a: OfParts(["points", "pixels"], PairContrast("points", "pixels", symmetric=False, **HEAT), LABEL),
        pixel_pairs,
    ),
}


def gradients(loss: torch.Tensor, s: Step) -> list[torch.Tensor]:
    return [loss.detach(), torch.autograd.grad(loss, s.student["points"].taps["said"])[0]]


def shared_out(path: str) -> dict[str, list[torch.Tensor]]:
    """On a rank: loss and gradient of every term, of this rank's scenes."""
    if not dist.is_initialized():
        dist.init_process_group("gloo")
    sizes, rank = SHARES[dist.get_world_size()], dist.get_rank()
    found = {}
    for name, (make, _) in TERMS.items():
        mine = cut(whole(), slice(sum(sizes[:rank]), sum(sizes[: rank + 1])))
        found[name] = gradients(make(path)(mine).loss, mine)
    return found


@pytest.mark.cluster
@pytest.mark.parametrize("world", [1, 2, 3])
def test_losses_and_gradients_are_the_formulas_at_any_number_of_ranks(world, anchors):
    every = ranks(world).run(shared_out, anchors)
    for name, (_, formula) in TERMS.items():
        s = whole()
        loss, gradient = gradients(formula(s, texts(anchors)), s)
        assert gradient.abs().sum() > 0
        torch.testing.assert_close(sum(r[name][0] for r in every) / world, loss, rtol=1e-10, atol=0)
        together = torch.cat([r[name][1] for r in every]) / world
        torch.testing.assert_close(together, gradient, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


def test_without_a_label_there_is_no_loss_and_no_gradient(anchors):
    for make, _ in TERMS.values():
        s = whole()
        s.batch.views["label"][:] = -1
        loss, gradient = gradients(make(anchors)(s).loss, s)
        assert loss == 0 and not gradient.any()


def test_a_class_is_summed_inside_the_logarithm_and_not_pushed_apart(anchors):
    """Two points of a class that are both at its text: the contrast with texts is content, that with pixels is not."""
    t = texts(anchors)
    said = t[[1, 1, 2, 2]][None].clone().requires_grad_()
    views = {"label": torch.tensor([[1, 1, 2, 2]]), "pixels": t[[1, 1, 2, 2]][None]}
    batch = Batch(views, {}, torch.arange(1), torch.ones(1, dtype=torch.float64))
    s = Step(batch, {"points": Embedding(said), "pixels": Embedding(views["pixels"])}, {}, {}, 0, 1)
    cold = Constant(0.01)
    assert Anchored("points", anchors, LABEL, temperature=cold)(s).loss < 1e-6
    pairs = OfParts(["points", "pixels"], PairContrast("points", "pixels", temperature=cold), LABEL)
    torch.testing.assert_close(pairs(s).loss, torch.tensor(2.0, dtype=torch.float64).log())


def test_parts_know_their_label_as_an_id(anchors):
    s = whole()
    term = OfParts(["points"], PairContrast("points", "points", targets=SameId("label"), **HEAT), LABEL)
    points = labelled(s, texts(anchors), False)
    x, c = torch.stack([s.student["points"].vector[b, k] for b, k, _ in points]), torch.tensor([c for *_, c in points])
    same = (c[:, None] == c).double()
    expected = -((same / same.sum(1, keepdim=True)) * (x @ x.T / TEMPERATURE).log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(term(s).loss, expected)


SWITCH = Steps((0, 4), (0.0, 0.5))


def coins(path: str, indexes: list[int]) -> list[tuple[float, bool]]:
    """On a rank, of each step: whether it takes the student's labels, and whether any differs from the view's."""
    if not dist.is_initialized():
        dist.init_process_group("gloo")
    term, part, out = Anchored("points", path, LABEL, own=SWITCH, **HEAT), slice(2 * dist.get_rank(), None), []
    for index in indexes:
        mine = cut(whole(index=index), part)
        labels = term.labels.at(mine, mine.student["points"].vector)
        out.append((term(mine).log["own"], bool((labels.classes != labels.told).any())))
    return out


@pytest.mark.cluster
def test_the_switch_is_thrown_alike_on_all_ranks_and_after_a_resume(anchors):
    unbroken = ranks(2).run(coins, anchors, list(range(40)))
    resumed = ranks(2).run(coins, anchors, list(range(23, 40)))
    own = [thrown for thrown, _ in unbroken[0]]
    assert own[:4] == [0.0] * 4 and 10 < sum(own) < 26
    for rank in (0, 1):
        assert unbroken[rank] == [(thrown, thrown == 1.0) for thrown in own]  # labels change then, and only then
        assert resumed[rank] == unbroken[rank][23:]


def test_a_draw_is_even_and_depends_on_seed_and_step():
    drawn_ = [drawn(0, step) for step in range(2000)]
    assert 0 <= min(drawn_) and max(drawn_) < 1 and abs(sum(drawn_) / 2000 - 0.5) < 0.02
    assert drawn(0, 3) == drawn_[3] != drawn(1, 3)


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda s, a: s.batch.views.update(label=s.batch.views["label"][:, :3]), "Draw the same points"),
        (lambda s, a: s.batch.views["label"].fill_(C), "up to 4 for parts"),
        (lambda s, a: s.batch.views.update(group=s.batch.views["group"][:, :3]), "groups .* for parts"),
        (lambda s, a: s.batch.views.update(pixels=s.batch.views["pixels"][..., :2]), "vectors of one space"),
        (lambda s, a: s.student.update(points=Embedding(s.student["points"].vector[..., :2])), "the anchors' width"),
    ],
    ids=["points", "classes", "groups", "pixels", "width"],
)
def test_what_does_not_belong_together_is_named(change, message, anchors):
    s = whole()
    change(s, anchors)
    with pytest.raises(RecipeError, match=message):
        GroupConsistency("points", anchors, {**GROUPS, "pixels": "pixels"})(s)


def test_facts_that_are_missing_and_anchors_that_are_none_are_named(anchors, tmp_path):
    with pytest.raises(RecipeError, match="facts name no label"):
        Anchored("points", anchors, {}, **HEAT)
    with pytest.raises(RecipeError, match="facts name no group"):
        GroupConsistency("points", anchors, LABEL)
    with pytest.raises(RecipeError, match="no tap 'second'. There is said"):
        GroupConsistency("points", anchors, GROUPS, tap="second")(whole())
    with pytest.raises(RecipeError, match="tools.anchors"):
        Anchored("points", str(tmp_path / "none.safetensors"), LABEL, **HEAT)
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(RecipeError, match="cannot be read: SafetensorError"):
        Anchors.read(tmp_path / "text.safetensors")
    Anchors(torch.zeros(2, 3), ("a", "b")).write(tmp_path / "zero.safetensors")
    with pytest.raises(RecipeError, match="a finite length above 0"):
        Anchors.read(tmp_path / "zero.safetensors")
