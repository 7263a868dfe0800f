"""Programs run by hand on data and machines: `python -m tools.X`."""
