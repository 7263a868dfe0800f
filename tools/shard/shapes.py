"""Meshes and point files -> shards of {npy, txt, json}: points (n, 9) float32, place, normal and colour.

SOURCE is a folder of OBJ, GLB, PLY, OFF or STL. Points are drawn evenly by area, the same ones in every run; a file of
points only gives some of its own, whose normals are 0. Colours, 0 to 1, are the material's, or 0.4 where the file has
none (Liu et al. 2023). The caption is the file's name in words. --classes are words of names: json's `class` is the
place of the first of them that the name has, -1 where it has none. --split-by names what is never in both parts: the
file's `name`, or its `folder`. OUT holds dataset.json, and quarantine.jsonl, a line with the reason for every file that
was left out.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distpre.errors import DataError
from tools.shard import spread
from tools.shard.spread import Workers
from tools.shard.writer import Left, Members, Unusable, counted, divided, quarantined, write_shards

MESHES = (".obj", ".glb", ".ply", ".off", ".stl")
NO_COLOUR = 0.4
UP = {"y": [[1, 0, 0], [0, 0, -1], [0, 1, 0]], "z": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]}  # to z upwards


@dataclass(frozen=True)
class Shape:
    """file: below `source`; up: which axis of the file points upwards; points: how many are drawn."""

    source: Path
    file: str
    points: int
    up: str
    template: str
    classes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return words(Path(self.file).stem)

    @property
    def kind(self) -> int:
        """Place in `classes`, -1 for none of them."""
        return next((i for i, word in enumerate(self.classes) if word in self.name.split()), -1)


def words(stem: str) -> str:
    """bathroomCabinet_A -> "bathroom cabinet a"."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[a-zA-Z])(?=\d)", " ", stem)
    return " ".join(re.split(r"[\s_\-.]+", parted)).strip().lower()


def sampled(shape: Shape) -> NDArray[np.float32]:
    """(points, 9). Raises Unusable, DataError where trimesh is absent, and what a reader raises."""
    try:
        import trimesh
    except ImportError as e:
        raise DataError(f"Meshes are read by trimesh, not installed: {e}.", "pip install 'distpre[shapes]'") from e
    rng = np.random.default_rng(int.from_bytes(hashlib.blake2b(shape.file.encode(), digest_size=8).digest(), "big"))
    loaded = trimesh.load(shape.source / shape.file)
    parts = loaded.dump() if isinstance(loaded, trimesh.Scene) else [loaded]
    meshes = [p for p in parts if isinstance(p, trimesh.Trimesh) and len(p.faces)]
    clouds = [p for p in parts if isinstance(p, trimesh.PointCloud) and len(p.vertices)]
    if meshes:
        drawn = _on_surface(meshes, shape.points, rng)
    elif clouds:
        drawn = _of_cloud(clouds[0], shape.points, rng)
    else:
        raise Unusable("holds no surface and no points")
    if not np.isfinite(drawn).all():
        raise Unusable("places that are not finite")
    turn = np.array(UP[shape.up], np.float64).T
    drawn[:, :3], drawn[:, 3:6] = drawn[:, :3] @ turn, drawn[:, 3:6] @ turn
    if np.ptp(drawn[:, :3], axis=0).max() == 0:
        raise Unusable("all points are one")
    return drawn.astype(np.float32)


