"""Improve a policy inside a world model, without a real step. `worldmodel imagine`.

Dreams start from recorded frames, more often from those where the critic's error is large. The
cloned policy acts in them with noise, and a judge rewards and ends them. The critic learns
lambda-returns; the actor repeats what succeeded (or learns the sign of the advantage) and stays
close to the clone. With `--method distil` a planner labels the dreams instead, see `distil/`. The actor that does best
in dreams of held-out frames is kept, if it is better than the clone in dreams from fresh ones, too.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from policy_eval.judge.find import judge_fingerprint, load_judge, reward_range
from policy_eval.policies.cloned import ClonedPolicy
from rl_posttrain.imagination.config import ImagineConfig, check_numbers
from rl_posttrain.imagination.distil.train import distil
from rl_posttrain.imagination.dreams import (
    Setting,
    Standing,
    check_disagreement,
    check_fit,
    dream,
    measure,
    measured_dreams,
    prepare,
)
from rl_posttrain.imagination.gate import check_ranking, confirm, confirm_for_real
from rl_posttrain.imagination.imitation import Memory, imitate
from rl_posttrain.imagination.learner import Learner, learn_from, update
from rl_posttrain.imagination.log import ImagineLog, summary
from rl_posttrain.imagination.page import Dreamed, write_page
from rl_posttrain.imagination.rollouts import Imagined
from rl_posttrain.imagination.starts import StartPool
from rl_posttrain.rewards.extra import Weighted, find_rewards, rewards_read
from worldmodel.data import EpisodeCache, EpisodeSource, open_episodes
from worldmodel.files import write_json
from worldmodel.model.folder import check_out, fingerprint
from worldmodel.processes.alone import alone_in_out
from worldmodel.training.accelerator import check_tracker, start_accelerator, training_device
from worldmodel.training.checkpoint import (
    SETTINGS,
    STATE,
    MovingAverage,
    RunSettings,
    has_state,
    load_state,
    save_state,
)
from worldmodel.training.share import Share, from_first, share, wait_for_all
from worldmodel.world_model import WorldModel

REFRESH_SHARE = 0.1
SHOWN_ONLY = ("ranking", "confirm", "real", "real_data", "real_trials", "videos", "video_steps")
"""Settings of what is checked before a run and after it; a resumed run may have others."""


@alone_in_out
def imagine(config: ImagineConfig, rewards: Weighted | None = None) -> dict[str, Any]:
    """Improve the policy; writes it to `config.out` as a cloned policy and returns the report.

    Args:
        config: The settings.
        rewards: Rewards of yours by name, each with its weight, beside those of `config.reward.extra`.

    Raises:
        ValueError: World, judge, policy and starts do not fit, a number is out of range, or the
            world model does not rank policies, see `check_ranking`; or the folder or the run to
            resume is another one, or a reward of yours fails.
        Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    check_numbers(config)
    check_tracker(config.log)
    check_out(config.out, STATE, "policy.json", SETTINGS, overwrite=config.overwrite, resume=config.resume)
    device = training_device(config.device)
    print(check_ranking(config.ranking, config.world, config.judge))
    world = WorldModel.load(config.world, device)
    world.config = replace(world.config, temperature=config.temperature)
    judge = load_judge(config.judge, device, views=world.views, size=tuple(world.size))
    policy = ClonedPolicy.load(config.policy, device)
    recorded = open_episodes(config.data, tuple(world.size), world.views, config.reading)
    source = EpisodeCache(recorded, cache_gb=config.reading.cache_gb)
    check_fit(world, policy, source, config.method)
    extra = find_rewards(config.reward.extra, rewards)
    read = read_by(config, source) | rewards_read(config.reward.extra, rewards)
    settings = RunSettings(config, read, free=SHOWN_ONLY)
    settings.check()
    low, high = reward_range(judge)
    scale = 1 / (high - low) if high > low else 1.0
    setting = replace(prepare(config, world, judge, source), reward_scale=scale, extra=extra)
    if share().first:
        settings.write()
    calibration = from_first(lambda: check_disagreement(config, setting))
    if calibration is not None:
        print(calibration.sentence)
        setting = replace(setting, trust_scale=calibration.scale if calibration.used else None)
    report = {"actor-critic": improve, "distil": distil}[config.method](config, setting, policy)
    report = confirm(config, setting, policy, report)
    report["calibration"] = None if calibration is None else calibration.to_json()
    if config.real != "none":
        tried = report
        report = from_first(lambda: confirm_for_real(config, policy, tried, stride=world.stride))
    if share().first:
        write_json(config.out / "imagination.json", report)
        print(summary(config.out, report))
        show_change(config, setting, report)
    wait_for_all()
    return report


