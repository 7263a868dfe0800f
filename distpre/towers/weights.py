"""Weights from files into a tower: open_clip checkpoints and our own exports. Nothing is unpickled beyond tensors."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from distpre.errors import CheckpointError


def read(path: str | Path) -> dict[str, Tensor]:
    """A state dict from .safetensors, or from a .pt read with weights_only; `module.` prefixes are dropped."""
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"{path}: no such weights file.", "Give a local checkpoint; nothing is downloaded.")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(path)
    else:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        state = loaded.get("state_dict", loaded)
    return {name.removeprefix("module."): value for name, value in state.items()}


def weights_file(path: str | Path) -> Path:
    """The weights of a run's newest commit, of a commit, or the file itself. Raises CheckpointError."""
    path = Path(path)
    if not path.is_dir():
        return path
    if (path / "weights.safetensors").exists():
        return path / "weights.safetensors"
    marks = sorted(path.glob("checkpoints/step-*/COMMIT"), key=lambda mark: int(mark.parent.name[5:]))
    if not marks:
        raise CheckpointError(f"{path}: neither a commit nor a run that has one.", "Name a weights file, or train it.")
    return marks[-1].parent / "weights.safetensors"


def load_encoder(encoder: nn.Module, path: str | Path) -> None:
    """Fill an encoder from the one tower of distpre's weights (weights_file) whose encoder's weights have its names.

    Raises CheckpointError naming the first weight that does not fit.
    """
    path = weights_file(path)
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in read(path).items():
        kind, _, rest = name.partition(".")
        tower, _, inner = rest.partition(".encoder.")
        if kind == "towers" and inner:
            parts.setdefault(tower, {})[inner] = value
    fits = [tower for tower, state in parts.items() if state.keys() == encoder.state_dict().keys()]
    if not parts or len(fits) > 1:
        raise CheckpointError(f"{path}: {len(fits)} encoders of this kind are in it.", "Name weights with one.")
    tower = fits[0] if fits else max(parts, key=lambda name: len(parts[name].keys() & encoder.state_dict().keys()))
    fill(encoder, parts[tower], f"{path} does not fit the encoder", f"towers.{tower}.encoder.")


def load_tower(tower: nn.Module, path: str | Path, *, part: str) -> None:
    """Fill an open_clip tower ("visual" or "text") from a whole CLIP checkpoint, in either of open_clip's layouts.

    Raises CheckpointError naming the first key that is missing, unexpected or of another shape.
    """
    from open_clip.model import convert_to_custom_text_state_dict

    state = convert_to_custom_text_state_dict(read(path))
    mine = {name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(f"{part}.")}
    fill(tower, mine, f"{path} does not fit the {part} tower", f"{part}.")


def fill(module: nn.Module, state: dict[str, Tensor], misfit: str, prefix: str = "") -> None:
    """load_state_dict, refused with the first weight that is missing, too many or of another shape.

    misfit: how the CheckpointError begins; prefix: stands before the names in it.
    """
    want = module.state_dict()
    for name in sorted(set(state) ^ set(want)):
        where = "is not in it" if name in want else "is not in the tower"
        raise CheckpointError(f"{misfit}: {prefix}{name} {where}.", "Check model or config.")
    for name, value in want.items():
        if state[name].shape != value.shape:
            raise CheckpointError(
                f"{misfit}: {prefix}{name} is {tuple(state[name].shape)}, the tower's is {tuple(value.shape)}.",
                "Check model or config.",
            )
    module.load_state_dict(state)
