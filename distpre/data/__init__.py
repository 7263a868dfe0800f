"""Which samples, in which order, read from plain WebDataset tars by offset. The whole state is a position."""
