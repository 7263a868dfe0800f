"""Terms of the objective: Step -> TermResult. No parameters, no collectives of their own.

Contents table: the name a recipe uses -> module:Class.
"""

CONTENTS = {
    "contrast": "distpre.objectives.contrast:Contrast",  # CLIP, NT-Xent, SupCon ...: the one global contrast
    "distance": "distpre.objectives.distance:Distance",  # to a teacher: LwF, DER, PAR
}
