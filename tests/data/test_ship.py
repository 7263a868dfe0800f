import multiprocessing
import os
import signal

import pytest
import torch

from distpre.data.ship import receive, send
from distpre.types import Batch, Padded


def there_and_back(value):
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        send(theirs, value, os.getpid())
        return receive(ours)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int64, torch.float32, torch.bfloat16, torch.float64])
def test_tensors_arrive_as_they_were(dtype):
    sent = {"a": torch.arange(7), "empty": torch.empty(0, 3), "one": torch.tensor(1)}
    sent = {name: tensor.to(dtype) for name, tensor in sent.items()}
    there = there_and_back(sent)
    assert sent.keys() == there.keys()
    for name in sent:
        assert there[name].dtype == dtype and there[name].shape == sent[name].shape
        assert torch.equal(there[name], sent[name])


def test_a_batch_arrives_whole_and_can_be_written():
    strided = torch.arange(24.0).view(4, 6).T
    padded = Padded(torch.ones(6, 2), torch.ones(6, 2, dtype=torch.bool))
    sent = Batch({"a": strided, "b": padded}, {"id": torch.arange(6)}, torch.arange(6), torch.ones(6))
    there, word = there_and_back((sent, "word"))
    assert word == "word" and torch.equal(there.views["a"], strided) and there.views["b"].mask.all()
    there.views["a"].add_(1)
    assert torch.equal(there.views["a"], strided + 1)


def test_what_has_no_tensors_needs_no_memory():
    assert there_and_back(ValueError("no")).args == ("no",)


def test_memory_is_given_back():
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        there_and_back(torch.zeros(1000))
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_a_sender_that_dies_between_the_parts_is_an_end_of_file():
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def dies():
        theirs.send((b"", [], 64))
        os.kill(os.getpid(), signal.SIGKILL)

    process = context.Process(target=dies)
    process.start()
    theirs.close()
    with pytest.raises((EOFError, OSError)):
        receive(ours)
    process.join()
