"""Post-train a world model by rewards on its own rollouts. `worldmodel posttrain`.

pathwise: the gradient of rewards through the last decoding step of parallel self-rollouts, see `pathwise.update`.

The other objectives follow PersistWorld's protocol (2603.25685): the model rolls out a prefix of random
length by itself, candidates branch from its end with the same actions and other noise, each is scored
against what was recorded, and the contrastive objective moves the model towards the better ones.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from einops import rearrange
from torch import Tensor, nn

from policy_eval.judge.find import judge_fingerprint, load_judge
from rl_posttrain.posttraining.branches import draw_branches
from rl_posttrain.posttraining.config import PosttrainConfig, check
from rl_posttrain.posttraining.flow_grpo import restepped
from rl_posttrain.posttraining.keeper import Keeper
from rl_posttrain.posttraining.lora import adapted, conditioned, merged, twin
from rl_posttrain.posttraining.nft import extremes, old_policy_decay, optimality
from rl_posttrain.posttraining.pathwise.rollout import RolloutBatch, draw_rollouts
from rl_posttrain.posttraining.pathwise.terms import PictureTerms, terms_of, terms_read
from rl_posttrain.posttraining.pathwise.update import PathwiseUpdate
from rl_posttrain.posttraining.pathwise.warmup import learn_realism
from rl_posttrain.posttraining.updates import BranchBatch, RecordedBatch, Update
from rl_posttrain.rewards.advantages import of_candidates, scaled_advantages
from rl_posttrain.rewards.credit import numbers
from rl_posttrain.rewards.extra import Weighted, find_rewards, rewards_read
from rl_posttrain.rewards.mix import RewardMix, build_rewards
from rl_posttrain.rewards.predictions import WeightedPictures
from rl_posttrain.rewards.reward import Rollout
from worldmodel.data import Clip, EpisodeCache, EpisodeSource, open_episodes
from worldmodel.data.sample import sample_clips, split_episodes
from worldmodel.display.ranges import check_ranges
from worldmodel.fidelity.cross_view.matcher import CrossViewMatcher, check_cameras
from worldmodel.fidelity.cross_view.train import check_unseen
from worldmodel.files import write_json
from worldmodel.model.folder import check_out, fingerprint
from worldmodel.processes.alone import alone_in_out
from worldmodel.streaming.noise import mix_seed
from worldmodel.training.accelerator import end_trackers, joined, start_accelerator
from worldmodel.training.build import note_training
from worldmodel.training.checkpoint import (
    SETTINGS,
    STATE,
    MovingAverage,
    RunSettings,
    has_state,
    load_state,
    save_state,
)
from worldmodel.training.log import RunLog
from worldmodel.training.loss import draw
from worldmodel.training.optimizers import build_optimizers
from worldmodel.training.share import average_gradients, backward_in_parts, share, wait_for_all
from worldmodel.world_model import WorldModel

Batch = BranchBatch | RecordedBatch | RolloutBatch


@alone_in_out
def posttrain(
    config: PosttrainConfig, rewards: Weighted | None = None, pictures: WeightedPictures | None = None
) -> Path:
    """Post-train, and write the world model to `out`; returns `out`.

    Update `i` depends on the weights, on `seed` and on `i` only, so a resumed run repeats an
    uninterrupted one. Several processes share the starts of an update, each with all its candidates.

    Args:
        config: The settings.
        rewards: Rewards of yours by name, each with its weight, beside those of `config.reward.extra`.
        pictures: Rewards of yours with a gradient, for the objective pathwise, beside those of
            `config.pathwise.extra`.

    Raises:
        ValueError: If data, world model and configuration do not fit, the held-out episodes were
            trained on, the folder or the run to resume is another one, a reward of yours fails, or the loss is
            not finite.
        Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    check_ranges(config)
    accelerator = begin(config)
    base = WorldModel.load(config.world, accelerator.device)
    recorded = open_episodes(config.data, tuple(base.size), base.views, config.reading)
    source = EpisodeCache(recorded, cache_gb=config.reading.cache_gb)
    extra = find_rewards(config.reward.extra, rewards)
    settings = checked_settings(config, source, rewards, pictures)
    train, held_out = split_episodes(source, config.validation_episodes)
    check(config, base, source, held_out)
    matcher = matcher_of(config, source, held_out, base.device)
    world, old = policies(config, base)
    note_training(world, source, train)
    mix = rewards_of(config, base, source, train, extra)
    terms = terms_of(config, base, pictures)
    both = nn.ModuleDict({"world": world, "old": old, **terms.learned})
    optimizers = build_optimizers(world, config.rate, muon=config.muon and config.train != "lora")
    learning = terms.optimizers(config.pathwise.realism_rate)
    average = MovingAverage(both, config.average_decay)
    limits = {"total_steps": config.steps, "minutes": config.minutes, "clock": config.clock}
    log = RunLog(accelerator, config.out, **limits, name="posttrain")
    state, progress = (config.out / "state", both, average, [*optimizers, *learning]), {}
    if config.resume and has_state(config.out):
        progress = load_state(*state)
        log.resume(progress)
    if accelerator.is_main_process:
        settings.write()
    mix = measure_spread(config, base, source, train, mix)
    update = build_update(config, world, old, base, terms)
    model, optimizers = joined(accelerator, update, optimizers, unused=config.objective == "flow-grpo")
    keeper = Keeper(config, base, source, held_out, mix, log, matcher)

    with log:
        if log.step == 0:
            keeper.evaluate(plain(config, world))
            for optimizer in learning:
                given = (source, (train, held_out), log, progress.get("learned", 0), partial(save_state, *state))
                learn_realism(config, update, optimizer, *given)
        while log.step < config.steps and log.done < 1 and not keeper.stopped:
            batch, row = next_batch(config, old, source, train, mix, log.step)
            loss, parts = backward_in_parts(accelerator, model, parts_of(batch, config.accumulate))
            average_gradients(each for network in terms.learned.values() for each in network.parameters())
            accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)
            factor = min((log.step + 1) / max(config.warmup, 1), 1.0)
            apply_gradients(optimizers, config.rate * factor)
            apply_gradients(learning, config.pathwise.realism_rate)
            follow(old, world, old_policy_decay(log.step, config.old_decay_rate, config.old_decay))
            average.update(both, log.step)
            keeper.record(loss, parts, row, factor)
            last = log.step >= config.steps or log.done >= 1
            if last or log.step % config.validation_interval == 0:
                with average.shown(both):
                    keeper.evaluate(plain(config, world))
            last = last or keeper.stopped
            if last or log.stopping or log.step % config.save_interval == 0:
                save_state(*state, log.progress)
            if not last:
                log.leave_if_asked()
    keeper.finish()
    end_trackers(accelerator)
    wait_for_all()
    return config.out


