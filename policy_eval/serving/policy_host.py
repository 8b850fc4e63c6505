"""A policy as the host of a server, in openpi's protocol: metadata first, then actions for each observation."""

import asyncio
import copy
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from policy_eval.policies.policy import Policy
from worldmodel.envs.policy import begin_episodes, optional
from worldmodel.resolve import one_line
from worldmodel.wire.fields import Fields

MOST_STREAMS = 64
"""Streams of one connection; each has a copy of what the policy remembers."""
MOST_SEED = 2**63 - 1
STREAM, SEED, RESET, PROMPT = "stream", "seed", "reset", "prompt"


class PolicyHost:
    """Lets visitors ask a policy for actions.

    A connection has streams, one unless it sends `stream`; each has a copy of what the policy remembers, and begins
    an episode with its first observation and with each one that has `reset`.

    Args:
        policy: The policy; it is copied, and the copies share its weights.
        metadata: The first message of every connection.
        plans: Send whole plans of a policy that has `plan`, in place of the action that it takes.
        keys: Our name of an observation by the visitors' name, where they differ.

    Raises:
        ValueError: Plans are wanted of a policy without `plan`.
    """

    def __init__(
        self, policy: Policy, metadata: dict[str, Any], *, plans: bool = False, keys: Mapping[str, str] | None = None
    ):
        if plans and optional(policy, "plan") is None:
            raise ValueError(f"--plans: {type(policy).__name__} has no method plan, so it acts one step at a time")
        self.policy, self.plans, self.keys = policy, plans, dict(keys or {})
        needs = optional(policy, "needs")
        stated = {k: v for k, v in asdict(needs).items() if v is not None} if is_dataclass(needs) else {}
        self.metadata = metadata | ({"needs": stated} if stated else {})
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="policy")

    def enter(self) -> "PolicyGuest":
        """A visitor without streams."""
        return PolicyGuest(self)

    async def run(self) -> None:
        """Wait for ever, since nothing goes on beside the connections."""
        try:
            await asyncio.Event().wait()
        finally:
            self.thread.shutdown(wait=False, cancel_futures=True)

    def error(self, message: str) -> str:
        """The error as a text, which openpi's clients take for an error; the connection is then closed."""
        return message


class PolicyGuest:
    """One connection: the streams of one visitor.

    Args:
        host: The policy.
    """

    def __init__(self, host: PolicyHost):
        self.host = host
        self._streams: dict[int, Policy] = {}
        self._prompts: dict[int, str] = {}
        self._total: float | None = None

    def hello(self) -> dict[str, Any]:
        """The metadata."""
        return self.host.metadata

    async def answer(self, message: object) -> dict[str, Any]:
        """The next actions for an observation.

        Raises:
            ValueError: The observation is not what the policy needs, or the policy fails.
        """
        began = time.monotonic()
        loop = asyncio.get_running_loop()
        actions, seconds = await loop.run_in_executor(self.host.thread, self._act, message)
        timing = {"infer_ms": 1000 * seconds}
        if self._total is not None:
            timing["prev_total_ms"] = 1000 * self._total
        self._total = time.monotonic() - began
        return {"actions": actions, "server_timing": timing}

    def leave(self) -> None:
        """Forget the streams."""
        self._streams.clear()

    def _act(self, message: object) -> tuple[np.ndarray, float]:
        """Actions `h a`, and how many seconds they took."""
        fields = Fields(message, "an observation")
        stream = fields.whole(STREAM, 0, MOST_STREAMS - 1, 0)
        seed = fields.whole(SEED, 0, MOST_SEED, 0)
        prompt = fields.texts(PROMPT, 1)[0]
        observation = self._observation(fields)
        began = time.monotonic()
        try:
            with torch.no_grad():
                policy = self._begun(stream, seed, prompt, fresh=fields.message.get(RESET, False) is True)
                actions = policy.plan(observation)[0] if self.host.plans else policy.act(observation)
                return _checked(actions, self.host.plans), time.monotonic() - began
        except Exception as error:
            raise ValueError(f"the policy failed: {one_line(error)}") from error

    def _begun(self, stream: int, seed: int, prompt: str, fresh: bool) -> Policy:
        """The copy of the policy for a stream, in an episode."""
        if stream not in self._streams:
            self._streams[stream] = copied(self.host.policy)
            fresh = True
        instruct = optional(self._streams[stream], "instruct")
        if fresh:
            begin_episodes(self._streams[stream], [seed], [prompt])
        elif prompt != self._prompts[stream] and instruct is not None:
            instruct([prompt])
        self._prompts[stream] = prompt
        return self._streams[stream]

    def _observation(self, fields: Fields) -> dict[str, Tensor]:
        """The observation of one stream, as policies read it."""
        known = {}
        for name, value in fields.message.items():
            ours = self.host.keys.get(name, name).replace("/", ".")
            if ours.startswith("observation."):
                if not isinstance(value, np.ndarray | list | float | int):
                    raise ValueError(f"{name} is an array, got {type(value).__name__}")
                array = np.asarray(value)
                array = array if array.dtype == np.uint8 else fields.numbers(name, (None,) * array.ndim)
                known[ours] = torch.from_numpy(array)[None]
        if not known:
            names = ", ".join(map(str, list(fields.message)[:8])) or "nothing"
            raise ValueError(
                f"an observation has keys such as observation.images.top and observation.state, got {names}"
            )
        return known


def copied(policy: Policy) -> Policy:
    """A copy with a memory of its own that shares the weights."""
    modules = [part for part in (policy, *vars(policy).values()) if isinstance(part, nn.Module)]
    shared = {id(weight): weight for module in modules for weight in module.parameters()}
    return copy.deepcopy(policy, shared)


def _checked(actions: object, plans: bool) -> np.ndarray:
    """Actions `h a` of a policy that was asked for one stream."""
    if not isinstance(actions, Tensor) or actions.ndim != 2 or (len(actions) != 1 and not plans):
        found = tuple(actions.shape) if isinstance(actions, Tensor) else type(actions).__name__
        raise ValueError(f"a policy returns a torch.Tensor of the shape (n, a), here with n = 1, got {found}")
    return actions.detach().float().cpu().numpy()
