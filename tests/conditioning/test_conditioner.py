"""What the transformer is told of actions and states."""

import pytest
import torch

from conditioning.action import ActionEmbedding
from conditioning.conditioner import Conditioner, ConditionerConfig


def conditioner(**settings) -> Conditioner:
    """Actions between -1 and 3, states between 10 and 30 and between 0 and 2."""
    torch.manual_seed(0)
    made = Conditioner(ConditionerConfig(**{"action_dim": 2, "state_dim": 2, **settings}), 8)
    width = made.config.told_dim
    actions, states = torch.tensor([[-1.0] * width, [3.0] * width]), torch.tensor([[10.0, 0.0], [30.0, 2.0]])
    made.set_statistics(actions, states, torch.tensor([0.0, 4.0]))
    return made


def test_states_and_actions_are_mapped_to_minus_one_to_one():
    made = conditioner()
    assert made.normalised_states(torch.tensor([[[10.0, 2.0], [25.0, 1.0]]])).tolist() == [[[-1.0, 1.0], [0.5, 0.0]]]
    states = torch.zeros(1, 1, 2)
    assert made.normalised_actions(torch.tensor([[[-1.0, 2.0]]]), states).tolist() == [[[-1.0, 0.5]]]
    assert made.displacement_scale.tolist() == [pytest.approx(1e-6), 4.0]


def test_relative_actions_lose_the_state_in_every_part_of_a_chunk():
    """Action dim 1 is a target for state dim 0; two actions are told at once."""
    made = conditioner(relative_to={1: 0}, stride=2)
    actions, states = torch.tensor([[[1.0, 12.0, 3.0, 15.0]]]), torch.tensor([[[10.0, 7.0]]])
    assert made.relative(actions, states).tolist() == [[[1.0, 2.0, 3.0, 5.0]]]
    assert actions.tolist() == [[[1.0, 12.0, 3.0, 15.0]]]
    with pytest.raises(ValueError, match="needs states"):
        made.relative(actions, None)


def test_an_unknown_action_is_a_vector_of_its_own():
    torch.manual_seed(0)
    embed = ActionEmbedding(2, 8)
    actions = torch.tensor([[[0.5, 0.1], [0.5, 0.1]]])
    first, second = embed(actions, torch.tensor([[True, False]]))[0]
    assert torch.equal(second, embed.no_action) and torch.equal(first, embed.mlp(actions)[0, 0])
    made = conditioner(injection="adaln")
    unknown = made(None, torch.zeros(1, 3, 2), (1, 3))
    assert torch.equal(unknown.vector, made.action.no_action.expand(1, 3, 8))


@pytest.mark.parametrize(("injection", "tokens"), [("token", 2), ("adaln", 1), ("cross", 1)])
def test_actions_arrive_where_they_should(injection, tokens):
    made = conditioner(injection=injection)
    told = made(torch.zeros(1, 3, 2), torch.zeros(1, 3, 2), (1, 3))
    assert told.tokens.shape == (1, 3, tokens, 8)
    assert (told.vector is not None) == (injection == "adaln")
    assert (told.action_tokens is not None) == (injection == "cross")
