"""How the ranks share the B-by-B pairs, and the only gathers of embeddings. Ranks may hold unequal numbers of rows.

A grid of R by C ranks, rank = i·C + j. Rank (i, j) gathers the rows of its grid row (C ranks, neighbours: a node) and
the columns of its grid column (R ranks), and computes that block: every pair of the global batch once, each rank's own
pairs on the rank itself. N by 1 gathers columns only, 1 by N rows only (a bank that stays where it is). The ring
gathers neither: columns travel around, one rank's at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

Tensors = dict[str, Tensor]

RENAMED = hasattr(dist, "all_gather_single")  # by a later torch than 2.11, which warns of the old names
ALL_GATHER = "all_gather_single" if RENAMED else "all_gather_into_tensor"
REDUCE_SCATTER = "reduce_scatter_single" if RENAMED else "reduce_scatter_tensor"


@dataclass(frozen=True)
class Axis:
    """Ranks that gather from each other. counts: rows of each; place: which of them this rank is."""

    counts: tuple[int, ...]
    place: int
    group: dist.ProcessGroup | None = None

    @property
    def mine(self) -> slice:
        start = sum(self.counts[: self.place])
        return slice(start, start + self.counts[self.place])

    @property
    def total(self) -> int:
        return sum(self.counts)

    def gather(self, x: Tensor) -> Tensor:
        """(n, ...) -> (total, ...) in rank order."""
        if len(self.counts) == 1:
            return x
        longest = max(self.counts)
        if longest == min(self.counts):
            out = x.new_empty((self.total, *x.shape[1:]))
            getattr(dist, ALL_GATHER)(out, x.contiguous(), group=self.group)
            return out
        out = x.new_empty((len(self.counts) * longest, *x.shape[1:]))
        getattr(dist, ALL_GATHER)(out, padded(x, longest), group=self.group)
        return torch.cat([p[:n] for p, n in zip(out.split(longest), self.counts, strict=True)])

    def gather_all(self, some: Tensors) -> Tensors:
        """Every tensor gathered; all but the vectors as one piece of bytes, because latency is what they cost."""
        if len(self.counts) == 1:
            return some
        small = {name: x for name, x in some.items() if name != "vectors"}
        return unpacked(self.gather(packed(small)), small) | {"vectors": self.gather(some["vectors"])}

    def scatter_sum(self, x: Tensor) -> Tensor:
        """(total, ...) a rank -> this rank's (n, ...) of the sum over ranks."""
        if len(self.counts) == 1:
            return x
        longest = max(self.counts)
        if longest > min(self.counts):
            x = torch.cat([padded(part, longest) for part in x.split(list(self.counts))])
        out = x.new_empty((longest, *x.shape[1:]))
        getattr(dist, REDUCE_SCATTER)(out, x, group=self.group)
        return out[: self.counts[self.place]]

    def sum(self, x: Tensor) -> Tensor:
        if len(self.counts) > 1:
            dist.all_reduce(x, group=self.group)
        return x

    def max(self, x: Tensor) -> Tensor:
        if len(self.counts) > 1:
            dist.all_reduce(x, op=dist.ReduceOp.MAX, group=self.group)
        return x


@dataclass(frozen=True)
class Grid:
    """rows, columns: the axes along which this rank's rows and columns are gathered."""

    rows: Axis
    columns: Axis

    def panels(self, columns: Tensors) -> Gathered:
        return Gathered(self.columns.gather_all(columns), self.columns)


@dataclass(frozen=True)
class Ring:
    """Rows stay; the columns axis only merges statistics."""

    rows: Axis
    columns: Axis

    def panels(self, columns: Tensors) -> Travelling:
        return Travelling(columns, self.columns)


@dataclass(frozen=True)
class Gathered:
    """All columns of a grid column, as one panel."""

    held: Tensors
    axis: Axis

    def __iter__(self) -> Iterator[tuple[slice, Tensors]]:
        yield slice(0, self.axis.total), self.held

    def returned(self, gradient: Callable[[slice, Tensors], Tensor]) -> Tensor:
        """gradient(place, panel) of every panel, summed over ranks, back where the columns came from: (n, d)."""
        return self.axis.scatter_sum(gradient(slice(0, self.axis.total), self.held))


