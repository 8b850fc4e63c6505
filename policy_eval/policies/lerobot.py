"""Policies that lerobot saved, by lerobot's own classes: `lerobot:FOLDER`."""

import contextlib
import copy
import io
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import interpolate

from policy_eval.policies.needs import IMAGES, STATE, Needs, same_aspect
from policy_eval.policies.policy import Observations
from worldmodel.files import is_on_hub
from worldmodel.model.folder import find_folder
from worldmodel.resolve import one_line
from worldmodel.streaming.noise import mix_seed

PREFIX = "lerobot:"
FILES = ("config.json", "model.safetensors", "policy_preprocessor.json", "policy_postprocessor.json")
"""What lerobot writes for a policy; the normalisation is in the last two."""
CHECKPOINT = "pretrained_model"
"""Name of the folder of a policy inside a checkpoint of lerobot's training."""


@runtime_checkable
class Network(Protocol):
    """The part of lerobot's `PreTrainedPolicy` that is used; it keeps its queues inside."""

    def reset(self) -> None:
        """Begin an episode."""
        ...

    def select_action(self, batch: dict[str, Any]) -> Float[Tensor, "1 a"]:
        """The next normalised action of one robot."""
        ...


class LeRobotPolicy:
    """A policy of lerobot, with a memory and an action queue for each stream.

    Every stream has a copy of the policy that shares the weights, and is computed by itself. The random
    numbers of a stream come from its seed and its step. So its actions do not depend on the other streams,
    whatever the policy draws. Each stream costs as much as a robot of its own; several at a time are no faster.

    Pictures become floats in 0..1, channels first, and are resized to the size that the policy learned
    from (bilinear, antialiased); this needs the same aspect ratio. Everything else is lerobot's: the
    normalisation, how many actions of a chunk are carried out (`n_action_steps`), and how many past
    observations are seen.

    ```python
    policy = LeRobotPolicy.load("outputs/train/act/checkpoints/last/pretrained_model")
    ```

    Args:
        network: The policy, in evaluation mode.
        before: Makes the input of the policy from a batch of one observation: lerobot's preprocessor.
        after: Makes raw actions from the policy's actions: lerobot's postprocessor.
        inputs: The shape of each input by its name: `3 H W` for a picture, `s` for the state.
        keys: The policy's name for a key of the observation, for keys that it calls otherwise. By default a
            camera has the name that it has in a data set: `observation.images.top` is `top`, and another key,
            such as `observation.image`, is the name itself.
        stated: What the policy needs in addition to its inputs.
        device: Where the policy runs.
        mixed: Whether it runs in mixed precision, as lerobot's `use_amp` says.

    Attributes:
        needs: What the policy needs.

    Raises:
        ValueError: `keys` has a name that is not an input, or the same name twice, or an input is neither a picture
            nor the state.
    """

    def __init__(
        self,
        network: Network,
        before: Callable[[dict[str, Any]], dict[str, Any]],
        after: Callable[[Tensor], Tensor],
        inputs: Mapping[str, tuple[int, ...]],
        *,
        keys: Mapping[str, str] | None = None,
        stated: Needs | None = None,
        device: torch.device | str = "cpu",
        mixed: bool = False,
    ):
        unknown = sorted(set((keys or {}).values()) - set(inputs))
        if unknown:
            raise ValueError(f"keys name {unknown[0]!r}, the inputs of the policy are {', '.join(inputs)}")
        self.before, self.after = before, after
        self.device, self.mixed = torch.device(device), mixed
        given = {name: key for key, name in (keys or {}).items()}
        if len(given) < len(keys or {}):
            raise ValueError(f"keys give two keys of the observation the same name: {', '.join((keys or {}).values())}")
        self.sources = {name: (given.get(name, _source(name, shape)), shape) for name, shape in inputs.items()}
        strange = [name for name, (key, _) in self.sources.items() if key != STATE and not key.startswith(IMAGES)]
        if strange:
            raise ValueError(f"the policy needs {strange[0]}; an observation has pictures of cameras and {STATE}")
        self.needs = _needs(self.sources, stated or Needs())
        self.networks = [network]

    def reset(self, seeds: Sequence[int]) -> None:
        """Begin one episode per seed."""
        self.seeds = [int(seed) for seed in seeds]
        self.tasks = [""] * len(self.seeds)
        self.streams = list(range(len(self.seeds)))
        self.step = 0
        while len(self.networks) < len(self.seeds):
            self.networks.append(sharing_weights(self.networks[0]))
        for network in self.networks:
            network.reset()

    def instruct(self, tasks: Sequence[str]) -> None:
        """Tell the task of each episode in words."""
        self.tasks = list(tasks)

    def keep(self, streams: Sequence[int]) -> None:
        """Go on with these streams only; the episodes of the others have ended."""
        self.streams = [self.streams[row] for row in streams]

    @torch.no_grad()
    def act(self, observation: Observations) -> Float[Tensor, "n a"]:
        """The next action of each stream.

        Raises:
            ValueError: The observation lacks an input of the policy, or pictures have another aspect ratio.
        """
        missing = [key for key, _ in self.sources.values() if key not in observation]
        if missing:
            raise ValueError(f"the policy expects {missing[0]}, got {', '.join(observation)}")
        actions = [self._act(observation, row) for row in range(len(self.streams))]
        self.step += 1
        return torch.cat(actions).float().cpu()

    def ahead(self) -> list[Float[Tensor, "n a"]]:
        """The raw actions in lerobot's queues, which will follow the last one of `act`."""
        queues = zip(*(_queue(self.networks[stream]) for stream in self.streams), strict=False)
        return [torch.cat([self.after(action) for action in each]).float().cpu() for each in queues]

    def _act(self, observation: Observations, row: int) -> Float[Tensor, "1 a"]:
        """The next action for one row of the observation, whose stream draws random numbers of its own."""
        stream = self.streams[row]
        batch: dict[str, Any] = {"task": [self.tasks[stream]]}
        for name, (key, shape) in self.sources.items():
            values = observation[key][row : row + 1].to(self.device)
            batch[name] = pictures(values, shape[1:]) if len(shape) == 3 else values.float()
        gpus = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(gpus), torch.autocast(self.device.type, enabled=self.mixed):
            torch.manual_seed(mix_seed(self.seeds[stream], self.step))
            return self.after(self.networks[stream].select_action(self.before(batch)))

    @classmethod
    def load(
        cls, folder: str | Path, device: torch.device | str = "cpu", *, keys: Mapping[str, str] | None = None
    ) -> "LeRobotPolicy":
        """Load what lerobot saved, from a folder or `hf://USER/NAME@REV`; lerobot has to be installed.

        Args:
            folder: Folder with `config.json`, `model.safetensors` and the two processors.
            device: Where the policy runs.
            keys: See the class.

        Raises:
            ValueError: lerobot is not installed, a file is missing, or lerobot does not load the policy.
        """
        place = check_folder(folder)
        where = f"policy {PREFIX}{folder}"
        if find_spec("lerobot") is None:
            raise ValueError(f"{where}: lerobot is not installed: pip install 'lerobot>=0.4.4,<0.5'")
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                config, network, before, after = _load(place, str(device))
        except Exception as error:
            raise ValueError(f"{where}: lerobot does not load it: {one_line(error)}") from error
        inputs = {name: tuple(feature.shape) for name, feature in config.input_features.items()}
        stated = _stated(config.output_features["action"].shape[0], before, after)
        settings = {"keys": keys, "stated": stated, "device": device, "mixed": config.use_amp}
        try:
            return cls(network, before, after, inputs, **settings)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error


