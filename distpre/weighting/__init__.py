"""What is remembered of each sample of the data set, and what follows from it for the sample's next visit.

Contents table: the name a recipe uses -> module:Class.
"""

CONTENTS = {
    "gmm_noise": "distpre.weighting.noise:GmmNoise",  # probability that a pair is wrong, from its loss (NEVLP)
    "hardest": "distpre.weighting.pace:Hardest",  # parts of samples with the largest errors (OCTCube)
    "inner_estimates": "distpre.weighting.estimates:InnerEstimates",  # moving means (SogCLR, FastCLIP)
}
