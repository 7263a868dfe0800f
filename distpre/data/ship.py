"""Results between processes: a pickle whose tensors travel in one anonymous piece of shared memory.

The memory's descriptor goes through the pipe itself, so there is no name that a killed process could leave behind, no
/dev/shm that could be too small, and no second thread in the worker that would wait for it to finish a decode.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

import torch
from torch import Tensor

ALIGN = 64
Place = tuple[torch.dtype, tuple[int, ...], int]  # of a tensor in the memory: dtype, shape, offset


class _Pickler(pickle.Pickler):
    """Leaves tensors out, and keeps them in order."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.tensors: list[Tensor] = []

    def persistent_id(self, value: Any) -> int | None:
        if not isinstance(value, Tensor):
            return None
        self.tensors.append(value.contiguous())
        return len(self.tensors) - 1


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, tensors: list[Tensor]):
        super().__init__(file)
        self.tensors = tensors

    def persistent_load(self, number: int) -> Tensor:
        return self.tensors[number]


def send(end: Connection, value: Any, to: int) -> None:
    """Through the pipe to the process `to`."""
    pickled = io.BytesIO()
    pickler = _Pickler(pickled)
    pickler.dump(value)
    places, size = [], 0
    for tensor in pickler.tensors:
        places.append((tensor.dtype, tuple(tensor.shape), size))
        size += -(-tensor.nbytes // ALIGN) * ALIGN
    end.send((pickled.getvalue(), places, size))
    if size:
        handle = os.memfd_create("distpre-batch")
        try:
            os.ftruncate(handle, size)
            with mmap.mmap(handle, size) as memory:
                _fill(memory, pickler.tensors, places)
            send_handle(end, handle, to)
        finally:
            os.close(handle)


def receive(end: Connection) -> Any:
    """Raises EOFError or OSError where the sender is gone."""
    pickled, places, size = end.recv()
    memory = None
    if size:
        try:
            handle = recv_handle(end)
        except RuntimeError as e:  # it died between the two parts
            raise EOFError from e
        try:
            memory = mmap.mmap(handle, size)
        finally:
            os.close(handle)
    return _Unpickler(io.BytesIO(pickled), [_view(memory, place) for place in places]).load()


def _fill(memory: mmap.mmap, tensors: list[Tensor], places: list[Place]) -> None:
    for tensor, place in zip(tensors, places, strict=True):
        _view(memory, place).copy_(tensor)


def _view(memory: mmap.mmap | None, place: Place) -> Tensor:
    dtype, shape, offset = place
    count = torch.Size(shape).numel()
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(memory, dtype=dtype, count=count, offset=offset).view(shape)
