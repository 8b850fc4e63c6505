"""The frames of a data set as latents, encoded once into one file."""

import hashlib
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import nn

from worldmodel.data.clip import Clip, EpisodeSource
from worldmodel.display.progress import ProgressLine
from worldmodel.files import default_cache_folder, naming
from worldmodel.model.codec import LatentCodec

FORMAT = 1
PIECE_FRAMES = 64
"""Frames that are read and encoded at once."""


class LatentCache:
    """An `EpisodeSource` whose clips have `latents` beside their frames.

    Every frame is encoded by itself, so the latents of a frame are the same in all clips. They are kept in fp16,
    in a folder named after the data, its size and cameras, and the weights of the codec. The cache is built in another
    folder and then moved into place; when several processes need it, one builds it and the others wait.

    Args:
        source: Any episode source.
        codec: Encodes the frames, on the device of its weights.
        folder: The folder of all caches; by default `default_cache_folder()`.

    Raises:
        ValueError: From the source.
        OSError: The disk is full.
    """

    def __init__(self, source: EpisodeSource, codec: LatentCodec, folder: Path | None = None):
        self.source = source
        self.name, self.views, self.fps = source.name, source.views, source.fps
        self.lengths, self.size, self.own_size = source.lengths, source.size, source.own_size
        self.action_dim, self.state_dim = source.action_dim, source.state_dim
        self.pixel_mask, self.robot_type = source.pixel_mask, source.robot_type
        self.fingerprint, self.origins = source.fingerprint, source.origins
        self.columns, self.task, self.reset_seed = source.columns, source.task, source.reset_seed
        self._first = np.concatenate([[0], np.cumsum(source.lengths)]).tolist()
        key = [FORMAT, self.fingerprint, [str(each) for each in self.origins], list(self.lengths), list(self.views)]
        key += [list(self.size), codec_fingerprint(codec)]
        root = default_cache_folder() if folder is None else folder
        root.mkdir(parents=True, exist_ok=True)
        self.folder = root / f"latents-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}"
        with FileLock(f"{self.folder}.lock"):
            if not self.folder.is_dir():
                self._build(codec)
        self._latents = np.load(self.folder / "latents.npy", mmap_mode="r")

    def __len__(self) -> int:
        """Number of episodes."""
        return len(self.source)

    def read(self, episode: int, start: int, stop: int, stride: int = 1) -> Clip:
        """Frames `start, start + stride, ... < stop` of an episode with their latents; see `EpisodeSource.read`."""
        clip = self.source.read(episode, start, stop, stride)
        first = self._first[episode]
        return replace(clip, latents=torch.from_numpy(self._latents[first + start : first + stop : stride].copy()))

    def _build(self, codec: LatentCodec) -> None:
        aside = self.folder.with_name(f"{self.folder.name}.building")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        try:
            with naming(aside / "latents.npy"):
                self._encode(codec, aside / "latents.npy")
            aside.rename(self.folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    @torch.no_grad()
    def _encode(self, codec: LatentCodec, path: Path) -> None:
        latent = (codec.channels, *(side // codec.downsampling for side in self.size))
        shape = (sum(self.lengths), len(self.views), *latent)
        pieces = sum(math.ceil(length / PIECE_FRAMES) for length in self.lengths)
        with path.open("wb") as file, ProgressLine(f"encoding {self.name}", pieces, unit="stretches") as progress:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
            for episode, length in enumerate(self.lengths):
                for start in range(0, length, PIECE_FRAMES):
                    frames = self.source.read(episode, start, min(start + PIECE_FRAMES, length)).frames
                    encoded = codec.encode(frames.to(device_of(codec)))
                    file.write(encoded.half().cpu().numpy().tobytes())
                    progress.advance()


def device_of(codec: LatentCodec) -> torch.device:
    """Where the weights of a codec are."""
    assert isinstance(codec, nn.Module)
    return next(iter(codec.parameters())).device


def codec_fingerprint(codec: LatentCodec) -> str:
    """Hash of the weights of a codec."""
    assert isinstance(codec, nn.Module)
    found = hashlib.sha256()
    for name, tensor in codec.state_dict().items():
        found.update(f"{name} {tuple(tensor.shape)} ".encode())
        found.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
