"""Which samples, in which order, read exactly once. ARCHITECTURE.md says how a sample flows; order.py is the heart."""
