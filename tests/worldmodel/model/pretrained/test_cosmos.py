"""The family of Cosmos; its passes are compared with diffusers in `test_pretrained_dit`."""

import pytest
import torch
from diffusers import CosmosTransformer3DModel
from tiny_backbone import CHANNELS, tiny_cosmos, write_wan

from worldmodel.model.pretrained.adapters import add_adapters
from worldmodel.model.pretrained.config import PretrainedConfig
from worldmodel.model.pretrained.cosmos import Cosmos
from worldmodel.model.pretrained.dit import PretrainedDiT
from worldmodel.model.pretrained.family import Family
from worldmodel.model.pretrained.source import open_source

SHAPE = {"num_views": 2, "latent_shape": (CHANNELS, 4, 4), "state_dim": 2}
REAL = {
    "in_channels": 17,
    "out_channels": 16,
    "num_attention_heads": 16,
    "attention_head_dim": 128,
    "num_layers": 28,
    "adaln_lora_dim": 256,
    "text_embed_dim": 1024,
    "extra_pos_embed_type": None,
}
NEWER = {"use_crossattn_projection": True, "crossattn_proj_in_channels": 100352, "encoder_hidden_states_channels": 1024}


def test_a_pipeline_with_cosmos_is_found_and_loaded(tmp_path):
    config = PretrainedConfig(str(write_wan(tmp_path, transformer=tiny_cosmos)), lora_rank=2)
    source = open_source(config)
    dit = source.build(config, size=(8, 8), codec=source.codec(), seconds=0.25, **SHAPE)
    assert isinstance(dit.family, Cosmos)
    assert dit.spacing == 1.5
    assert isinstance(dit.family, Family)
    wanted, found = tiny_cosmos().state_dict(), dict(dit.transformer.named_parameters())
    for name, tensor in wanted.items():
        held = found[name if name in found else name.replace(".weight", ".base_layer.weight")]
        assert torch.equal(held, tensor) or held.dtype == torch.bfloat16
    trained = {name.split(".lora_")[0] for name, tensor in found.items() if tensor.requires_grad}
    assert len(trained) == 2 * len(Cosmos.adapted)  # of two blocks


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"extra_pos_embed_type": "learnable"}, "this is Cosmos 1, with learned positions"),
        ({"in_channels": 16}, "in_channels is 16 and out_channels 16, expected one more"),
        ({"img_context_dim_in": 1152}, "also reads other pictures"),
        ({"controlnet_block_every_n": 7}, "also reads other pictures"),
        ({"patch_size": [2, 2, 2]}, r"patch_size is \[2, 2, 2\], expected \[1, p, p\]"),
    ],
)
def test_other_transformers_of_the_class_are_refused_in_one_line(changed, wanted):
    Cosmos.check(REAL, "config.json")
    with pytest.raises(ValueError, match=f"^config.json: .*{wanted}") as caught:
        Cosmos.check({**REAL, **changed}, "config.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("newer", "billions", "rate", "text"), [({}, 1.96, 6.0, 1024), (NEWER, 2.06, 4.0, 100352)], ids=["2", "2.5"]
)
def test_a_world_of_the_real_size_saves_less_than_five_percent_of_it(newer, billions, rate, text):
    with torch.device("meta"):
        family = Cosmos(CosmosTransformer3DModel(**REAL, **newer))
        base = sum(each.numel() for each in family.transformer.parameters())
        shape = {"num_views": 3, "latent_shape": (16, 24, 40), "state_dim": 8, "spacing": 0.5}
        dit = PretrainedDiT(PretrainedConfig("real"), family, **shape)
        add_adapters(dit.transformer, family.adapted, {"world": 32})
    assert base / 1e9 == pytest.approx(billions, abs=0.01)
    assert (family.position_rate, family.text_width) == (rate, text)
    saved = sum(each.numel() for each in dit.parameters() if each.requires_grad)
    assert 0.01 < saved / base < 0.05


def test_known_frames_are_marked_and_have_the_noise_level_of_the_pretraining():
    """A frame without noise is a known one: 1e-4 in Predict2, 0.1 in 2.5, whatever is near it."""
    tau = torch.tensor([[1.0, 0.9999, 0.9]])
    latents = torch.zeros(1, 3, 1, CHANNELS, 4, 4)
    for newer, same in ((False, 1), (True, 2)):
        family = Cosmos(tiny_cosmos(newer=newer))
        tokens = family.enter(latents, tau)
        marked = family.transformer.patch_embed.proj.weight.unflatten(1, (CHANNELS + 2, 4))[:, CHANNELS].sum(1)
        torch.testing.assert_close(tokens[0, 0, 0], marked.expand_as(tokens[0, 0, 0]))
        assert torch.equal(tokens[0, 1:], torch.zeros_like(tokens[0, 1:]))
        first, *others = family.levels(tau)[0][0]
        torch.testing.assert_close(first, others[same - 1], atol=1e-5, rtol=0)
        assert not torch.allclose(first, others[2 - same], atol=1e-5, rtol=0)