def show_change(config: ImagineConfig, setting: Setting, report: dict[str, Any]) -> None:
    """Dream with the cloned and with the kept policy from the held-out starts, and write the page."""
    dreamed = []
    for folder in (config.policy, config.out):
        policy = ClonedPolicy.load(folder, setting.world.device)
        learner = Learner(policy, config.learn).to(setting.world.device).eval()
        returns, imagined = measured_dreams(config, setting, learner, Share())
        dreamed.append(
            Dreamed(returns.double().numpy(), imagined.solved.double().cpu().numpy(), imagined.frames[0].cpu())
        )
    videos = sorted((config.out / "videos").glob("*.mp4")) if config.real != "none" else []
    sentences = write_page(*dreamed, setting.held_out.episodes, report, setting.world, videos, config.out)
    print("\n".join([*sentences, str(config.out / "report.html")]))


def read_by(config: ImagineConfig, source: EpisodeSource) -> dict[str, str]:
    """Fingerprints of what a run reads."""
    models = {name: fingerprint(getattr(config, name)) for name in ("world", "policy")}
    return {"data": source.fingerprint, "judge": judge_fingerprint(config.judge), **models}


def improve(config: ImagineConfig, setting: Setting, policy: ClonedPolicy) -> dict[str, Any]:
    """The loop: dream, judge, learn, measure, keep the best; returns the report.

    Update `i` depends on the seed, `i` and the saved state only, so a resumed run repeats an
    uninterrupted one.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    torch.manual_seed(config.seed)
    learner = Learner(policy, config.learn).to(policy.action_mean.device).eval()
    optimizers = learner.optimizers(config.learn)
    average = MovingAverage(learner, config.learn.average_decay)
    pool = StartPool.uniform(len(setting.train), config.pool, np.random.default_rng([config.seed, 3]))
    memory = Memory.empty(learner)
    standing = Standing()
    accelerator = start_accelerator(config.device, config.out, config.log)
    log = ImagineLog(accelerator, config.out, config.updates, config.minutes, config.clock)
    if config.resume and has_state(config.out):
        progress = load_state(config.out / "state", learner, average, optimizers)
        log.resume(progress)
        pool = StartPool.from_json(progress["pool"])
        memory = Memory.load(config.out / "state", progress["remembered"], memory.actions.device)
        standing = Standing.from_json(progress, config.out)
    with log:
        while True:
            measured_before = log.resumed and log.step == log.first_step
            due = log.step % config.validation_interval == 0 or log.done >= 1
            if due and not measured_before:
                with average.shown(learner):
                    returns, solved = measure(config, setting, learner)
                    measured = {"step": log.step, "return": float(returns.mean()), "solved": solved}
                    standing = standing.after(measured, returns)
                    if standing.since_best == 0 and share().first:
                        learner.actor.policy.save(config.out, dtype=torch.float32)
                log.validation(measured)
            over = log.done >= 1 or standing.gives_up(config.patience)
            if share().first and (over or log.stopping or log.step % config.save_interval == 0):
                kept = {"pool": pool.to_json(), "standing": standing.to_json(), "remembered": len(memory.actions)}
                memory.save(config.out / "state")
                save_state(config.out / "state", learner, average, optimizers, kept | log.progress)
            if over:
                break
            log.leave_if_asked()
            parts = learner, average, optimizers, pool, log
            dreams, pool, shown = one_update(config, setting, *parts)
            if config.learn.objective == "imitation":
                memory = memory.add(dreams, config.noise_seeds)
                shown |= imitate(learner, optimizers[0], memory, config.learn, step=log.step)
            average.update(learner, log.step)
            log.advance(shown)
    report = standing.report(config.patience) | {"updates": log.step, "seconds": log.seconds}
    return report | {"trust_scale": setting.trust_scale}


def one_update(
    config: ImagineConfig,
    setting: Setting,
    learner: Learner,
    average: MovingAverage,
    optimizers: list[torch.optim.Optimizer],
    pool: StartPool,
    log: ImagineLog,
) -> tuple[Imagined, StartPool, dict[str, float]]:
    """Dream from the pool's starts and learn from it; with imitation, only the critic learns here."""
    rng = np.random.default_rng([config.seed, 4, log.step])
    places, importance = pool.draw(
        config.streams // config.noise_seeds, rng, alpha=config.priority, beta=correction_at(config, log.step)
    )
    picked = setting.train.pick(pool.index[places])
    imagined = dream(config, setting, learner, picked, horizon=config.horizon, seed=log.step + 1)
    experience, errors, shown = learn_from(learner, average, imagined, importance, config.learn, setting.trust_scale)
    shown |= update(learner, optimizers, experience, config.learn, step=log.step)
    pool = pool.update(places, errors.cpu())
    if (log.step + 1) % config.refresh_interval == 0:
        pool = pool.refresh(REFRESH_SHARE, len(setting.train), rng)
    return imagined, pool, shown | {"std": learner.actor.std.mean().item()}


def correction_at(config: ImagineConfig, step: int) -> float:
    """Exponent of the importance weights: it grows from `correction` to 1 over the updates."""
    return config.correction + (1 - config.correction) * min(step / config.updates, 1.0)
