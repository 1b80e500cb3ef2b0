"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347) as an agent."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import NamedSharding, PartitionSpec

from agents.base import NO_OBJECTS, Agent
from agents.policies.network import Weights, network_for
from agents.policies.policy import Policy
from agents.policies.starting import starting_weights
from agents.ppo import keys as ppo_keys
from agents.ppo.acting import Drawn, act, stored
from agents.ppo.config import PPOConfig
from agents.ppo.update import Learner, PyTree, Transitions, critic_of, without_nonfinite
from envs.base import Env, HostEnv
from envs.precision import in_32_bits
from es_rl import checkpoints, devices
from es_rl.devices import AXIS, Program
from es_rl.play import observations
from es_rl.play.jobs import info_metric, without_unreported
from es_rl.play.observations import Moments
from es_rl.play.player import Collected, CollectionKeys, Notify
from es_rl.play.stage import open_stage
from es_rl.strategies.optimizers import at_learning_rate
from es_rl.strategies.updates import update_if_finite


@struct.dataclass
class PPOState:
    """Everything that a run needs to continue; a pytree."""

    params: PyTree
    """The parameters of policy and critic; see `Learner.init`."""
    opt_state: optax.OptState
    """The state of the optimizer."""
    moments: Moments
    """Statistics of the observations of all batches so far. The observations of a batch are added
    when it ends."""
    episodes: Any
    """The environments, between two steps of their episodes."""
    discounted: jax.Array
    """(N,) the running discounted return of each lane."""
    discounted_moments: Moments
    """Statistics of the discounted returns, which scale the rewards."""
    finished: jax.Array
    """(4,) mean, std, max and min return of the episodes of the last iteration in which any ended;
    NaN before the first."""
    key: jax.Array
    """The key from which all random numbers are derived (see `ppo_keys.of_iteration`). It never
    changes."""
    iteration: jax.Array
    """int32 scalar, the number of iterations so far, including those with a skipped update."""