def _queue(network: Network) -> Sequence[Float[Tensor, "1 a"]]:
    """The normalised actions that a policy of lerobot has planned; their place depends on its class."""
    queues = vars(network)
    return queues.get("_action_queue") or queues.get("_queues", {}).get("action") or ()


def is_lerobot(spec: object) -> bool:
    """Whether `spec` has the form `lerobot:FOLDER`."""
    return str(spec).startswith(PREFIX)


def check_folder(folder: str | Path) -> Path:
    """The folder of a policy that lerobot saved; one on the hub is downloaded.

    Raises:
        ValueError: There is no such folder, or a file is missing.
    """
    place = find_folder(folder)
    missing = [name for name in FILES if not (place / name).is_file()]
    if not missing:
        return place
    inside = [place / "checkpoints" / "last" / CHECKPOINT, place / CHECKPOINT]
    near = next((f"; did you mean {PREFIX}{each}?" for each in inside if each.is_dir()), "")
    old = "; lerobot's script migrate_policy_normalization writes it" if missing[0].startswith("policy_") else ""
    raise ValueError(f"policy {PREFIX}{folder}: {missing[0]} is missing{near or old}")


def name_of(folder: str | Path) -> str:
    """The name of a policy: its folder's, or the run's and the step's of a checkpoint of lerobot's training."""
    if is_on_hub(folder):
        return str(folder).rpartition("/")[2].partition("@")[0]
    place = Path(folder).resolve()
    if place.name == CHECKPOINT and place.parents[1].name == "checkpoints":
        return f"{place.parents[2].name}-{place.parent.name}"
    return place.name


