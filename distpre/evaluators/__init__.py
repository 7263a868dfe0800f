"""Evaluators: frozen towers and held-out data -> rows of a table.

Contents table: the name a recipe uses -> module:Class.
"""

CONTENTS = {
    "zero_shot": "distpre.evaluators.zero_shot:ZeroShot",  # classification by prompts
    "attack_success": "distpre.evaluators.attack_success:AttackSuccess",  # clean accuracy and success of a trigger
    "retrieval": "distpre.evaluators.retrieval:Retrieval",  # R@k between views, or within one
    "probe": "distpre.evaluators.probe:Probe",  # linear and ridge, by participant
    "assignment": "distpre.evaluators.assignment:Assignment",  # of crops to cells of their volume (VoCo)
    "part_probe": "distpre.evaluators.part_probe:PartProbe",  # linear, of patches of volumes
    "iou": "distpre.evaluators.iou:Iou",  # of points named by the likest text, without annotation (CLIP2Scene)
    "knn": "distpre.evaluators.knn:Knn",  # nearest neighbours of other participants
    "geometry": "distpre.evaluators.geometry:Geometry",  # effective rank, alignment, uniformity
}