def build_update(
    config: PosttrainConfig, world: WorldModel, old: WorldModel, base: WorldModel, terms: PictureTerms
) -> nn.Module:
    """The loss of the objective."""
    if config.differentiable:
        return PathwiseUpdate(world, terms, config.pathwise, config.loss)
    return Update(world, old, base if config.kl_weight else None, config.update_weights, config.loss)


def begin(config: PosttrainConfig) -> Accelerator:
    """Device, number format, tracker and the seed.

    Raises:
        ValueError: It was launched with FSDP.
    """
    check_out(config.out, STATE, "world.json", SETTINGS, overwrite=config.overwrite, resume=config.resume)
    accelerator = start_accelerator(config.device, config.out, config.log)
    if accelerator.is_fsdp2:
        raise ValueError("post-training keeps whole weights in every process; launch it without --use_fsdp")
    torch.manual_seed(config.seed)
    return accelerator


def checked_settings(
    config: PosttrainConfig, source: EpisodeSource, rewards: Weighted | None, pictures: WeightedPictures | None
) -> RunSettings:
    """The settings and the fingerprints of all that the run reads.

    Raises:
        ValueError: The run to resume has others.
    """
    named = {"inverse_dynamics": config.inverse_dynamics, "cross_view": config.cross_view}
    models = {name: fingerprint(path) for name, path in named.items() if path is not None}
    if config.judge is not None:
        models["judge"] = judge_fingerprint(config.judge)
    read = {"data": source.fingerprint, "world": fingerprint(config.world), **models}
    read |= rewards_read(config.reward.extra, rewards)
    if config.differentiable:
        read |= terms_read(config.pathwise, pictures)
    settings = RunSettings(config, read)
    settings.check()
    return settings


