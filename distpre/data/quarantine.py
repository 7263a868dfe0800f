"""Bad samples: the position stays, with weight 0, a line in the ledger, and another sample in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from distpre.errors import DataError

SHOWN = 10
JUDGED_FROM = 1000  # samples: before that many, the bad are counted against this many


@dataclass(frozen=True)
class Bad:
    """A line of the ledger."""

    epoch: int
    ordinal: int
    shard: str
    row: int
    key: str
    reason: str


class Quarantine:
    """Counts this rank's samples and its bad ones, since the process started."""

    def __init__(self, write: Callable[[dict[str, Any]], None], max_bad_fraction: float):
        self.write, self.max_bad_fraction = write, max_bad_fraction
        self.seen, self.bad = 0, 0
        self.latest: list[Bad] = []

    def saw(self, samples: int, bad: list[Bad]) -> None:
        """Raises DataError with the list when more than max_bad_fraction is bad."""
        self.seen += samples
        self.bad += len(bad)
        self.latest = (self.latest + bad)[-SHOWN:]
        for line in bad:
            self.write(asdict(line))
        if bad and self.bad > self.max_bad_fraction * max(self.seen, JUDGED_FROM):
            listed = "\n".join(f"  {b.shard} row {b.row} key {b.key}: {b.reason}" for b in self.latest)
            raise DataError(
                f"data: {self.bad} of {self.seen} samples on this rank could not be read, more than "
                f"data.max_bad_fraction = {self.max_bad_fraction}:\n{listed}\n",
                "The run's quarantine.jsonl lists them; mend the shards or raise data.max_bad_fraction.",
            )
