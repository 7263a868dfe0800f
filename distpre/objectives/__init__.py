"""Terms of the objective: Step -> TermResult. No parameters, no collectives of their own.

Contents table: the name a recipe uses -> module:Class.
"""

CONTENTS = {
    "contrast": "distpre.objectives.contrast:Contrast",  # CLIP, NT-Xent, SupCon ...: the one global contrast
    "koleo": "distpre.objectives.koleo:KoLeo",  # spreads vectors out (Sablayrolles et al. 2019)
}
