"""Terms of the objective: Step -> TermResult. No parameters, no collectives of their own.

Contents table: the name a recipe uses -> module:Class.
"""

CONTENTS = {
    "contrast": "distpre.objectives.contrast:PairContrast",  # CLIP, SigLIP, InfoNCE, MoCo: two views
    "noise_ratio": "distpre.objectives.noise_ratio:NoiseRatio",  # NEVLP's ratio form
    "in_modal": "distpre.objectives.in_modal:InModal",  # SimCLR, SupCon: views of one modality
    "global_contrastive": "distpre.objectives.global_contrastive:GlobalContrastive",  # SogCLR, FastCLIP
    "distance": "distpre.objectives.distance:Distance",  # to a teacher: LwF, DER, PAR
    "off_diagonal": "distpre.objectives.off_diagonal:OffDiagonal",  # Mod-X
    "rehearsal": "distpre.objectives.rehearsal:Rehearsal",  # COCONUT: positives and negatives of two models
    "prototypes": "distpre.objectives.prototypes:Prototypes",  # of classes, with CAPro's gate of labels
    "hierarchical": "distpre.objectives.hierarchical:Hierarchical",  # time steps at every time scale (TS2Vec, COMET)
    "position": "distpre.objectives.position:Position",  # crops against the cells of their own volume (VoCo)
    "anchored": "distpre.objectives.anchored:Anchored",  # points against texts of their classes (CLIP2Scene)
    "group_consistency": "distpre.objectives.group_consistency:GroupConsistency",  # points of a cell agree (CLIP2Scene)
    "of_parts": "distpre.objectives.of_parts:OfParts",  # another term over parts of samples: points with pixels
    "masked_error": "distpre.objectives.masked_error:MaskedError",  # of hidden parts' pixels (MAE, OCTCube)
    "swapped_prediction": "distpre.objectives.swapped_prediction:SwappedPrediction",  # codes of another view (SwAV)
    "koleo": "distpre.objectives.koleo:KoLeo",  # spreads vectors out (Sablayrolles et al. 2019)
}
