"""What is trained in place of all weights: low-rank adapters (LoRA, 2106.09685), or the embedding of actions.

A linear map `W` of the transformer's blocks becomes `W + B A`, where `B A` has a small rank and
begins at 0. The weights themselves stay as they are, and so all copies of a world share them.
"""

import copy
import importlib.util
from dataclasses import replace

from torch import nn

from worldmodel.model.pretrained.dit import PretrainedDiT
from worldmodel.world_model import WorldModel


def twin(world: WorldModel) -> WorldModel:
    """A copy that has its own trained weights and shares the weights that are not trained."""
    return copy.deepcopy(world, {id(p): p for p in world.parameters() if not p.requires_grad})


def conditioned(base: WorldModel) -> WorldModel:
    """A copy of `base` of which only the embedding of actions and states is trained; it shares all other weights.

    TexForce (2311.15657) trains the text encoder of a text-to-picture model alone.
    """
    base.requires_grad_(False)
    base.conditioner.requires_grad_(True)
    world = twin(base)
    base.conditioner.requires_grad_(False)
    return world


def adapted(base: WorldModel, rank: int) -> WorldModel:
    """A copy of `base` whose adapters alone are trained; it shares all weights with `base`.

    Every linear layer of the encoder's and the decoder's blocks gets an adapter of scale 1, as in
    PersistWorld (2603.25685), where `alpha` is the rank. The copy computes what `base` does until
    its adapters are trained. No weight of `base` receives a gradient any more. A pretrained video transformer has
    adapters already; it gets another one beside them.

    Raises:
        ValueError: If the rank is not positive, or peft is not installed.
    """
    if rank < 1:
        raise ValueError(f"the rank of an adapter is at least 1, got {rank}")
    if importlib.util.find_spec("peft") is None:
        raise ValueError("adapters need the package peft: pip install 'worldmodel[rl]'")
    from peft import LoraConfig, inject_adapter_in_model

    world = twin(base.requires_grad_(False))
    if isinstance(world.dit, PretrainedDiT):
        world.dit.add_adapter(rank)
        world.config = replace(world.config, dit=world.dit.config)
        return world
    linear = [
        name
        for name, module in world.dit.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(("encoder.", "decoder."))
    ]
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=linear)
    inject_adapter_in_model(config, world.dit)
    return world


def merged(world: WorldModel) -> WorldModel:
    """A world model without adapters that computes what the adapted `world` does.

    A pretrained video transformer keeps its adapters, since only they are saved.
    """
    if isinstance(world.dit, PretrainedDiT):
        return world
    from peft.tuners.lora import LoraLayer

    plain = copy.deepcopy(world)
    for name, layer in list(plain.dit.named_modules()):
        if isinstance(layer, LoraLayer):
            layer.merge()
            plain.dit.set_submodule(name, layer.get_base_layer())
    return plain
