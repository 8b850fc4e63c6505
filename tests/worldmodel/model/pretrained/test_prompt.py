"""A prompt is encoded once, by the pipeline's own text encoder."""

import pytest
import tokenizers
import torch
import transformers
from tiny_backbone import BACKBONES, CHANNELS, TEXT, write_wan

from worldmodel.model.precision import full_precision
from worldmodel.model.pretrained.config import PretrainedConfig
from worldmodel.model.pretrained.prompt import settled, t5_tokens
from worldmodel.model.pretrained.source import open_source


def write_text_encoder(folder):
    """A random UMT5 of one layer, and a tokenizer that knows three words."""
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2, "push": 3, "the": 4, "block": 5}
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    plain.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(folder / "tokenizer")
    torch.manual_seed(0)
    config = transformers.UMT5Config(vocab_size=6, d_model=TEXT, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    transformers.UMT5EncoderModel(config).save_pretrained(folder / "text_encoder")


def test_none_needs_no_text_encoder_and_a_prompt_says_so(tmp_path):
    folder = write_wan(tmp_path / "wan")
    config, tokens = settled(PretrainedConfig(str(folder)), None)
    assert (config.prompt_tokens, tokens) == (0, None)
    assert config.fingerprint == open_source(config).fingerprint()
    with pytest.raises(ValueError, match=r"--prompt 'push': .* has no folder tokenizer; --prompt none needs none"):
        settled(PretrainedConfig(str(folder), prompt="push"), None)


def test_the_tokens_of_a_prompt_are_those_of_the_text_encoder(tmp_path):
    folder = write_wan(tmp_path / "wan")
    write_text_encoder(folder)
    config, tokens = settled(PretrainedConfig(str(folder), prompt="push  the\nblock"), None)
    assert config.prompt_tokens == 4 and tokens.shape == (4, TEXT)
    encoder = transformers.UMT5EncoderModel.from_pretrained(folder / "text_encoder").eval()
    padded = torch.tensor([[3, 4, 5, 1, 0, 0]])
    with torch.no_grad():
        wanted = encoder(padded, attention_mask=(padded > 0).long()).last_hidden_state[0, :4]
    torch.testing.assert_close(tokens, wanted, atol=1e-5, rtol=1e-4)
    assert t5_tokens(folder, "push the block", 2).shape == (2, TEXT)


def write_qwen(folder):
    """A random Qwen2.5-VL of two layers of half a token's width, and a tokenizer with a template of conversations."""
    words = {"<pad>": 0, "system": 1, "user": 2, "push": 3, "the": 4, "block": 5, "<unk>": 6}
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", unk_token="<unk>")
    fast.chat_template = "{% for m in messages %}{{ m.role }} {{ m.content[0].text }} {% endfor %}"
    fast.save_pretrained(folder / "tokenizer")
    torch.manual_seed(0)
    text = {"vocab_size": 7, "hidden_size": TEXT // 2, "intermediate_size": 16, "num_hidden_layers": 2}
    heads = {
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
    }
    eyes = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": TEXT // 2}
    config = transformers.Qwen2_5_VLConfig(text_config={**text, **heads}, vision_config=eyes)
    transformers.Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder / "text_encoder")


def test_newer_cosmos_reads_all_layers_of_its_text_encoder_and_the_padding(tmp_path):
    folder = BACKBONES["cosmos"](tmp_path / "cosmos")
    write_qwen(folder)
    config, tokens = settled(PretrainedConfig(str(folder), prompt="push  the\nblock"), None)
    assert config.prompt_tokens == 512 and tokens.shape == (512, TEXT)
    for layer in tokens.unflatten(1, (2, -1)).unbind(1):
        torch.testing.assert_close(layer.mean(1), torch.zeros(512), atol=1e-5, rtol=0)
        torch.testing.assert_close(layer.std(1), torch.ones(512), atol=1e-4, rtol=0)
    assert len(tokens[-9:].round(decimals=4).unique(dim=0)) == 9  # so they cannot stand for each other
    other = settled(PretrainedConfig(str(folder), prompt="push the <unk>"), None)[1]
    assert not torch.equal(other, tokens)
    with full_precision():
        source = open_source(config)
        shape = {"num_views": 1, "latent_shape": (CHANNELS, 4, 4), "state_dim": 0}
        dit = source.build(config, size=(8, 8), codec=source.codec(), seconds=0.25, **shape)
        dit.prompt.copy_(tokens)
        text, bias = dit._text()
    assert text.shape[0] == 512 and not bias.any()


def test_another_text_encoder_is_named(tmp_path):
    folder = BACKBONES["cosmos"](tmp_path / "cosmos")
    for part in ("tokenizer", "text_encoder"):
        (folder / part).mkdir()
    (folder / "text_encoder" / "config.json").write_text('{"architectures": ["BertModel"]}')
    with pytest.raises(ValueError, match="the text encoder is BertModel, known are T5EncoderModel and Qwen2_5_VL"):
        settled(PretrainedConfig(str(folder), prompt="push"), None)


def test_another_network_to_start_from_is_refused(tmp_path):
    folder = write_wan(tmp_path / "wan")
    config, _ = settled(PretrainedConfig(str(folder)), None)
    start = PretrainedConfig("elsewhere", fingerprint=config.fingerprint, window=3)
    assert settled(config, start) == (start, None)
    with pytest.raises(ValueError, match="--init has the pretrained transformer other, --backbone"):
        settled(config, PretrainedConfig("elsewhere", fingerprint="other"))
