"""DeepSpeed around the model: ZeRO stage, clipping, AdamW, and what its API leaves to us."""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import io
import logging
import os
import shutil
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import torch.distributed as dist
from torch import Tensor, nn

from distpre import group
from distpre.schedule import Schedule

Write = Callable[[Path], object]

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)  # it calls the old names

import deepspeed  # noqa: E402

# Its shared-memory all-reduce for CPUs is compiled at first use (half a minute) and spins for ever when a peer dies.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def join_group(timeout_seconds: float = 600) -> None:
    """The process group of RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT; alone, a group of one."""
    if not dist.is_initialized():
        for name, alone in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}.items():
            os.environ.setdefault(name, alone)
        os.environ.setdefault("MASTER_PORT", "0" if os.environ["WORLD_SIZE"] == "1" else "29500")
        device = group.device()
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            timeout=timedelta(seconds=timeout_seconds),
            device_id=device if device.type == "cuda" else None,
        )
    deepspeed.init_distributed(dist_init_required=False, verbose=False)


def leave_group() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


class Engine:
    """The model under ZeRO stage `zero` with AdamW; gradients are averaged over ranks.

    Schedules run over `steps` steps from step `first` of the run.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: Schedule,
        steps: int,
        first: int = 0,
        zero: int = 0,
        accumulation: int = 1,
        clip: float | None = None,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-6,
    ):
        self.model, self.lr, self.steps, self.zero, self.accumulation = model, lr, steps, zero, accumulation
        self.first, self.device = first, group.device()
        self.clip = clip
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.penalties: dict[str, Tensor] = {}
        batch_norms = (m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
        self.norms = [norm for norm in batch_norms if norm.running_mean is not None]
        config = {
            "train_micro_batch_size_per_gpu": 1,  # bookkeeping only: our loader decides what a rank gets
            "gradient_accumulation_steps": accumulation,
            "gradient_clipping": clip or 0.0,
            "zero_optimization": {"stage": zero, "overlap_comm": self.device.type == "cuda"},
            "zero_allow_untested_optimizer": True,
            "steps_per_print": 10**9,
        }
        optimiser = torch.optim.AdamW(decay_groups(model, weight_decay), lr=0.0, betas=betas, eps=eps)
        self.wrapped, *_ = deepspeed.initialize(
            model=model.to(self.device), optimizer=optimiser, config=config, dist_init_required=False
        )
        self.wrapped._copy_recovery_script = lambda folder: None  # the whole model lies beside its files as it is

    def __call__(self, views: dict[str, Any]) -> tuple[dict, dict]:
        return self.wrapped(views)

    def backward(self, loss: Tensor) -> None:
        """Gradients of one micro-batch; their sum over micro-batches is the step's (nothing is divided)."""
        self.wrapped.backward(loss, scale_wrt_gas=False)

    def step(self, index: int) -> float:
        """Counts a micro-batch; with the last one of step `index`, clips and updates. Returns the learning rate."""
        rate = self.lr.at(index - self.first, self.steps)
        for parameters in self.wrapped.optimizer.param_groups:
            parameters["lr"] = rate
        updates = self.updates
        if updates:
            self._teachers_hold(index - self.first)
        self.wrapped.step()
        if updates:
            self._share_statistics()
            self._bound_scales()
            self._teachers_follow(index - self.first)
        return rate

    @property
    def updates(self) -> bool:
        """Whether the micro-batch in hand is the step's last."""
        return self.wrapped.is_gradient_accumulation_boundary()

    def pass_over(self) -> None:
        """Counts a micro-batch and changes no weight; the optimiser's moments are spoilt."""
        for parameters in self.wrapped.optimizer.param_groups:
            parameters["lr"] = 0.0
        self.wrapped.step()

    def gradients(self) -> Iterator[tuple[str, slice, Tensor]]:
        """(weight, part, its gradient): of each flattened weight the part that this rank updates, under any ZeRO stage.

        Between a step's last backward and step; the gradient may be changed in place.
        """
        from deepspeed.utils import safe_get_local_grad, safe_set_local_grad

        for name, p in self.trained.items():
            if self.zero == 3:
                gradient, first = safe_get_local_grad(p), group.rank() * p.ds_tensor.numel()
                size = max(0, min(len(gradient), p.ds_numel - first))  # the last parts are padded
                yield name, slice(first, first + size), gradient[:size]
                safe_set_local_grad(p, gradient)
            elif self.zero and p._hp_mapping is not None:
                at = p._hp_mapping.lp_fragment_address
                gradient = p._hp_mapping.get_lp_grad_fragment(p._index_in_param_group)
                yield name, slice(at.start, at.start + at.numel), gradient
            elif not self.zero and p.grad is not None:
                yield name, slice(0, p.numel()), p.grad

    def _part(self, p: nn.Parameter, at: slice, like: Tensor) -> Tensor:
        """A parameter's part, in the shape of its gradient's."""
        mine = p.ds_tensor.data[: at.stop - at.start] if self.zero == 3 else p.data.flatten()[at]
        return mine.view(like.shape)

    def whole(self, name: str, at: slice, part: Tensor) -> Tensor:
        """The ranks' parts of a figure a weight, together; every rank calls it, with an empty part if it has none."""
        p = self.trained[name]
        full = torch.zeros(getattr(p, "ds_numel", p.numel()), device=self.device)
        full[at] = part.flatten()
        return (group.total(full) if self.zero else full).view(getattr(p, "ds_shape", p.shape))

    @torch.no_grad()
    def _teachers_hold(self, index: int) -> None:
        """Adds λ F (θ - θ*) to the gradient for every teacher F that holds the student to another, θ* (EWC)."""
        for key, teacher in self.model.teachers.items():
            if teacher.teaching.around is None:
                continue
            weight = teacher.teaching.weight.at(index, self.steps)
            importances = dict(teacher.named_parameters(prefix="towers"))
            anchors = dict(self.model.teachers[teacher.teaching.around].named_parameters(prefix="towers"))
            penalty = torch.zeros((), device=self.device)
            for name, at, gradient in self.gradients():
                if name in importances:
                    every = (importances[name], self.trained[name], anchors[name])
                    importance, its, anchor = (self._part(p, at, gradient) for p in every)
                    pull = importance * (its - anchor)
                    gradient.add_(pull, alpha=weight)
                    penalty += weight / 2 * (pull * (its - anchor)).sum()
            self.penalties[key] = penalty

    @torch.no_grad()
    def _share_statistics(self) -> None:
        """Running means and variances of BatchNorm become the ranks' mean: one model to evaluate, commit and resume."""
        own = [b for norm in self.norms for b in (norm.running_mean, norm.running_var)]
        if own and group.world_size() > 1:
            mean = group.total(torch.cat([b.flatten() for b in own])) / group.world_size()
            for b, shared in zip(own, mean.split([b.numel() for b in own]), strict=True):
                b.copy_(shared.view_as(b))

    def _bound_scales(self) -> None:
        """Clamps every logit scale in place, in the working copy and in the optimiser's (CLIP, section 2.5)."""
        from deepspeed.utils import safe_get_local_fp32_param, safe_set_full_fp32_param, safe_set_local_fp32_param

        for scale in self.model.scales.values():
            log, bound = scale.log, scale.bound
            if not log.requires_grad:
                continue
            if self.zero == 3:  # by partition: the whole-parameter call fails where ranks outnumber elements
                mine = safe_get_local_fp32_param(log)
                safe_set_local_fp32_param(log, mine.clamp(max=bound))
                log.ds_tensor.data.clamp_(max=bound)
                log.data.clamp_(max=bound)  # empty, unless ZeRO-3 keeps it whole for being small
            elif log.item() > bound:
                log.data.clamp_(max=bound)
                if self.zero:
                    safe_set_full_fp32_param(log, log.data)

    @torch.no_grad()
    def _teachers_follow(self, index: int) -> None:
        """θ' <- θ' + (1 - m)(θ - θ') for every teacher with m < 1; under ZeRO-3 each rank its part, nothing is sent."""
        for teacher in self.model.teachers.values():
            share = 1 - teacher.teaching.momentum.at(index, self.steps)
            if share == 0:
                continue
            for its, mine in teacher.pairs(self.model.towers):
                if self.zero == 3:
                    its.ds_tensor.data.lerp_(mine.ds_tensor.data, share)
                if its.numel() == mine.numel() > 0:  # under ZeRO-3 only what it keeps whole for being small
                    its.data.lerp_(mine.data, share)
            for its, mine in teacher.buffer_pairs(self.model.towers):
                its.copy_(mine)

    @torch.no_grad()
    def assign(self, weights: dict[str, Tensor]) -> None:
        """Sets weights that no optimiser holds, by name, under any ZeRO stage; every rank calls it with the same.

        Under ZeRO-3 each rank writes its own part (gathering to write upsets DeepSpeed's record of what comes next).
        """
        named = dict(self.model.named_parameters()) | dict(self.model.named_buffers())
        for name, value in weights.items():
            mine = getattr(named[name], "ds_tensor", None)
            if mine is not None:
                part = value.flatten()[group.rank() * mine.numel() :][: mine.numel()]
                mine.data[: len(part)].copy_(part)
            if named[name].numel() == value.numel():  # under ZeRO-3 only what it keeps whole for being small
                named[name].copy_(value)

    def figures(self) -> dict[str, Any]:
        """lr of the last update, this process's memory in bytes (the device's peak or the resident set), and penalties.

        Every rank calls it.
        """
        if self.device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(self.device)
        else:
            memory = psutil.Process().memory_info().rss
        penalties = {name: group.total(p) if self.zero else p for name, p in self.penalties.items()}
        held = {"penalties": {name: p.item() for name, p in penalties.items()}} if penalties else {}
        return {"lr": self.wrapped.optimizer.param_groups[0]["lr"], "memory_bytes": memory, **held}

    def parameters_of(self, tower: str) -> int:
        return count_parameters(self.model.towers[tower])

    def snapshot(self, folder: str, tag: str) -> dict[str, Write]:
        """{name: what writes it to a path}: this rank's files of `folder/tag`, all tensors copied to host memory.

        Every rank calls it; `folder/tag` is there already.
        """
        files: dict[str, Write] = {}

        def keep(state_dict: dict[str, Any], path: str) -> None:
            files[Path(path).name] = functools.partial(torch.save, to_host(state_dict))

        writer = self.wrapped.checkpoint_engine
        writer.save = keep
        try:
            self.wrapped.save_checkpoint(folder, tag=tag, save_latest=False)
        finally:
            del writer.save
        return files

    def load(self, folder: str, tag: str) -> None:
        self.wrapped.load_checkpoint(folder, tag=tag)

    def load_of_other_ranks(self, folder: str, tag: str) -> None:
        """What another number of ranks saved under a stage that divides the optimiser; every rank calls it.

        Rank 0 writes DeepSpeed's universal format (a file a parameter and moment) beside it, which lasts until every
        rank has read its part. Raises whatever stopped rank 0, on every rank.
        """
        universal = f"{tag}-universal"
        fault = universal_copy(Path(folder, tag), Path(folder, universal)) if group.rank() == 0 else None
        if fault := group.from_rank_zero(fault):
            raise OSError(fault)
        groups = self.wrapped.optimizer.param_groups
        settings = [{name: value for name, value in g.items() if name != "params"} for g in groups]
        self.wrapped._config.load_universal_checkpoint = True  # has no other switch once the engine is built
        self.wrapped.load_checkpoint(folder, tag=universal)
        self.wrapped._config.load_universal_checkpoint = False
        for g, mine in zip(self.wrapped.optimizer.param_groups, settings, strict=True):
            g.update(mine)  # stage 3 gives every group the first one's weight decay ...
        for moments in self.wrapped.optimizer.optimizer.state.values():
            moments["step"] = moments["step"].clone()  # ... and one and the same counter, which AdamW adds to in place
        group.wait_for_all()
        if group.rank() == 0:
            shutil.rmtree(Path(folder, universal))

    def full_weights(self) -> dict[str, Tensor]:
        """The whole model's fp32 weights on the CPU of rank 0, and {} elsewhere; every rank calls it."""
        weights = {}
        for name, value in self.model.named_parameters():
            divided = self.zero == 3 and value.numel() < value.ds_numel  # ZeRO-3 keeps small ones whole
            with deepspeed.zero.GatheredParameters([value], modifier_rank=None, enabled=divided):
                if group.rank() == 0:
                    weights[name] = value.detach().to("cpu", copy=True)
        if group.rank() == 0:
            kept = self.model.state_dict().keys()  # not the buffers that the model makes anew
            buffers = {name: value for name, value in self.model.named_buffers() if name in kept}
            weights |= {name: value.detach().to("cpu", copy=True) for name, value in buffers.items()}
        return weights


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; gains, biases and logit scales (1-dim) do not, as in CLIP (section 2.5)."""
    trained = [p for p in model.parameters() if p.requires_grad]
    matrices, vectors = [p for p in trained if p.ndim >= 2], [p for p in trained if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [g for g in groups if g["params"]]


def universal_copy(saved: Path, out: Path) -> str | None:
    """Converts what ranks saved; returns what went wrong, if something did."""
    from deepspeed.checkpoint import ds_to_universal

    shutil.rmtree(out, ignore_errors=True)
    asked = {"keep_temp_folder": False, "strict": True, "inject_missing_state": True}
    workers = {"num_extract_workers": 1, "num_merge_workers": 1}  # more would fork this process
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            ds_to_universal.main(
                argparse.Namespace(input_folder=str(saved), output_folder=str(out), **asked, **workers)
            )
    except Exception as e:  # of whatever kind: the other ranks wait for our word
        return f"{type(e).__name__}: {e}"
    return None


def to_host(value: Any) -> Any:
    """A copy of nested dicts, lists and tuples, every tensor in memory of its own on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if type(value) in (dict, OrderedDict):
        return type(value)((key, to_host(each)) for key, each in value.items())
    if type(value) in (list, tuple):
        return type(value)(to_host(each) for each in value)
    return copy.deepcopy(value)


def count_parameters(module: nn.Module) -> int:
    return sum(getattr(p, "ds_numel", p.numel()) for p in module.parameters())


def seed_step(seed: int, step: int, part: int) -> None:
    """Dropout's rng as arithmetic: replayed in the second pass of an accumulated step, and after a resume."""
    entropy = np.random.SeedSequence((seed, step, group.rank(), part))
    torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))
