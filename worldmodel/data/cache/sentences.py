"""Vectors of tasks in words, from a sentence encoder of yours; they are kept in the cache."""

from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256

import torch
from jaxtyping import Float
from torch import Tensor

from conditioning.words import WordsConfig
from worldmodel.data.clip import EpisodeSource
from worldmodel.files import default_cache_folder, read_weights, write_weights
from worldmodel.resolve import is_spec, one_line, resolve, source_hash

TABLE = "table"


def encode_sentences(spec: str, sentences: Sequence[str]) -> Float[Tensor, "n q"]:
    """The vectors of sentences, from the cache or, for those that are not there, from the encoder.

    Args:
        spec: `module:name` of a function from a list of `n` sentences to `n` vectors, as a tensor, an array or lists.
            A change of its file makes new entries in the cache.
        sentences: The sentences.

    Raises:
        ValueError: There is no such function, it fails, or it does not return one vector for each sentence.
    """
    folder = default_cache_folder() / "sentences"
    source = source_hash(spec, "encoder")
    files = {each: folder / f"{_key(spec, source, each)}.safetensors" for each in sentences}
    missing = [each for each, file in files.items() if not file.is_file()]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        for each, vector in zip(missing, _ask(spec, missing), strict=True):
            write_weights(files[each], {"vector": vector})
    return torch.stack([read_weights(files[each])["vector"] for each in sentences])


def encoder_of(config: WordsConfig) -> Callable[[Sequence[str]], Float[Tensor, "n q"]] | None:
    """What a model asks about a new task: its sentence encoder, or `None` for a table."""
    return partial(encode_sentences, config.encoder) if config.encoder else None


def words_of(source: EpisodeSource, episodes: Sequence[int], spec: str | None) -> WordsConfig:
    """How a model that learns from these episodes is told the task.

    Args:
        source: The data.
        episodes: The episodes to learn from.
        spec: `table`, `module:name` of a sentence encoder, or `None` for a model that is not told.

    Raises:
        ValueError: It is neither, an episode has no task in words, or all have the same.
    """
    if spec is None:
        return WordsConfig()
    if spec != TABLE and not is_spec(spec):
        raise ValueError(f"--task-words is {TABLE}, or module:name of a sentence encoder, got {spec!r}")
    tasks = tuple(sorted({source.task(episode) for episode in episodes}))
    if "" in tasks:
        number = next(episode for episode in episodes if not source.task(episode))
        raise ValueError(f"{source.name}: episode {number} has no task in words, which --task-words {spec} needs")
    if len(tasks) < 2:
        raise ValueError(
            f"{source.name}: every episode has the task {tasks[0]!r}, so --task-words {spec} has nothing to tell apart"
        )
    if spec == TABLE:
        return WordsConfig(tasks)
    return WordsConfig(tasks, spec, encode_sentences(spec, tasks).shape[1])


def known_rows(config: WordsConfig) -> Float[Tensor, "n q"]:
    """The vectors of the tasks of the training data, for a model with a sentence encoder."""
    return encode_sentences(config.encoder, config.tasks)


def _ask(spec: str, sentences: list[str]) -> Float[Tensor, "n q"]:
    encoder = resolve(spec, "encoder")
    try:
        with torch.no_grad():
            vectors = torch.as_tensor(encoder(sentences)).detach().float().cpu()
    except Exception as error:
        raise ValueError(f"encoder {spec}: fails for {len(sentences)} sentences: {one_line(error)}") from error
    if vectors.dim() != 2 or len(vectors) != len(sentences) or not vectors.isfinite().all():
        raise ValueError(
            f"encoder {spec}: returns the shape {tuple(vectors.shape)} for {len(sentences)} sentences, expected one "
            "vector of finite numbers for each"
        )
    return vectors.contiguous()


def _key(spec: str, source: str, sentence: str) -> str:
    return sha256("\n".join([spec, source, sentence]).encode()).hexdigest()[:24]
