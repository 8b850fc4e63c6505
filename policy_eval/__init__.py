"""Run, score and rank policies, in a world model and for real.

Everything in `__all__` is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policy_eval.evaluation import Fault, Trial, evaluate
    from policy_eval.judge.calibration.calibrate import CalibrateConfig, calibrate_judge
    from policy_eval.judge.find import load_judge
    from policy_eval.judge.goals.judge import GoalJudge
    from policy_eval.judge.inverse_dynamics import InverseDynamics
    from policy_eval.judge.inverse_dynamics_training import InverseDynamicsTraining, train_inverse_dynamics
    from policy_eval.judge.judge import LearnedJudge
    from policy_eval.judge.train import JudgeConfig, train_judge
    from policy_eval.policies.clone import CloneConfig, clone
    from policy_eval.policies.cloned import ClonedPolicy, FlowPolicy
    from policy_eval.policies.find import find_policies, load_policy
    from policy_eval.policies.lerobot import LeRobotPolicy
    from policy_eval.policies.needs import Needs, check_fits
    from policy_eval.policies.policy import AgentPolicy
    from policy_eval.policies.remote import RemotePolicy, Unreachable
    from policy_eval.ranking.command import RankConfig, rank_policies
    from policy_eval.ranking.plan import PairPlan, plan_trials
    from policy_eval.ranking.rank import Ranking, Score, rank
    from policy_eval.ranking.setup import TrialSetup
    from policy_eval.real_envs import RealEnvs
    from policy_eval.real_rollouts import record_rollouts
    from policy_eval.scores import Scores
    from policy_eval.statistics.difference import pair_order
    from policy_eval.steering.command import SteerConfig, steer
    from policy_eval.steering.proposals import jitter, samples
    from policy_eval.steering.saved import save_steered
    from policy_eval.steering.scorers import by_agreement, by_value, by_verifier
    from policy_eval.steering.steered import Choice, SteeredPolicy
    from worldmodel.dreams.verdict import Judge, Verdict
    from worldmodel.envs.policy import CallablePolicy, Policy

__all__ = [
    "AgentPolicy",
    "CalibrateConfig",
    "CallablePolicy",
    "Choice",
    "CloneConfig",
    "ClonedPolicy",
    "Fault",
    "FlowPolicy",
    "GoalJudge",
    "InverseDynamics",
    "InverseDynamicsTraining",
    "Judge",
    "JudgeConfig",
    "LeRobotPolicy",
    "LearnedJudge",
    "Needs",
    "PairPlan",
    "Policy",
    "RankConfig",
    "Ranking",
    "RealEnvs",
    "RemotePolicy",
    "Score",
    "Scores",
    "SteerConfig",
    "SteeredPolicy",
    "Trial",
    "TrialSetup",
    "Unreachable",
    "Verdict",
    "by_agreement",
    "by_value",
    "by_verifier",
    "calibrate_judge",
    "check_fits",
    "clone",
    "evaluate",
    "find_policies",
    "jitter",
    "load_judge",
    "load_policy",
    "pair_order",
    "plan_trials",
    "rank",
    "rank_policies",
    "record_rollouts",
    "samples",
    "save_steered",
    "steer",
    "train_inverse_dynamics",
    "train_judge",
]

_HOMES = {
    "AgentPolicy": "policy_eval.policies.policy",
    "CalibrateConfig": "policy_eval.judge.calibration.calibrate",
    "CallablePolicy": "worldmodel.envs.policy",
    "Choice": "policy_eval.steering.steered",
    "CloneConfig": "policy_eval.policies.clone",
    "ClonedPolicy": "policy_eval.policies.cloned",
    "Fault": "policy_eval.evaluation",
    "FlowPolicy": "policy_eval.policies.cloned",
    "GoalJudge": "policy_eval.judge.goals.judge",
    "InverseDynamics": "policy_eval.judge.inverse_dynamics",
    "InverseDynamicsTraining": "policy_eval.judge.inverse_dynamics_training",
    "Judge": "worldmodel.dreams.verdict",
    "JudgeConfig": "policy_eval.judge.train",
    "LeRobotPolicy": "policy_eval.policies.lerobot",
    "LearnedJudge": "policy_eval.judge.judge",
    "Needs": "policy_eval.policies.needs",
    "PairPlan": "policy_eval.ranking.plan",
    "Policy": "worldmodel.envs.policy",
    "RankConfig": "policy_eval.ranking.command",
    "Ranking": "policy_eval.ranking.rank",
    "RealEnvs": "policy_eval.real_envs",
    "RemotePolicy": "policy_eval.policies.remote",
    "Score": "policy_eval.ranking.rank",
    "Scores": "policy_eval.scores",
    "SteerConfig": "policy_eval.steering.command",
    "SteeredPolicy": "policy_eval.steering.steered",
    "Trial": "policy_eval.evaluation",
    "TrialSetup": "policy_eval.ranking.setup",
    "Unreachable": "policy_eval.policies.remote",
    "Verdict": "worldmodel.dreams.verdict",
    "by_agreement": "policy_eval.steering.scorers",
    "by_value": "policy_eval.steering.scorers",
    "by_verifier": "policy_eval.steering.scorers",
    "calibrate_judge": "policy_eval.judge.calibration.calibrate",
    "check_fits": "policy_eval.policies.needs",
    "clone": "policy_eval.policies.clone",
    "evaluate": "policy_eval.evaluation",
    "find_policies": "policy_eval.policies.find",
    "jitter": "policy_eval.steering.proposals",
    "load_judge": "policy_eval.judge.find",
    "load_policy": "policy_eval.policies.find",
    "pair_order": "policy_eval.statistics.difference",
    "plan_trials": "policy_eval.ranking.plan",
    "rank": "policy_eval.ranking.rank",
    "rank_policies": "policy_eval.ranking.command",
    "record_rollouts": "policy_eval.real_rollouts",
    "samples": "policy_eval.steering.proposals",
    "save_steered": "policy_eval.steering.saved",
    "steer": "policy_eval.steering.command",
    "train_inverse_dynamics": "policy_eval.judge.inverse_dynamics_training",
    "train_judge": "policy_eval.judge.train",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    """Public names, for editors and notebooks, whether they are imported yet or not."""
    return sorted({*globals(), *_HOMES})