@dataclass(frozen=True)
class Travelling:
    """One rank's columns at a time: the next panel arrives while this one is used."""

    mine: Tensors
    axis: Axis

    def __iter__(self) -> Iterator[tuple[slice, Tensors]]:
        n, longest = len(self.axis.counts), max(self.axis.counts)
        small = {name: x for name, x in self.mine.items() if name != "vectors"}
        held = [padded(self.mine["vectors"], longest), padded(packed(small), longest)]
        for step in range(n):
            owner = (self.axis.place - step) % n
            coming = [torch.empty_like(x) for x in held] if step < n - 1 else []
            moves = [self._move(x, into) for x, into in zip(held, coming, strict=False)]
            start = sum(self.axis.counts[:owner])
            count = self.axis.counts[owner]
            vectors, rest = (x[:count] for x in held)
            yield slice(start, start + count), unpacked(rest, small) | {"vectors": vectors}
            for move in moves:
                _finish(move)
            held = coming

    def returned(self, gradient: Callable[[slice, Tensors], Tensor]) -> Tensor:
        """As Gathered.returned; each panel's sum travels one rank behind the panel."""
        n, longest = len(self.axis.counts), max(self.axis.counts)
        total: Tensor | None = None
        for place, panel in self:
            part = padded(gradient(place, panel), longest)
            if total is not None:
                part += self._passed(total)
            total = part
        if n > 1:
            total = self._passed(total)
        return total[: self.axis.counts[self.axis.place]]

    def _passed(self, x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        _finish(self._move(x, out))
        return out

    def _move(self, out: Tensor, into: Tensor) -> list[dist.Work]:
        n, here = len(self.axis.counts), self.axis.place
        to = dist.P2POp(dist.isend, out, group=self.axis.group, group_peer=(here + 1) % n)
        back = dist.P2POp(dist.irecv, into, group=self.axis.group, group_peer=(here - 1) % n)
        return dist.batch_isend_irecv([to, back])


def _finish(works: list[dist.Work]) -> None:
    for work in works:
        work.wait()


def packed(some: Tensors) -> Tensor:
    """Tensors (n, ...) of any dtypes -> (n, bytes) uint8."""
    flat = (x.reshape(len(x), x.shape[1:].numel()) for x in some.values())
    return torch.cat([x.clone(memory_format=torch.contiguous_format).view(torch.uint8) for x in flat], 1)


def unpacked(rows: Tensor, like: Tensors) -> Tensors:
    """The tensors that were packed, with as many rows as there are now."""
    out, start = {}, 0
    for name, x in like.items():
        size = x.shape[1:].numel() * x.itemsize
        part = rows[:, start : start + size].clone(memory_format=torch.contiguous_format)
        out[name] = part.view(x.dtype).reshape(len(rows), *x.shape[1:])
        start += size
    return out


def padded(x: Tensor, n: int) -> Tensor:
    if len(x) == n:
        return x.contiguous()
    return torch.cat([x, x.new_zeros((n - len(x), *x.shape[1:]))])


@dataclass(frozen=True)
class Plan:
    """How N ranks would share the pairs. received: elements of embeddings a rank receives each way, in units of b·d.

    held: rows and columns a rank holds at once, in units of b.
    """

    name: str
    grid: tuple[int, int]
    received: int
    held: int

    @classmethod
    def of(cls, rows: int, columns: int) -> Plan:
        """A grid of rows by columns ranks."""
        return cls(f"{rows}x{columns}", (rows, columns), rows + columns - 2, rows + columns)

    def __str__(self) -> str:
        return f"{self.name}: {self.received} x b x d received each way, {self.held} x b rows and columns held"


def plans(n: int) -> list[Plan]:
    """Every way for n ranks: the grids by their factors, then the ring."""
    grids = [Plan.of(r, n // r) for r in range(n, 0, -1) if n % r == 0]
    return [*grids, Plan("ring", (n, 1), n - 1, 5)]


NODE_SPEED = 8  # how much faster a link inside a node is than one between nodes


def choose(n: int, rows: int, width: int, *, node: int, memory: float, wanted: str = "auto") -> Plan:
    """The plan with the least time on the wire among those that fit.

    rows: of one rank; node: ranks on a node; memory: bytes that gathered fp32 rows, columns and their gradients may
    take. All plans compute the same products, so bytes decide; links inside a node count an eighth. The ring is taken
    only where no grid fits. wanted: "auto", "RxC" or "ring". Raises ValueError for a wanted plan that n ranks have not.
    """
    every = plans(n)
    if wanted != "auto":
        found = [p for p in every if p.name == wanted]
        if not found:
            raise ValueError(f"layout {wanted!r}: {n} ranks can be {', '.join(p.name for p in every)}")
        return found[0]

    def seconds(plan: Plan) -> float:
        across, along = (count - 1 for count in plan.grid)  # columns cross nodes, rows come from neighbours
        inside = plan.grid[1] <= node and node % plan.grid[1] == 0
        return across * (1 if n > node else 1 / NODE_SPEED) + along * (1 / NODE_SPEED if inside else 1)

    fitting = [p for p in every[:-1] if 2 * 4 * p.held * rows * width <= memory]
    return min(fitting, key=seconds) if fitting else every[-1]


@functools.cache
def _axes(world: dist.ProcessGroup, grid: tuple[int, int]) -> tuple[tuple, tuple]:
    """(ranks, group) of this rank's grid row and of its grid column; every rank makes every group, once."""
    (r, c), here = grid, dist.get_rank()
    rows = [tuple(range(i * c, (i + 1) * c)) for i in range(r)]
    columns = [tuple(range(j, r * c, c)) for j in range(c)]
    return _mine(rows, here), _mine(columns, here)


def _mine(lines: list[tuple[int, ...]], here: int) -> tuple[tuple[int, ...], dist.ProcessGroup | None]:
    if len(lines) == 1:
        return lines[0], None
    if len(lines[0]) == 1:
        return (here,), None
    groups = [(line, dist.new_group(list(line))) for line in lines]
    return next((line, group) for line, group in groups if here in line)


def exchange(numbers: list[int], device: torch.device) -> list[list[int]]:
    """Every rank's numbers, in rank order."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [numbers]
    table = torch.zeros((dist.get_world_size(), len(numbers)), dtype=torch.long, device=device)
    table[dist.get_rank()] = torch.tensor(numbers, device=device)
    dist.all_reduce(table)
    return table.tolist()


@dataclass(frozen=True)
class Laid:
    """A plan on this process group. rank: in the world; counts: samples present, of all rows and of all columns."""

    layout: Grid | Ring
    rank: int
    counts: tuple[int, int]


def laid(plan: Plan, table: list[list[int]]) -> Laid:
    """table: rows, columns, rows present and columns present of every rank (exchange)."""
    if len(table) == 1:
        return alone(table[0])
    row_line, column_line = _axes(dist.group.WORLD, plan.grid)
    rows, columns, *present = zip(*table, strict=True)
    rank = dist.get_rank()

    def axis(line: tuple, counts: Sequence[int]) -> Axis:
        ranks, group = line
        return Axis(tuple(counts[r] for r in ranks), ranks.index(rank), group)

    kind = Ring if plan.name == "ring" else Grid
    return Laid(kind(axis(row_line, rows), axis(column_line, columns)), rank, (sum(present[0]), sum(present[1])))


def alone(numbers: list[int]) -> Laid:
    """This rank's pairs only: nothing travels."""
    rows, columns, *present = numbers
    return Laid(Grid(Axis((rows,), 0), Axis((columns,), 0)), 0, (present[0], present[1]))
