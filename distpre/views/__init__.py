"""Views: a field of a sample + seeded rng -> array. Small ops, composed by a recipe.

Contents tables: the name a recipe uses -> module:Class.
"""

CONTENTS = {
    "resize": "distpre.views.image:Resize",  # to a square
    "center_crop": "distpre.views.image:CenterCrop",  # the middle square
    "random_resized_crop": "distpre.views.image:RandomResizedCrop",  # Inception crop (Szegedy et al. 2015)
    "random_shift": "distpre.views.image:RandomShift",  # by a few pixels
    "flip": "distpre.views.image:Flip",  # left to right
    "auto_augment": "distpre.views.image:AutoAugment",  # Cubuk et al. 2019
    "to_tensor": "distpre.views.image:ToTensor",  # floats, normalised, channels first
    "in_channel": "distpre.views.image:InChannel",  # of several: a stem each for kinds of pictures
    "cut_out": "distpre.views.signal:CutOut",  # of a signal: a stretch becomes 0
    "magnitude_warp": "distpre.views.signal:MagnitudeWarp",  # of a signal: times a smooth curve
    "gaussian_noise": "distpre.views.signal:GaussianNoise",  # of a signal, in shares of its deviation
    "channel_permute": "distpre.views.signal:ChannelPermute",
    "time_warp": "distpre.views.signal:TimeWarp",  # of a signal: time runs unevenly
    "one_segment": "distpre.views.signal:OneSegment",  # of all segments of a participant: two views take two
    "random_segment": "distpre.views.signal:RandomSegment",  # of a signal: some neighbouring time steps
    "middle_segment": "distpre.views.signal:MiddleSegment",
    "some_points": "distpre.views.points:SomePoints",
    "unit_sphere": "distpre.views.points:UnitSphere",  # of points: centred, the farthest at 1
    "drop_points": "distpre.views.points:DropPoints",
    "scale_shift": "distpre.views.points:ScaleShift",  # of points
    "rotate_upright": "distpre.views.points:RotateUpright",  # of points, about the upward axis
    "tilt": "distpre.views.points:Tilt",  # of points, a little about every axis
    "drop_colour": "distpre.views.points:DropColour",  # of points: all grey
    "point_channels": "distpre.views.points:PointChannels",  # places, normals, colours
    "resize_volume": "distpre.views.tubelets:ResizeVolume",
    "normalise": "distpre.views.tubelets:Normalise",  # of a volume: its brightness
    "flip_volume": "distpre.views.tubelets:FlipVolume",
    "one_frame": "distpre.views.tubelets:OneFrame",  # of a volume
    "frame_part": "distpre.views.tubelets:FramePart",  # whereabouts that was
    "tubelets": "distpre.views.tubelets:Tubelets",  # a volume cut into them, some hidden
    "one_of": "distpre.views.text:OneOf",  # one caption of several
    "eda": "distpre.views.text:Eda",  # words replaced, inserted, swapped or deleted
    "tokenize": "distpre.views.text:Tokenize",  # text to token ids
}

TOKENIZERS = {
    "open_clip": "distpre.views.text:OpenClipTokenizer",
    "transformers": "distpre.views.text:TransformersTokenizer",
}
