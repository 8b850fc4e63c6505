"""A judge behind a URL, such as a vision-language model on a server of your own."""

import base64
import io
import json
import math
import urllib.error
import urllib.request
from collections.abc import Sequence

import torch
from PIL import Image

from worldmodel.dreams.verdict import Verdict
from worldmodel.streaming.state import Observation

SECONDS = 120.0
"""How long an answer may take."""


class RemoteJudge:
    """A judge that answers a POST of frames; `docs/extend/judge.md` shows the messages and a server.

    Args:
        url: Where it answers, `http://` or `https://`.
        views: Names of the cameras, which it is told.
        seconds: How long an answer may take.
    """

    def __init__(self, url: str, *, views: Sequence[str] = (), seconds: float = SECONDS):
        self.url, self.views, self.seconds = url, tuple(views), seconds

    def __call__(self, observation: Observation) -> Verdict:
        """Send the latest frame of every stream, and return the verdict.

        Raises:
            ValueError: The server does not answer, or its answer is not a verdict.
        """
        number = len(observation.frames)
        question = {
            "task": list(observation.task) or [""] * number,
            "views": list(self.views),
            "frames": [[_png(view) for view in frames] for frames in observation.frames.cpu().numpy()],
            "states": None if observation.states is None else observation.states.cpu().tolist(),
        }
        return verdict_of(self._post(question), number, f"judge {self.url}")

    def _post(self, question: dict) -> object:
        body = json.dumps(question).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=self.seconds) as reply:
                return json.loads(reply.read())
        except urllib.error.HTTPError as error:
            said = " ".join(error.read(300).decode(errors="replace").split())
            raise ValueError(f"judge {self.url}: answers {error.code} {error.reason}: {said}") from error
        except (OSError, ValueError) as error:
            raise ValueError(f"judge {self.url}: {getattr(error, 'reason', None) or error}") from error


def verdict_of(answer: object, number: int, name: str) -> Verdict:
    """The verdict in the answer of a server.

    Args:
        answer: An object with `success`, a list of true, false, or null for unsure; and `score`, a list of
            numbers, which is optional. Without it a success has reward 1.
        number: Number of streams.
        name: Of the judge, for messages.

    Raises:
        ValueError: A list is missing, or has another length or other contents.
    """
    if not isinstance(answer, dict) or "success" not in answer:
        raise ValueError(f'{name}: expected an object with "success", got {str(answer)[:80]}')
    said = _listed(answer["success"], (bool, type(None)), number, f"{name}: success")
    scores = [float(value is True) for value in said]
    if answer.get("score") is not None:
        scores = [float(value) for value in _listed(answer["score"], (int, float), number, f"{name}: score")]
    if not all(map(math.isfinite, scores)):
        raise ValueError(f"{name}: score is not finite: {scores}")
    unsure = torch.tensor([value is None for value in said])
    return Verdict(torch.tensor(scores), torch.tensor([value is True for value in said]), unsure)


def _listed(values: object, kinds: tuple[type, ...], number: int, name: str) -> list:
    if not isinstance(values, list) or len(values) != number or not all(isinstance(each, kinds) for each in values):
        words = " or ".join({"NoneType": "null"}.get(kind.__name__, kind.__name__) for kind in kinds)
        raise ValueError(f"{name} is a list of {number} times {words}, got {str(values)[:80]}")
    return values


def _png(picture: object) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode()
