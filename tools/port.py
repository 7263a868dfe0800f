"""A port for a group of processes on this machine."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def free_port() -> Iterator[int]:
    """A TCP port of 127.0.0.1 that nobody listens on and that nobody else is given here while the block runs.

    It is below those that the system deals out by itself; the UDP port of the same number is the claim.
    """
    while True:
        number = random.SystemRandom().randrange(20_000, 30_000)
        with socket.socket(type=socket.SOCK_DGRAM) as claim:
            try:
                claim.bind(("127.0.0.1", number))
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", number))
            except OSError:
                continue
            yield number
            return