class PPOAgent(Agent):
    """Alternates between T steps of N environments and epochs of minibatches on these
    transitions."""

    resumable = True
    takes = ("network", "critic")
    takes_train_env = True

    def __init__(
        self,
        name: str,
        env: Env | HostEnv,
        config: PPOConfig,
        objects: Mapping[str, Any] = NO_OBJECTS,
        train_env: Env | HostEnv | None = None,
    ):
        self.name = name
        self.env = env
        self.train_env = train_env
        self.config = config
        self.objects = objects
        self.network = network_for(env.spec, config, objects.get("network"))
        self.optimizer = optax.chain(
            optax.clip_by_global_norm(config.max_grad_norm),
            optax.scale_by_adam(eps=1e-5),
            at_learning_rate(config.learning_rate_schedule),
        )
        self.learner = Learner(
            network=self.network,
            critic=critic_of(self.network, objects.get("critic")),
            optimizer=self.optimizer,
            axis=AXIS,
            num_epochs=config.num_epochs,
            num_minibatches=config.num_minibatches,
            gamma=config.gamma,
            gae_lambda=config.gae_lambda,
            clip_range=config.clip_range,
            entropy_coefficient=config.entropy_coefficient,
            value_coefficient=config.value_coefficient,
        )
        count = config.devices or config.most_devices(jax.device_count())
        stage_of = partial(open_stage, devices=count, alone=config.num_envs == 1)
        self.stage = stage_of(env)
        if train_env is not None:
            self.train_stage = stage_of(train_env)
        self.collector = self.train_stage.collector(
            lambda shared, obs, key: act(self.learner, shared, obs, key),
            config.num_envs,
            config.num_steps,
        )
        self._make_programs()

    def _make_programs(self) -> None:
        """Make the compiled programs that run before and after the steps of an iteration."""
        everywhere: Any = PartitionSpec()
        apart: Any = PartitionSpec(AXIS)
        spec = PPOState(
            params=everywhere,
            opt_state=everywhere,
            moments=everywhere,
            episodes=apart,
            discounted=apart,
            discounted_moments=everywhere,
            finished=everywhere,
            key=everywhere,
            iteration=everywhere,
        )
        mesh = self.train_stage.mesh
        by_lane, everywhere_placed = PartitionSpec(None, AXIS), devices.replicated(mesh)
        placed = jax.tree.map(lambda s: NamedSharding(mesh, s), spec)
        self._init = jax.jit(self._initial, out_shardings=placed)
        self._begin = Program(
            self._begin_iteration,
            in_shardings=everywhere_placed,
            out_shardings=(everywhere_placed, devices.spread(mesh)),
        )
        self._update = Program(
            jax.shard_map(
                self._learn,
                mesh=mesh,
                in_specs=(spec, by_lane),
                out_specs=(spec, everywhere),
                check_vma=False,
            ),
            in_shardings=(placed, NamedSharding(mesh, by_lane)),
            out_shardings=(placed, everywhere_placed),
            donate_argnums=0,
        )

    @in_32_bits
    def init(self, key: jax.Array) -> PPOState:
        params_key, episodes_key, key = jax.random.split(key, 3)
        return replace(self._init(params_key, key), episodes=self.collector.start(episodes_key))

    def _initial(self, params_key: jax.Array, key: jax.Array) -> PPOState:
        params = self.learner.init(params_key, self.config.log_std_init)
        return PPOState(
            params=params,
            opt_state=self.optimizer.init(params),
            moments=observations.empty(self.network.statistics_size),
            episodes=(),
            discounted=jnp.zeros(self.config.num_envs),
            discounted_moments=observations.empty(1),
            finished=jnp.full(4, jnp.nan),
            key=key,
            iteration=jnp.int32(0),
        )

    @in_32_bits
    def compile(self, state: PPOState) -> None:
        episodes, state = state.episodes, replace(state, episodes=())
        self._begin.compile(state.key, state.iteration, state.moments)
        shared, keys = self._shared_and_keys(state)
        collected = self.collector.shapes(shared, episodes, keys)
        devices.all_at_once(
            lambda: self.collector.compile(shared, episodes, keys),
            lambda: self._update.compile(state, collected),
        )

    @in_32_bits
    def step(
        self, state: PPOState, notify: Notify | None = None
    ) -> tuple[PPOState, dict[str, Any]]:
        episodes, state = state.episodes, replace(state, episodes=())
        shared, keys = self._shared_and_keys(state)
        episodes, collected, failed = self.collector.collect(shared, episodes, keys)
        state, metrics = self._update(state, collected)
        metrics = without_unreported(metrics, collected.info)
        counts = {"env_steps": self.config.batch_size, "failed_episodes": failed}
        return replace(state, episodes=episodes), {**counts, **metrics}

    @in_32_bits
    def with_policy(self, state: PPOState, policy: Policy) -> PPOState:
        weights = starting_weights(self.network, policy)
        actor, moments = checkpoints.placed(
            (weights.params, weights.moments), (state.params["actor"], state.moments)
        )
        return replace(state, params={**state.params, "actor": actor}, moments=moments)

    @in_32_bits
    def snapshot(self, state: PPOState) -> Policy:
        moments = state.moments
        weights = Weights(state.params["actor"], moments.mean, moments.std, moments.count)
        # A copy, as the next step may reuse the memory of the state.
        weights = jax.tree.map(np.array, jax.device_get(weights))
        return Policy(self.env.spec, self.network, weights, agent=self.name)

    def _shared_and_keys(self, state: PPOState) -> tuple[Weights, CollectionKeys]:
        """The weights with which the lanes act, and the keys of their steps."""
        std, keys = self._begin(state.key, state.iteration, state.moments)
        return Weights(state.params, state.moments.mean, std), keys

    def _begin_iteration(
        self, key: jax.Array, iteration: jax.Array, moments: Moments
    ) -> tuple[jax.Array, CollectionKeys]:
        """The std of observations, and the keys of the steps, (devices, ...)."""
        of_devices = jax.vmap(ppo_keys.of_iteration, in_axes=(None, None, 0))
        numbers = jnp.arange(self.train_stage.mesh.size)
        keys = of_devices(key, iteration, numbers).collection
        return moments.std, jax.tree.map(jax.random.key_data, keys)

    def _transitions(self, state: PPOState, collected: Collected) -> Transitions:
        """The collected steps as transitions, with observations converted by `Network.stored`."""
        drawn: Drawn = collected.record
        rows = jax.vmap(lambda obs: stored(self.network, state.moments, obs))
        return Transitions(
            vector=drawn.vector,
            raw=drawn.raw,
            log_prob=drawn.log_prob,
            reward=collected.reward + self.config.reward_offset,
            terminated=collected.terminated,
            ended=collected.ended,
            next_vector=rows(collected.next_obs),
        )

    def _learn(self, state: PPOState, collected: Collected) -> tuple[PPOState, dict[str, Any]]:
        """One update; every device uses the transitions of its own lanes.

        The update is skipped, including that of the statistics, if no transition is usable, or if a
        loss, a parameter or the optimizer's state would not be finite.
        """
        batch, usable = without_nonfinite(self._transitions(state, collected))
        nonfinite = jax.lax.psum(jnp.sum(~usable), AXIS)
        discounted, discounted_moments = state.discounted, state.discounted_moments
        if self.config.normalize_rewards:
            discounted, discounted_moments, scaled = self._scale_rewards(state, batch)
            batch = batch._replace(reward=scaled)
        keys = ppo_keys.of_iteration(state.key, state.iteration, jax.lax.axis_index(AXIS))
        with self.network.precision():
            params, opt_state, metrics = self.learner.update(
                state.params, state.opt_state, batch, usable, keys.minibatches
            )
        moments = state.moments
        if self.network.normalizes:
            vectors = jax.vmap(jax.vmap(self.network.statistics))(batch.vector)
            moments = _merge(moments, vectors, usable)
        finite = jnp.isfinite(jnp.stack(list(metrics.values()))).all()
        (params, opt_state, moments, discounted_moments), skipped = update_if_finite(
            (params, opt_state, moments, discounted_moments),
            (state.params, state.opt_state, state.moments, state.discounted_moments),
            allowed=finite & (nonfinite < self.config.batch_size),
        )
        finished = _statistics(collected.totals, state.finished)
        for name, values in collected.info.items():
            metrics[info_metric(name)] = jnp.nanmean(jax.lax.all_gather(values, AXIS))
        names = ("return_mean", "return_std", "return_max", "return_min")
        metrics |= dict(zip(names, finished, strict=True)) | {
            "param_norm": optax.tree.norm(params),
            "nonfinite_steps": nonfinite,
            "update_skipped": skipped.astype(jnp.int32),
        }
        new = PPOState(
            params=params,
            opt_state=opt_state,
            moments=moments,
            episodes=(),
            discounted=discounted,
            discounted_moments=discounted_moments,
            finished=finished,
            key=state.key,
            iteration=state.iteration + 1,
        )
        return new, metrics

    def _scale_rewards(self, state: PPOState, batch: Transitions) -> tuple[Any, Moments, jax.Array]:
        """Divide rewards by the std of discounted returns, as Stable-Baselines3's VecNormalize
        does."""

        def step(total: jax.Array, now: tuple[jax.Array, jax.Array]) -> Any:
            reward, ended = now
            total = total * self.config.gamma + reward
            return jnp.where(ended, 0.0, total), total

        discounted, totals = jax.lax.scan(step, state.discounted, (batch.reward, batch.ended))
        moments = state.discounted_moments
        vectors = observations.standardize(totals[..., None], moments.mean, moments.std)
        moments = _merge(moments, vectors, jnp.isfinite(totals))
        return discounted, moments, observations.clip(batch.reward / moments.std[0])


def _merge(moments: Moments, vectors: jax.Array, usable: jax.Array) -> Moments:
    """Add the vectors (T, N, d) of all devices to the statistics, where `usable` (T, N) is true."""
    flat = jnp.where(usable[..., None], vectors, 0.0).reshape(-1, vectors.shape[-1])
    count, total, squares = jax.lax.psum(
        (jnp.sum(usable, dtype=jnp.float32), flat.sum(axis=0), jnp.sum(flat**2, axis=0)), AXIS
    )
    return observations.merge(moments, count[None], total[None], squares[None])


def _statistics(totals: jax.Array, before: jax.Array) -> jax.Array:
    """(4,) mean, std, max and min of the finite values on all devices; `before` if there are
    none."""
    totals = jax.lax.all_gather(totals, AXIS)
    ended = jnp.isfinite(totals)
    now = jnp.stack([f(totals, where=ended) for f in (jnp.mean, jnp.std)])
    most = jnp.max(totals, where=ended, initial=-jnp.inf)
    least = jnp.min(totals, where=ended, initial=jnp.inf)
    return jnp.where(ended.any(), jnp.stack([*now, most, least]), before)
