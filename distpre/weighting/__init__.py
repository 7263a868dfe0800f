"""What is remembered of each sample of the data set, and what follows from it for the sample's next visit.

A weighting names its `columns` and the term it learns `of`; `weigh` says what is known of a batch's samples, `observe`
takes what the term said of them, `end_epoch` returns figures to log and a Histogram to draw, or None. One that needs a
number of samples says so: `fewest`.

Contents table: the name a recipe uses -> module:Class.
"""

CONTENTS = {
    "decided": "distpre.weighting.decided:Decided",  # the label that a gate gave (CAPro)
    "gmm_noise": "distpre.weighting.noise:GmmNoise",  # probability that a pair is wrong, from its loss (NEVLP)
    "hardest": "distpre.weighting.pace:Hardest",  # parts of samples with the largest errors (OCTCube)
    "inner_estimates": "distpre.weighting.estimates:InnerEstimates",  # moving means (SogCLR, FastCLIP)
    "top_share": "distpre.weighting.share:TopShare",  # the pairs that score highest or lowest, once (CleanCLIP)
}
