"""Benches: ours and a peer in turn, in one run, on the same work; ratios. `python -m tools.bench NAME ...`."""
