"""Distil a planner into the policy, in rounds: dream, label by imagined plans, fit the head, measure, keep the best."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from policy_eval.policies.cloned import ClonedPolicy
from rl_posttrain.imagination.config import ImagineConfig
from rl_posttrain.imagination.distil.lessons import Lessons, fit_head
from rl_posttrain.imagination.distil.planner import label_dreams
from rl_posttrain.imagination.dreams import Setting, Standing, measure
from rl_posttrain.imagination.learner import Learner
from rl_posttrain.imagination.log import ImagineLog
from worldmodel.data import Clip
from worldmodel.dreams.anchors import contexts
from worldmodel.training.accelerator import start_accelerator
from worldmodel.training.checkpoint import MovingAverage, has_state, load_state, save_state
from worldmodel.training.share import share


def distil(config: ImagineConfig, setting: Setting, policy: ClonedPolicy) -> dict[str, Any]:
    """The loop; writes the best policy to `config.out` and returns the report, as `improve` does.

    Only the policy's head learns; its encoders stay as they were cloned, so the decisions of earlier rounds need
    no pictures. Every round fits the clone's head anew to the decisions of all rounds: a head that has learned the few
    of the first round by heart is a worse place to go on from. Round `i` depends on the seed, `i` and the saved state
    only, so a resumed run repeats an uninterrupted one.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    torch.manual_seed(config.seed)
    learner = Learner(policy, config.learn).to(policy.action_mean.device).eval()
    student = learner.actor.policy
    optimizer = torch.optim.AdamW(student.head.parameters(), lr=config.distil.learning_rate, weight_decay=0)
    unused = MovingAverage(learner, 0.0)
    lessons = Lessons.empty(student, config.distil.plans)
    standing = Standing()
    accelerator = start_accelerator(config.device, config.out, config.log)
    log = ImagineLog(accelerator, config.out, config.updates, config.minutes, config.clock)
    if config.resume and has_state(config.out):
        progress = load_state(config.out / "state", learner, unused, [optimizer])
        log.resume(progress)
        lessons = Lessons.load(config.out / "state", progress["lessons"], student.action_mean.device)
        standing = Standing.from_json(progress, config.out)
    with log:
        while True:
            measured_before = log.resumed and log.step == log.first_step
            if not measured_before and (log.step % config.validation_interval == 0 or log.done >= 1):
                returns, solved = measure(config, setting, learner)
                measured = {"step": log.step, "return": float(returns.mean()), "solved": solved}
                standing = standing.after(measured, returns)
                if standing.since_best == 0 and share().first:
                    student.save(config.out, dtype=torch.float32)
                log.validation(measured)
            over = log.done >= 1 or standing.gives_up(config.patience)
            if share().first and (over or log.stopping or log.step % config.save_interval == 0):
                kept = {"standing": standing.to_json(), "lessons": len(lessons.features)}
                lessons.save(config.out / "state")
                save_state(config.out / "state", learner, unused, [optimizer], kept | log.progress)
            if over:
                break
            log.leave_if_asked()
            lessons, shown = one_round(config, setting, student, lessons, log.step)
            student.head.load_state_dict(learner.prior.policy.head.state_dict())
            optimizer.state.clear()
            shown["loss"] = fit_head(student, optimizer, lessons, config.distil, step=log.step)
            log.advance(shown)
    report = standing.report(config.patience) | {"updates": log.step, "seconds": log.seconds}
    return report | {"decisions": len(lessons.features)}


def one_round(
    config: ImagineConfig, setting: Setting, student: ClonedPolicy, lessons: Lessons, step: int
) -> tuple[Lessons, dict[str, float]]:
    """Dream from starts that are drawn uniformly, and add the labelled decisions to the earlier ones."""
    found, shown = label_dreams(config, setting, student, drawn_starts(config, setting, step), step + 1)
    lessons = lessons.add(found)
    return lessons, shown | {"decisions": float(len(lessons.features))}


def drawn_starts(config: ImagineConfig, setting: Setting, step: int) -> Iterator[Clip]:
    """Contexts of dreams from starts that are drawn uniformly, without end."""
    rng = np.random.default_rng([config.seed, 4, step])
    while True:
        picked = setting.train.pick(rng.choice(len(setting.train), 1))
        yield from contexts(setting.source, picked, context=config.context, stride=setting.world.stride)
