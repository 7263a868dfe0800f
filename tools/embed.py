"""What the towers of a run say of samples, written into copies of their shards: `python -m tools.embed RUN SHARDS ...`.

    python -m tools.embed runs/shapes "runs/data/shapes/train-000.tar" --views points text --out runs/data/embedded

A sample gains VIEW.npy, the unit vector (d,) or (k, d) of each view: frozen embeddings to contrast with, to find
neighbours by (the pairing `neighbours`), to mask by (the targets `true_negatives`). Views are seen through their
evaluation ops, of the fields of data.train.
"""

from __future__ import annotations

import argparse
import io
import sys
from functools import partial
from pathlib import Path

import numpy as np

from distpre.data.reader import Reader
from distpre.data.source import Source
from distpre.errors import DataError, program
from distpre.evaluate import note, trained
from distpre.runtime import build
from distpre.runtime.engine import join_group, leave_group
from distpre.runtime.evaluation import FrozenTowers
from tools.reshard import members_of
from tools.shard.writer import Members, write_shards


def embed(
    run: str | Path,
    shards: str | list[str],
    out: str | Path,
    views: list[str],
    *,
    split: str = "train",
    each: int = 1000,
) -> str:
    """Writes OUT/SPLIT-000.tar ...; returns a summary line. Raises DataError for a sample that cannot be read."""
    recipe, model, step = trained(run, note)
    spec = recipe.data.sources["train"]
    if unknown := [view for view in views if view not in model.tower_of]:
        raise DataError(f"{run}: no tower embeds {unknown[0]!r}.", f"It may be {', '.join(model.tower_of)}.")
    made = {name: view for name, view in build.views(recipe).items() if name in views}
    fields = {name: spec.fields[name] for name in {view.field for view in made.values()}}
    source = Source.open(shards, fields, note=note)
    loader = build.loader(recipe, source, made, batch=256)
    towers = FrozenTowers(model.eval(), made, chunk=256)
    rows: list[tuple[str, int]] = []
    vectors: dict[str, list[np.ndarray]] = {view: [] for view in views}
    for batch in loader.once():
        if not bool((batch.weight > 0).all()):
            raise DataError(f"{shards}: samples that cannot be read.", "`python -m tools.verify` names them.")
        rows += [(source.digest, ordinal) for ordinal in batch.ordinal.tolist()]
        for view, x in towers.batch(batch, *views).items():
            vectors[view] += list(x.cpu().numpy())
    loader.close()
    entries = source.manifest.entries
    reader = Reader([e.shard for e in entries], [e.header.stamp for e in entries])
    members = partial(_members, vectors, partial(members_of, source.manifest, reader))
    write_shards(out, split, rows, members, shard_samples=each, of=list(vectors.items()))
    return f"wrote {len(rows)} samples with {', '.join(f'{view}.npy' for view in views)} of step {step} to {out}"


def _members(vectors: dict[str, list[np.ndarray]], copy: partial, row: tuple[str, int]) -> Members:
    return copy(row) | {f"{view}.npy": _bytes(its[row[1]]) for view, its in vectors.items()}


def _bytes(x: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, x.astype(np.float32))
    return content.getvalue()


@program
def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.embed", description=__doc__.split("\n")[0])
    parser.add_argument("run", help="a run folder")
    parser.add_argument("shards", nargs="+", help="paths, brace lists in quotes, `::` lists")
    parser.add_argument("--views", nargs="+", required=True, help="of the run's towers")
    parser.add_argument("--out", required=True, help="folder of the new shards")
    parser.add_argument("--split", default="train", help="of the new shards: SPLIT-000.tar (default train)")
    parser.add_argument("--samples", type=int, default=1000, help="of a shard (default 1000)")
    a = parser.parse_args()
    join_group()
    print(embed(a.run, a.shards, a.out, a.views, split=a.split, each=a.samples))
    leave_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
