"""Everything with parameters: encoders, heads, teachers, and the Model that holds them.

Contents tables: the name a recipe uses -> module:Class. A name like "my_lab.nets:MyEncoder" needs no row here.
"""

ENCODERS = {
    "open_clip_image": "distpre.towers.encoders.open_clip:OpenClipImage",  # open_clip image towers, by model or config
    "open_clip_text": "distpre.towers.encoders.open_clip:OpenClipText",  # open_clip text towers, by model or config
    "timm": "distpre.towers.encoders.timm:Timm",  # any timm vision model, by name
    "timm_stem1d": "distpre.towers.encoders.timm:TimmStem1d",  # signals through a timm ViT (MoRE)
    "transformers_text": "distpre.towers.encoders.transformers:TransformersText",  # any transformers encoder
    "efficientnet1d": "distpre.towers.encoders.signal:EfficientNet1d",  # signals (Abbaspourazad et al. 2024)
    "resnet1d": "distpre.towers.encoders.signal:ResNet1d",  # signals
    "vit1d": "distpre.towers.encoders.signal:ViT1d",  # signals, timm's ViT in patches of time
    "dilated1d": "distpre.towers.encoders.dilated:Dilated1d",  # signals, a vector a time step (TS2Vec, COMET)
    "st_gcn": "distpre.towers.encoders.skeleton:StGcn",  # motion at the joints of a body (UniMTS)
    "features": "distpre.towers.encoders.features:Features",  # vectors as they are, for a head
    "point_patches": "distpre.towers.encoders.points:PointPatches",  # shapes (Point-BERT, OpenShape)
    "point_graph": "distpre.towers.encoders.point_graph:PointGraph",  # scenes, a vector a point (DGCNN, PointNet++)
    "resnet3d": "distpre.towers.encoders.resnet3d:ResNet3d",  # volumes, or parts of them
    "tubelets": "distpre.towers.encoders.tubelets:Tubelets",  # volumes, whole or with parts hidden (OCTCube)
    "slices": "distpre.towers.encoders.slices:Slices",  # volumes slice by slice, and single images (Nguyen et al. 2023)
}

HEADS = {
    "linear": "distpre.towers.heads.projection:Linear",  # one matrix
    "linear_pair": "distpre.towers.heads.projection:LinearPair",  # two matrices, a term each (CLIP2Scene)
    "mlp": "distpre.towers.heads.projection:Mlp",  # layers with GELU between
    "side_by_side": "distpre.towers.heads.projection:SideBySide",  # every time step of a tap (COMET)
    "part_mlp": "distpre.towers.heads.parts:PartMlp",  # layers, each standardised over a sample's parts (VoCo)
    "predicted": "distpre.towers.heads.projection:Predicted",  # mlp and, in training, a predictor behind it (BYOL)
    "masked_decoder": "distpre.towers.heads.masked:MaskedDecoder",  # hidden tubelets drawn (MAE, OCTCube)
    "prototypes": "distpre.towers.heads.prototypes:Prototypes",  # cosines with learned centres (SwAV)
    "slice_prototypes": "distpre.towers.heads.prototypes:SlicePrototypes",  # of images and of volumes; hidden slices
}

TEACHERS = {
    "ema": "distpre.towers.teachers:Ema",  # exponential mean of the student (MoCo, BYOL, DINO)
    "previous": "distpre.towers.teachers:Previous",  # the student at the stage's start (Mod-X, LwF)
    "frozen": "distpre.towers.teachers:Frozen",  # weights of a run, a stage or an open_clip checkpoint
    "cached": "distpre.towers.teachers:Cached",  # what `tools.embed` wrote into the samples, without weights
    "fisher": "distpre.towers.teachers:Fisher",  # how much each weight matters to earlier stages (EWC)
}
