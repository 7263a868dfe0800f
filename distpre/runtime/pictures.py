"""What a run found out, as PNGs. They need matplotlib; a run without it goes on and says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from distpre.errors import DistpreError
from distpre.weighting.histogram import Histogram

DPI = 120
COLOURS = ("#1b9e77", "#d95f02", "#7570b3")  # of curves


def heat_map(path: Path, rows: dict[str, dict[str, float]], title: str) -> None:
    """Writes a PNG of {row: {column: value}}. Raises DistpreError where matplotlib is not installed."""
    columns = list(next(iter(rows.values())))
    values = [[row[column] for column in columns] for row in rows.values()]
    figure = _figure(2.5 + 0.8 * len(columns), 1.6 + 0.5 * len(rows))
    axes = figure.add_subplot()
    image = axes.imshow(values, cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_xlabel("evaluated on")
    axes.set_ylabel("after")
    axes.set_title(title)
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            light = image.norm(value) < 0.6
            axes.text(x, y, f"{value:.3f}", ha="center", va="center", color="white" if light else "black")
    figure.colorbar(image)
    figure.savefig(path, dpi=DPI)


def histogram(path: Path, its: Histogram, title: str) -> None:
    """Writes a PNG of it, its curves over the bars. Raises DistpreError where matplotlib is not installed."""
    figure = _figure(6, 3.4)
    axes = figure.add_subplot()
    axes.bar(its.edges[:-1], its.counts, np.diff(its.edges), align="edge", color="#cccccc")
    middles = (its.edges[:-1] + its.edges[1:]) / 2
    for (name, heights), colour in zip(its.curves.items(), COLOURS, strict=False):
        axes.plot(middles, heights, color=colour, label=f"{name}: {heights.sum():.0f}")
    axes.set_xlabel(its.of)
    axes.set_ylabel("samples")
    axes.set_title(title)
    if its.curves:
        axes.legend()
    figure.savefig(path, dpi=DPI)


def _figure(width: float, height: float) -> Any:
    """An empty one, in inches. Raises DistpreError."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as e:
        raise DistpreError("no picture: matplotlib is not installed.", "pip install 'distpre[plot]'.") from e
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