def rewards_of(
    config: PosttrainConfig, base: WorldModel, source: EpisodeSource, train: range, extra: Weighted
) -> RewardMix:
    """The rewards of the run, as `build_rewards` makes them; the judge is loaded here.

    Raises:
        ValueError: As `build_rewards`; or there is no judge at that place, or it looks at other cameras or sizes.
    """
    judge = None
    if config.judge is not None:
        judge = load_judge(config.judge, base.device, views=base.views, size=tuple(base.size))
    settings = {"branch": config.branch, "credit": config.credit, "cell": config.cell}
    decoder = config.inverse_dynamics
    return build_rewards(config.reward, base, source, train, decoder, extra=extra, judge=judge, **settings)


def matcher_of(
    config: PosttrainConfig, source: EpisodeSource, held_out: range, device: torch.device
) -> CrossViewMatcher | None:
    """The network that compares cameras, if one is named.

    Raises:
        ValueError: It does not fit the data, has seen held-out episodes, or there are fewer than two of these.
    """
    if config.cross_view is None:
        return None
    check_cameras(source.name, source.views)
    if len(held_out) < 2:
        raise ValueError(
            f"{source.name}: --cross-view compares windows of different episodes and needs at least 2 held-out ones, "
            f"got {len(held_out)}"
        )
    matcher = CrossViewMatcher.load(config.cross_view, device)
    matcher.check(source)
    check_unseen(str(config.cross_view), matcher.train_data, source, held_out)
    return matcher


def policies(config: PosttrainConfig, base: WorldModel) -> tuple[WorldModel, WorldModel]:
    """The policy that is trained and the old one, which starts as its copy."""
    if config.train == "lora":
        world = adapted(base, config.lora_rank)
    else:
        world = conditioned(base) if config.train == "conditioner" else twin(base)
    return world, twin(world)


def plain(config: PosttrainConfig, world: WorldModel) -> WorldModel:
    """The trained policy as it is evaluated and saved: without adapters."""
    return merged(world) if config.train == "lora" else world


def parts_of(batch: Batch, number: int) -> list[tuple[Batch]]:
    """A batch in a number of equal parts, each as what the model is called with.

    Raises:
        ValueError: The starts of this process do not divide by the number.
    """
    if number == 1:
        return [(batch,)]
    size, rest = divmod(len(batch), number)
    if rest:
        raise ValueError(f"--accumulate {number} does not divide the {len(batch)} starts of a process")
    return [(batch.rows(slice(start, start + size)),) for start in range(0, len(batch), size)]


def apply_gradients(optimizers: Sequence[torch.optim.Optimizer], learning_rate: float) -> None:
    """One step of every optimiser; then the gradients are cleared."""
    for optimizer in optimizers:
        optimizer.param_groups[0]["lr"] = learning_rate
        optimizer.step()
        optimizer.zero_grad()


def follow(old: WorldModel, world: WorldModel, decay: float) -> None:
    """Move the trained weights of the old policy to those of the new one; a share `decay` of the old stays."""
    before, now = ([p.detach() for p in policy.parameters() if p.requires_grad] for policy in (old, world))
    torch._foreach_lerp_(before, now, 1 - decay)


def generator_of(config: PosttrainConfig, step: int) -> torch.Generator:
    """All randomness of an update, apart from the noise of the streams."""
    return torch.Generator().manual_seed(mix_seed(config.seed, step))


def recorded_clip(
    config: PosttrainConfig,
    world: WorldModel,
    source: EpisodeSource,
    train: range,
    step: int,
    prefix: int,
    rows: slice = slice(None),
) -> Clip:
    """The stretches that the streams of an update follow, or some of them."""
    clip = sample_clips(
        source,
        batch=config.groups,
        length=config.context + prefix + config.branch,
        stride=world.stride,
        seed=config.seed,
        index=step,
        episodes=train,
        rows=rows,
    )
    return replace(clip, states=clip.states if world.state_dim else None)


