"""Evaluators: frozen towers and held-out data -> rows of a table.

Contents table: the name a recipe uses -> module:Class.
"""

CONTENTS = {
    "zero_shot": "distpre.evaluators.zero_shot:ZeroShot",  # classification by prompts
    "attack_success": "distpre.evaluators.attack_success:AttackSuccess",  # clean accuracy and success of a trigger
    "retrieval": "distpre.evaluators.retrieval:Retrieval",  # R@k in both directions
}
