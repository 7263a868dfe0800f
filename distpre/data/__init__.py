"""Which samples, in which order, read exactly once. ARCHITECTURE.md says how a sample flows; order.py is the heart.

Contents table: the name a recipe uses -> module:Class.
"""

PAIRINGS = {
    "apart": "distpre.data.pairing:Apart",  # one sample a participant in a global batch
    "blocks": "distpre.data.pairing:Blocks",  # M of a class together; hard negatives where the id is a cluster
    "neighbours": "distpre.data.pairing:Neighbours",  # a seed and some of its nearest together (OpenShape)
}
