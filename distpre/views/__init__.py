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
    "mask_steps": "distpre.views.signal:MaskSteps",  # of a signal: stretches masked in the encoder (TS2Vec)
    "magnitude_warp": "distpre.views.signal:MagnitudeWarp",  # of a signal: times a smooth curve
    "gaussian_noise": "distpre.views.signal:GaussianNoise",  # of a signal, in shares of its deviation
    "channel_permute": "distpre.views.signal:ChannelPermute",
    "time_warp": "distpre.views.signal:TimeWarp",  # of a signal: time runs unevenly
    "permute_parts": "distpre.views.signal:PermuteParts",  # of a signal: parts change places
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
    "some_of_scene": "distpre.views.scenes:SomeOfScene",  # points of a scene with all that is known of them
    "of_scene": "distpre.views.scenes:OfScene",  # one of a scene's arrays
    "super_nodes": "distpre.views.scenes:SuperNodes",  # of points: the cell of space that each lies in (CLIP2Scene)
    "mirror": "distpre.views.scenes:Mirror",  # points, along x and along y
    "rotate_joints": "distpre.views.skeleton:RotateJoints",  # of a body: each sensor worn otherwise
    "keep_joints": "distpre.views.skeleton:KeepJoints",  # of a body: some joints, the others zeros
    "only_joints": "distpre.views.skeleton:OnlyJoints",  # of a body: these joints
    "worn_at": "distpre.views.skeleton:WornAt",  # one sensor's signal at its joint of a body
    "repeat_to": "distpre.views.skeleton:RepeatTo",  # of a signal: first steps, or again from the start
    "resize_volume": "distpre.views.cells:ResizeVolume",
    "cells_and_boxes": "distpre.views.cells:CellsAndBoxes",  # of a volume: VoCo's base crops and random ones
    "box_overlaps": "distpre.views.cells:BoxOverlaps",  # the share of each of those boxes in each of those cells
    "cell_numbers": "distpre.views.cells:CellNumbers",  # the cell that holds most of each of them
    "patches": "distpre.views.cells:Patches",  # of a volume: all boxes at a stride
    "patch_labels": "distpre.views.cells:PatchLabels",  # of a mask: the label in the middle of each patch
    "flip_axes": "distpre.views.cells:FlipAxes",  # each part of a volume
    "quarter_turns": "distpre.views.cells:QuarterTurns",  # each part of a volume, about z
    "shift_intensity": "distpre.views.cells:ShiftIntensity",  # each part of a volume
    "normalise": "distpre.views.tubelets:Normalise",  # of a volume: its brightness
    "flip_volume": "distpre.views.tubelets:FlipVolume",
    "one_frame": "distpre.views.tubelets:OneFrame",  # of a volume
    "frame_part": "distpre.views.tubelets:FramePart",  # whereabouts that was
    "tubelets": "distpre.views.tubelets:Tubelets",  # a volume cut into them, some hidden
    "slices_along": "distpre.views.volume:SlicesAlong",  # of a volume, an axis
    "crop_slices": "distpre.views.volume:CropSlices",  # the same of all slices
    "hide_slices": "distpre.views.volume:HideSlices",  # a random share of them
    "one_transform": "distpre.views.volume:OneTransform",  # of a volume: of seven, another in each view
    "one_source": "distpre.views.sources:OneSource",  # of vectors from several sources one, or none (OpenShape)
    "one_of": "distpre.views.text:OneOf",  # one caption of several
    "say": "distpre.views.text:Say",  # a label in words, by templates
    "eda": "distpre.views.text:Eda",  # words replaced, inserted, swapped or deleted
    "tokenize": "distpre.views.text:Tokenize",  # text to token ids
}

TOKENIZERS = {
    "open_clip": "distpre.views.text:OpenClipTokenizer",
    "transformers": "distpre.views.text:TransformersTokenizer",
    "ngrams": "distpre.views.text:NgramTokenizer",  # words and parts of words, hashed
}
