"""A matrix of figures as a picture."""

from __future__ import annotations

from pathlib import Path

from distpre.errors import DistpreError


def draw(path: Path, rows: dict[str, dict[str, float]], title: str) -> None:
    """Writes a PNG of {row: {column: value}}. Raises DistpreError where matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as e:
        raise DistpreError("no heat map: matplotlib is not installed.", "pip install 'distpre[plot]'.") from e
    columns = list(next(iter(rows.values())))
    values = [[row[column] for column in columns] for row in rows.values()]
    figure = Figure(figsize=(2.5 + 0.8 * len(columns), 1.6 + 0.5 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
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
    figure.savefig(path, dpi=120)