def lerobot_fingerprint(folder: str | Path) -> str:
    """Hash of the weights, the configuration and the processors of a policy."""
    place = check_folder(folder)
    files = sorted({*place.glob("*.safetensors"), *place.glob("policy_*.json"), place / "config.json"})
    return sha256(b"".join(sha256(file.read_bytes()).digest() for file in files)).hexdigest()[:16]


def pictures(frames: UInt8[Tensor, "n H W 3"], size: tuple[int, ...]) -> Float[Tensor, "n 3 h w"]:
    """Pictures as lerobot's policies get them: floats in 0..1, channels first, of the given height and width.

    Raises:
        ValueError: `size` has another aspect ratio.
    """
    found = tuple(frames.shape[1:3])
    if not same_aspect(found, size):
        raise ValueError(f"pictures of {found} cannot be resized to {size}, which has another aspect ratio")
    floats = rearrange(frames, "n h w c -> n c h w").float() / 255
    return floats if found == size else interpolate(floats, size, mode="bilinear", antialias=True)


def sharing_weights(network: Any) -> Any:
    """A copy of a network with its own memory and the same parameters and buffers."""
    shared = [*network.parameters(), *network.buffers()] if isinstance(network, nn.Module) else []
    return copy.deepcopy(network, {id(each): each for each in shared})


def _source(name: str, shape: tuple[int, ...]) -> str:
    """The key of the observation that an input of a policy comes from, if the user does not say it."""
    return name if len(shape) != 3 or name.startswith(IMAGES) else f"{IMAGES}{name}"


def _needs(sources: Mapping[str, tuple[str, tuple[int, ...]]], stated: Needs) -> Needs:
    views = {key.removeprefix(IMAGES): shape[1:] for key, shape in sources.values() if len(shape) == 3}
    state = next((shape[0] for key, shape in sources.values() if key == STATE), 0)
    return Needs(
        views=views,
        resizes=True,
        state_dim=state,
        action_dim=stated.action_dim,
        action_low=stated.action_low,
        action_high=stated.action_high,
        task=stated.task,
    )


def _load(place: Path, device: str) -> tuple[Any, Any, Any, Any]:
    """Configuration, network and processors, on the device; nothing is downloaded for weights that are in the file."""
    from lerobot.configs.policies import PreTrainedConfig
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors

    config = PreTrainedConfig.from_pretrained(place, cli_overrides=[f"--device={torch.device(device).type}"])
    for name, value in (("pretrained_backbone_weights", None), ("compile_model", False)):
        if hasattr(config, name):
            setattr(config, name, value)
    network = get_policy_class(config.type).from_pretrained(place, config=config, strict=True)
    before, after = make_pre_post_processors(
        config,
        pretrained_path=str(place),
        preprocessor_overrides={"device_processor": {"device": device}},
        postprocessor_overrides={"device_processor": {"device": "cpu"}},
    )
    return config, network.to(device).eval(), before, after


def _stated(action_dim: int, before: Any, after: Any) -> Needs:
    """What the processors know: the range of the actions in the training data, and whether the task is read."""
    found = [step.stats["action"] for step in after.steps if "action" in (getattr(step, "stats", None) or {})]
    stats = found[0] if found else {}
    names = next((pair for pair in (("q01", "q99"), ("min", "max")) if set(pair) <= set(stats)), ())
    low, high = (tuple(stats[name].flatten().tolist()) for name in names) if names else (None, None)
    task = any("Tokenizer" in type(step).__name__ for step in before.steps)
    return Needs(action_dim=action_dim, action_low=low, action_high=high, task=task)
