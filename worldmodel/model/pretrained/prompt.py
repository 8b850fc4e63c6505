"""The prompt of a pretrained transformer: encoded once, when training starts, and then kept with the world model."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.files import fetch_from_hub, is_on_hub, read_object
from worldmodel.model.dit import DiTConfig
from worldmodel.model.pretrained.config import PretrainedConfig
from worldmodel.model.pretrained.source import Source, open_source
from worldmodel.resolve import resolve

NONE = "none"
ENCODER_PARTS = ["tokenizer/*", "text_encoder/*.json", "text_encoder/*.safetensors"]


def settled(
    config: PretrainedConfig, start: DiTConfig | PretrainedConfig | None
) -> tuple[PretrainedConfig, Float[Tensor, "k c"] | None]:
    """The configuration with what is only known once the transformer is found, and the tokens of its prompt.

    Args:
        config: The settings of the user.
        start: The network of the world model that training starts from.

    Raises:
        ValueError: The transformer or its text encoder is missing, or `start` has another network.
    """
    source = open_source(config)
    found = source.fingerprint()
    if start is not None:
        theirs = start.fingerprint if isinstance(start, PretrainedConfig) else "none"
        if theirs != found:
            raise ValueError(f"--init has the pretrained transformer {theirs}, --backbone {source.name} is {found}")
        return start, None
    tokens = None if config.prompt == NONE else encode_prompt(source, config.prompt)
    number = 0 if tokens is None else len(tokens)
    return replace(config, backbone=source.pinned, fingerprint=found, prompt_tokens=number), tokens


def encode_prompt(source: Source, prompt: str) -> Float[Tensor, "k c"]:
    """The tokens of a prompt.

    Raises:
        ValueError: The pipeline has no text encoder.
    """
    folder = source.folder
    if is_on_hub(source.name):
        folder = fetch_from_hub(source.pinned, ENCODER_PARTS)
    for part in ("tokenizer", "text_encoder"):
        if not (folder / part).is_dir():
            raise ValueError(f"--prompt {prompt!r}: {source.name} has no folder {part}; --prompt none needs none")
    print(f"{source.name}: encoding the prompt {prompt!r}", flush=True)
    return source.family.encode_prompt(folder, prompt)


@torch.no_grad()
def t5_tokens(folder: Path, prompt: str, longest: int) -> Float[Tensor, "k c"]:
    """The last layer of a T5 encoder at the tokens of a prompt, at most `longest` of them, in fp32.

    Raises:
        ValueError: The package transformers, which peft brings, is not installed.
    """
    names = read_object(folder / "text_encoder" / "config.json").get("architectures") or ["T5EncoderModel"]
    kinds = [resolve(f"transformers:{name}", "the text encoder's") for name in ("AutoTokenizer", names[0])]
    tokenizer = kinds[0].from_pretrained(folder / "tokenizer", local_files_only=True)
    encoder = kinds[1].from_pretrained(folder / "text_encoder", use_safetensors=True, local_files_only=True)
    text = tokenizer([" ".join(prompt.split())], max_length=longest, truncation=True, return_tensors="pt")
    states = encoder.eval()(text.input_ids, attention_mask=text.attention_mask).last_hidden_state
    return states[0].float()


@torch.no_grad()
def qwen_tokens(folder: Path, prompt: str, number: int) -> Float[Tensor, "k c"]:
    """All layers of Qwen2.5-VL side by side, each token of each normalised, as Cosmos-Predict2.5 reads it, in fp32.

    The prompt stands in a conversation, which is padded to `number` tokens without a mask, so that the padding has
    states of its own. All this is done by the pipeline of diffusers.

    Raises:
        ValueError: The package transformers, which peft brings, is not installed.
    """
    kinds = [
        resolve(f"transformers:{name}", "the text encoder's")
        for name in ("AutoTokenizer", "Qwen2_5_VLForConditionalGeneration")
    ]
    from diffusers.pipelines.cosmos.pipeline_cosmos2_5_predict import Cosmos2_5_PredictBasePipeline as Pipeline

    tokenizer = kinds[0].from_pretrained(folder / "tokenizer", local_files_only=True)
    options = {"use_safetensors": True, "local_files_only": True, "dtype": "auto"}
    encoder = kinds[1].from_pretrained(folder / "text_encoder", **options).eval()
    parts = SimpleNamespace(tokenizer=tokenizer, text_encoder=encoder, _execution_device=encoder.device)
    words = " ".join(prompt.split())
    return Pipeline._get_prompt_embeds(parts, words, max_sequence_length=number)[0].float()
