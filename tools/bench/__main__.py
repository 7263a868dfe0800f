"""python -m tools.bench NAME ..."""

from __future__ import annotations

import importlib
import sys

BENCHES = {
    "commit": "tools.bench.commit",
    "contrast": "tools.bench.contrast",
    "loader": "tools.bench.loader",
    "state": "tools.bench.state",
    "teacher": "tools.bench.teacher",
}


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in BENCHES:
        print(f"usage: python -m tools.bench {{{','.join(BENCHES)}}} ...", file=sys.stderr)
        return 2
    return importlib.import_module(BENCHES[sys.argv[1]]).main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