def next_batch(
    config: PosttrainConfig, old: WorldModel, source: EpisodeSource, train: range, rewards: RewardMix, step: int
) -> tuple[Batch, dict[str, float]]:
    """This process's share of the batch of update `step`, and what to write down about it."""
    generator = generator_of(config, step)
    rows = share().equal_rows(config.groups, "--groups")
    if config.differentiable:
        sizes = {"batch": config.groups, "seed": config.seed, "step": step, "generator": generator, "rows": rows}
        return draw_rollouts(old, source, train, config.pathwise, config.loss, **sizes), {}
    prefix = int(torch.randint(config.prefix + 1, (1,), generator=generator))
    clip = recorded_clip(config, old, source, train, step, prefix, rows)
    if config.objective == "teacher-forced":
        frames = clip.frames.shape[1]
        draws = draw(old, config.loss, batch=config.groups, frames=frames, generator=generator)
        return RecordedBatch(clip.to(old.device), draws.rows(rows.start, rows.stop).to(old.device)), {}
    candidates = config.candidates if config.contrastive else 1
    shape = (config.groups, candidates, config.branch)
    latent = (*shape, len(old.views), *old.latent_shape)
    tau = torch.randint(config.num_steps, shape, generator=generator) / config.num_steps
    noise = config.temperature * torch.randn(latent, generator=generator)
    state_noise = config.temperature * torch.randn(*shape, old.state_dim, generator=generator)
    tau, noise, state_noise = (x[rows].to(old.device) for x in (tau, noise, state_noise))
    seeds = [mix_seed(config.seed, step, i) for i in range(config.groups)][rows]
    branches, rollout = draw_branches(
        old,
        clip.to(old.device),
        context=config.context,
        prefix=prefix,
        candidates=candidates,
        num_steps=config.num_steps,
        temperature=config.temperature,
        seeds=seeds,
    )
    if config.objective == "flow-grpo":
        rollout = restepped(old, branches, rollout, noise)
    good, kept, row = judge(config, rewards, rollout, candidates)
    batch = BranchBatch(branches, good, kept, tau, noise, state_noise, config.num_steps)
    return batch, {**row, "prefix": prefix}


def judge(
    config: PosttrainConfig, rewards: RewardMix, rollout: Rollout, candidates: int
) -> tuple[Tensor, Tensor, dict[str, float]]:
    """How good each candidate is, which ones take part, and the figures of the groups to write down."""
    values = rewards.terms(rollout)
    total = rewards.total({k: v.unflatten(0, (-1, candidates)) for k, v in values.items()})
    good = optimality(scaled_advantages(total), config.advantage_limit)
    scores = {name: numbers(each, rollout.reference) for name, each in values.items()}
    spread = scores["fidelity"].unflatten(0, (-1, candidates)).std(dim=1, correction=0)
    row = {f"reward.{name}": float(each.mean()) for name, each in scores.items()}
    row |= {
        "reward": row["reward.fidelity"],
        "spread": float(spread.mean()),
        "zero_variance": float((spread < 1e-6).float().mean()),
    }
    return good, extremes(of_candidates(total), config.keep), row


def measure_spread(
    config: PosttrainConfig, base: WorldModel, source: EpisodeSource, train: range, rewards: RewardMix
) -> RewardMix:
    """Measure before training how much the candidates of a group differ, compared with different starts.

    Writes `spread.json` and prints a warning if the sampler is too deterministic for a contrast. The
    rollouts also set the typical penalty of executability.
    """
    if not config.contrastive:
        return rewards
    clip = recorded_clip(config, base, source, train, 0, config.prefix // 2).to(base.device)
    _, rollout = draw_branches(
        base,
        clip,
        context=config.context,
        prefix=config.prefix // 2,
        candidates=config.candidates,
        num_steps=config.num_steps,
        temperature=config.temperature,
        seeds=range(config.groups),
    )
    rewards = rewards.calibrated(rollout)
    spread = {}
    for name, values in rewards.terms(rollout).items():
        grouped = rearrange(numbers(values, rollout.reference), "(b k) -> b k", k=config.candidates)
        within = float(grouped.std(dim=1, correction=0).mean())
        between = float(grouped.mean(dim=1).std(correction=0))
        spread[name] = {"within": within, "between": between}
    if share().first:
        write_json(config.out / "spread.json", spread)
    fidelity = spread["fidelity"]
    print(f"fidelity varies by {fidelity['within']:.4f} within groups and by {fidelity['between']:.4f} between starts")
    if fidelity["within"] < 0.01 * fidelity["between"]:
        print("  candidates hardly differ: use more --num-steps, --temperature or --branch")
    return rewards
