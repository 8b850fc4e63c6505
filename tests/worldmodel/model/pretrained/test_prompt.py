"""A prompt is encoded once, by the pipeline's own text encoder."""

import pytest
import tokenizers
import torch
import transformers
from tiny_backbone import TEXT, write_wan

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


def test_another_network_to_start_from_is_refused(tmp_path):
    folder = write_wan(tmp_path / "wan")
    config, _ = settled(PretrainedConfig(str(folder)), None)
    start = PretrainedConfig("elsewhere", fingerprint=config.fingerprint, window=3)
    assert settled(config, start) == (start, None)
    with pytest.raises(ValueError, match="--init has the pretrained transformer other, --backbone"):
        settled(config, PretrainedConfig("elsewhere", fingerprint="other"))
