"""python -m tools.shard KIND ..."""

from __future__ import annotations

import argparse
import importlib
import sys

from distpre.errors import program

KINDS = {
    "image-text": ("image_text", "pictures and captions: a folder, or a table of paths and captions"),
    "texts": ("texts", "texts that belong together, sentences and their translations, from a table"),
    "class-folder": ("class_folder", "one sub-folder of pictures a class"),
    "groups": ("groups", "files that belong together (views of a thing, visits of a person), from a table"),
    "arrays": ("arrays", "rows of numpy arrays: an .npz, or a folder of .npy"),
    "signals": ("signals", "recordings of people: WFDB, EDF, or tables"),
    "shapes": ("shapes", "meshes and point files: OBJ, GLB, PLY, OFF, STL"),
    "volumes": ("volumes", "volumes of people: NIfTI and DICOM series, with masks"),
    "oct": ("oct", "OCT scans of eyes: multi-frame DICOM, TIFF, pictures of B-scans"),
    "emoji": ("emoji", "the Noto emoji with their names and keywords"),
    "digits": ("digits", "scikit-learn's handwritten digits with captions"),
    "phantoms": ("phantoms", "made-up retinas: OCT volumes with en-face pictures"),
    "scenes": ("scenes", "made-up scenes: points of things, and what a teacher that errs says of them"),
}


@program
def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.shard", description="Data sets -> WebDataset tars.")
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    asked = next(iter(sys.argv[1:]), None)
    for kind, (module, text) in KINDS.items():
        subparser = kinds.add_parser(kind, help=text)
        if kind == asked:  # the others' libraries, torch among them, take seconds
            its = importlib.import_module(f"tools.shard.{module}")
            subparser.description = its.__doc__
            its.add_arguments(subparser)
    arguments = parser.parse_args()
    print(its.run(arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())
