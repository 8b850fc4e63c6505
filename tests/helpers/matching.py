"""A matcher of cameras without any training, and a world model whose cameras tell two stories."""

from dataclasses import replace

import torch
from drawn_episodes import DrawnEpisodes

from worldmodel.fidelity.cross_view.matcher import CrossViewMatcher, MatcherConfig
from worldmodel.streaming.advance import begin
from worldmodel.streaming.stream import Stream
from worldmodel.world_model import WorldModel


def grey_episodes(number: int = 6, length: int = 14, *, name: str = "grey", size=(16, 16)) -> DrawnEpisodes:
    """Both cameras show the same level: 40 more in every episode, 1 more in every frame."""
    source = DrawnEpisodes([length] * number, lambda episode, frame: 20 + 40 * episode + frame, size=size)
    source.name = source.fingerprint = name
    return source


def twin_matcher(source=None) -> CrossViewMatcher:
    """Equal pictures get equal vectors, so cameras that show the same fit best."""
    source = grey_episodes() if source is None else source
    torch.manual_seed(0)
    matcher = CrossViewMatcher(MatcherConfig.of(source)).eval()
    matcher.encoders[1].load_state_dict(matcher.encoders[0].state_dict())
    matcher.train_data = [{"fingerprint": "other", "episodes": [0], "robot_type": "drawn", "reset_seeds": None}]
    return matcher


class CrossedStream(Stream):
    """Stands still, but the wrist camera shows what that of the third next stream shows; the next frame, its own."""

    def _advance(self, state, actions, num_steps, temperature, *, shown=True):
        frames = state.frames.clone()
        frames[:, 1] = frames[:, 1].roll(3, dims=0)
        return replace(state, frame=state.frame + 1, frames=frames)


class CrossedWorld(WorldModel):
    """A world model whose cameras tell two stories, at every second frame; its states are right."""

    @torch.no_grad()
    def stream(self, context, *, seeds=0):
        return CrossedStream(self, begin(self, context, seeds))
