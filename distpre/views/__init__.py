"""Views: a field of a sample + seeded rng -> array. Small ops, composed by a recipe.

Contents tables: the name a recipe uses -> module:Class.
"""

CONTENTS = {
    "resize": "distpre.views.image:Resize",  # to a square
    "center_crop": "distpre.views.image:CenterCrop",  # the middle square
    "random_resized_crop": "distpre.views.image:RandomResizedCrop",  # Inception crop (Szegedy et al. 2015)
    "random_shift": "distpre.views.image:RandomShift",  # by a few pixels
    "flip": "distpre.views.image:Flip",  # left to right
    "to_tensor": "distpre.views.image:ToTensor",  # floats, normalised, channels first
    "one_of": "distpre.views.text:OneOf",  # one caption of several
    "tokenize": "distpre.views.text:Tokenize",  # text to token ids
}

TOKENIZERS = {
    "open_clip": "distpre.views.text:OpenClipTokenizer",
    "transformers": "distpre.views.text:TransformersTokenizer",
}