def _on_surface(meshes: list[Any], n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    triangles = np.concatenate([m.triangles for m in meshes])
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    area = np.linalg.norm(normals, axis=1)
    if not np.isfinite(area).all() or area.sum() == 0:
        raise Unusable("its surface has no area" if np.isfinite(area).all() else "places that are not finite")
    colours = np.concatenate([_face_colours(m) for m in meshes])
    face = rng.choice(len(area), n, p=area / area.sum())
    a, b = rng.random((2, n, 1))
    outside = a + b > 1
    a, b = np.where(outside, 1 - a, a), np.where(outside, 1 - b, b)
    origin, one, two = triangles[face].transpose(1, 0, 2)
    return np.hstack(
        [origin + a * (one - origin) + b * (two - origin), normals[face] / area[face, None], colours[face]]
    )


def _of_cloud(cloud: Any, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    chosen = rng.choice(len(cloud.vertices), n, replace=len(cloud.vertices) < n)
    given = cloud.colors is not None and len(cloud.colors) == len(cloud.vertices)
    colours = cloud.colors[chosen, :3] / 255 if given else np.full((n, 3), NO_COLOUR)
    return np.hstack([cloud.vertices[chosen], np.zeros((n, 3)), colours])


def _face_colours(mesh: Any) -> NDArray[np.float64]:
    """(faces, 3): of a texture, the mean over a face's corners."""
    visual = mesh.visual
    plain = np.full((len(mesh.faces), 3), NO_COLOUR)
    if not visual.defined:
        return plain
    if visual.kind != "texture":
        return visual.face_colors[:, :3] / 255
    material = visual.material
    picture = getattr(material, "image", None) or getattr(material, "baseColorTexture", None)
    if visual.uv is not None and picture is not None and max(picture.size) > 2:  # 2 x 2: trimesh's for a missing file
        return visual.to_color().vertex_colors[:, :3][mesh.faces].mean(1) / 255
    return plain * 0 + np.asarray(material.main_color)[:3] / 255  # trimesh's default is 0.4 too


def _fault(shape: Shape) -> Left | None:
    try:
        sampled(shape)
    except (DataError, MemoryError):
        raise
    except Unusable as e:
        return Left(shape.file, str(e))
    except Exception as e:  # whatever a format's reader says of a damaged file
        return Left(shape.file, f"cannot be read: {type(e).__name__}: {e}")
    return None


def members(shape: Shape) -> Members:
    content = io.BytesIO()
    np.save(content, sampled(shape))
    facts = {"name": shape.name, "folder": str(Path(shape.file).parent), "file": shape.file, "class": shape.kind}
    caption = shape.template.replace("{}", shape.name)
    return {"npy": content.getvalue(), "txt": caption.encode(), "json": json.dumps(facts).encode()}


def write(
    source: str | Path,
    out: str | Path,
    *,
    points: int = 10000,
    up: str = "y",
    template: str = "{}",
    classes: tuple[str, ...] = (),
    split_by: str = "name",
    share: float = 0.0,
    shard_samples: int = 1000,
    workers: Workers = 1,
) -> str:
    """Writes train-*.tar and test-*.tar; returns a summary line. Raises DataError where nothing can be used."""
    source, folder = Path(source), Path(out)
    if "{}" not in template:
        raise DataError(f"--template {template!r} has no {{}}.", "Write {} where the shape's name goes.")
    files = (p.relative_to(source).as_posix() for p in sorted(source.rglob("*")) if p.suffix.lower() in MESHES)
    shapes = counted((Shape(source, file, points, up, template, classes) for file in files), str(source))
    faults = list(spread.spread(_fault, shapes, workers, "reading", chunk=8))
    left = [fault for fault in faults if fault]
    usable = [shape for shape, fault in zip(shapes, faults, strict=True) if fault is None]
    parts = divided(usable, lambda shape: shape.name if split_by == "name" else str(Path(shape.file).parent), share)
    if len(left) == len(shapes):
        raise DataError(f"{source}: none of {len(shapes)} files can be used; the first: {left[0].reason}.")
    for split, chosen in parts.items():
        if chosen:
            write_shards(folder, split, chosen, members, shard_samples=shard_samples, workers=workers)
    said = {"points": points, "up": up, "template": template, "classes": classes, "split_by": split_by, "share": share}
    (folder / "dataset.json").write_text(json.dumps(said, indent=1) + "\n")
    quarantined(folder, left)
    return (
        f"wrote {len(parts['train'])} shapes for training and {len(parts['test'])} held out, as tars in {out}; "
        f"{len(left)} left out (quarantine.jsonl)"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="the folder of meshes and point files")
    parser.add_argument("--out", required=True, help="folder of the shards")
    parser.add_argument("--points", type=int, default=10000, help="points of a shape (default 10000)")
    parser.add_argument(
        "--up", choices=UP, default="y", help="the files' upward axis (default y); shards have z upwards"
    )
    parser.add_argument("--template", default="{}", help="caption, {} is the name (default {})")
    parser.add_argument("--classes", nargs="*", default=[], help="words that name a class: chair table ...")
    parser.add_argument("--split-by", choices=("name", "folder"), default="name", help="default name")
    parser.add_argument("--held-out", type=float, default=0.0, help="share for test-*.tar (default 0)")
    parser.add_argument("--shard-samples", type=int, default=1000, help="shapes of a shard (default 1000)")
    spread.add_argument(parser)


def run(a: argparse.Namespace) -> str:
    return write(
        a.source,
        a.out,
        points=a.points,
        up=a.up,
        template=a.template,
        classes=tuple(a.classes),
        split_by=a.split_by,
        share=a.held_out,
        shard_samples=a.shard_samples,
        workers=a.workers,
    )
