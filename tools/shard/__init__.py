"""Data sets -> WebDataset tars: `python -m tools.shard KIND ...`."""
