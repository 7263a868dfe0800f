"""Each encoder against its library's own model, on the same weights."""

import pytest
import torch

from distpre.errors import CheckpointError, RecipeError
from distpre.towers.encoders.open_clip import OpenClipImage, OpenClipText
from distpre.towers.encoders.timm import Timm, TimmStem1d
from distpre.towers.encoders.transformers import TransformersText
from distpre.types import Padded

IMAGE = {"image_size": 16, "patch_size": 8, "width": 32, "layers": 1, "head_width": 16}
TEXT = {"context_length": 6, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1}
BERT = {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 60}


@pytest.fixture(scope="module")
def clip():
    import open_clip

    torch.manual_seed(1)
    return open_clip.CustomTextCLIP(24, IMAGE, TEXT).eval()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_open_clip_checkpoint_initialises_both_towers(clip, tmp_path, suffix):
    path = tmp_path / f"clip{suffix}"
    if suffix == ".pt":
        torch.save({"state_dict": {f"module.{k}": v for k, v in clip.state_dict().items()}}, path)
    else:
        from safetensors.torch import save_file

        save_file(clip.state_dict(), path)
    image = OpenClipImage(config=IMAGE, embed_dim=24, weights=str(path)).eval()
    text = OpenClipText(config=TEXT, embed_dim=24, weights=str(path)).eval()
    x, tokens = torch.randn(3, 3, 16, 16), torch.randint(1, 50, (3, 6))
    assert torch.equal(image(x)[0], clip.encode_image(x))
    assert torch.equal(text(tokens)[0], clip.encode_text(tokens))


def test_flat_clip_checkpoint_initialises_the_text_tower(tmp_path):
    import open_clip

    flat = open_clip.CLIP(24, IMAGE, TEXT).eval()
    torch.save(flat.state_dict(), tmp_path / "flat.pt")
    text = OpenClipText(config=TEXT, embed_dim=24, weights=str(tmp_path / "flat.pt")).eval()
    tokens = torch.randint(1, 50, (3, 6))
    torch.testing.assert_close(text(tokens)[0], flat.encode_text(tokens))


def test_checkpoint_of_another_shape_names_the_key(clip, tmp_path):
    torch.save(clip.state_dict(), tmp_path / "clip.pt")
    with pytest.raises(CheckpointError, match="visual.class_embedding is .*32.*64"):
        OpenClipImage(config=IMAGE | {"width": 64}, embed_dim=24, weights=str(tmp_path / "clip.pt"))
    with pytest.raises(CheckpointError, match="no such weights file"):
        OpenClipImage(config=IMAGE, embed_dim=24, weights=str(tmp_path / "absent.pt"))


def test_a_published_open_clip_model_builds_by_name():
    encoder = OpenClipText(model="RN50", config={"layers": 1})
    assert encoder.width == 1024 and encoder.text.token_embedding.weight.shape == (49408, 512)


def test_wrong_names_are_refused_with_the_nearest():
    with pytest.raises(RecipeError, match="ViT-B-32"):
        OpenClipImage(model="ViT-B-31")
    with pytest.raises(RecipeError, match="resnet18"):
        Timm("resnet17")
    with pytest.raises(RecipeError, match="widht"):
        OpenClipImage(config={"widht": 3}, embed_dim=8)
    with pytest.raises(RecipeError, match="cannot build"):
        TransformersText(model="/no/such/folder")


def test_timm_encoder_gives_pooled_features():
    encoder = Timm("test_vit", config={"img_size": 32})
    pooled, taps = encoder(torch.randn(2, 3, 32, 32))
    assert pooled.shape == (2, encoder.width) and taps == {}


@pytest.mark.parametrize("pool", ["mean", "first"])
def test_transformers_text_ignores_padding(pool):
    encoder = TransformersText(config=BERT, pool=pool).eval()
    tokens = torch.randint(1, 60, (1, 4))
    short = encoder(Padded(tokens, torch.ones(1, 4, dtype=torch.bool)))[0]
    longer = torch.cat([tokens, torch.full((1, 3), 7)], 1)
    mask = torch.arange(7)[None] < 4
    torch.testing.assert_close(encoder(Padded(longer, mask))[0], short, rtol=1e-5, atol=1e-6)


def test_transformers_folder_initialises_the_tower(tmp_path):
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    saved = AutoModel.from_config(AutoConfig.for_model(**BERT)).eval()
    saved.save_pretrained(tmp_path)
    encoder = TransformersText(model=str(tmp_path), pool="first").eval()
    tokens = torch.randint(1, 60, (2, 5))
    torch.testing.assert_close(encoder(tokens)[0], saved(input_ids=tokens).last_hidden_state[:, 0])


VIT = {"img_size": [1, 46], "patch_size": 1, "embed_dim": 32, "depth": 2, "num_heads": 2}
STEM = {"channels": 12, "samples": 250, "stem": [[16, 5, 5], [32, 5, 1]]}


def test_a_stem_over_time_takes_the_place_of_a_timm_vits_patches():
    encoder, x = TimmStem1d("vit_tiny_patch16_224", **STEM, config=VIT), torch.randn(3, 12, 250)
    pooled, _ = encoder(x)
    assert pooled.shape == (3, 32) and encoder.net.patch_embed(x).shape == (3, 46, 32)
    torch.testing.assert_close(encoder(x[1:2])[0], pooled[1:2], rtol=1e-4, atol=1e-5)
    (pooled * torch.randn_like(pooled)).sum().backward()
    assert not [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    with pytest.raises(RecipeError, match="makes 45 tokens of width 32; .* has 46 patches of width 32"):
        TimmStem1d("vit_tiny_patch16_224", 12, 245, [[16, 5, 5], [32, 5, 1]], config=VIT)


def test_the_papers_stem_makes_196_tokens_of_twelve_leads():
    """MoRE: a thousand time steps, five a token, and four places lost at the ends of the second convolution."""
    small = {"embed_dim": 64, "depth": 1, "num_heads": 2}
    encoder = TimmStem1d("vit_base_patch16_224", 12, 1000, [[256, 5, 5], [64, 5, 1]], config=small)
    assert encoder.net.pos_embed.shape == (1, 197, 64)


def test_drop_key_takes_keys_from_queries_while_training_only():
    plain, dropping = (TimmStem1d("vit_tiny_patch16_224", **STEM, config=VIT, drop_key=p) for p in (0.0, 0.3))
    dropping.load_state_dict(plain.state_dict())
    x, masks = torch.randn(4, 12, 250), []
    torch.testing.assert_close(dropping.eval()(x)[0], plain.eval()(x)[0])
    for block in dropping.net.blocks:
        block.attn.register_forward_pre_hook(lambda m, given, said: masks.append(said["attn_mask"]), with_kwargs=True)
    dropping.train()(x)
    for mask in masks:
        assert mask.shape == (4, 2, 47, 47) and set(mask.unique().tolist()) == {mask.min().item(), 0.0}
        assert abs((mask < -1e11).double().mean() - 0.3) < 0.02
    assert len(masks) == 2 and not torch.equal(masks[0], masks[1])
    assert not torch.equal(dropping(x)[0], dropping(x)[0])
    with pytest.raises(RecipeError, match="no attention of timm's"):
        Timm("resnet18", drop_key=0.3)
