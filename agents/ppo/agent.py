"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347) as an agent."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import NamedSharding, PartitionSpec

from agents.base import NO_OBJECTS, Agent
from agents.policies.network import Network, NetworkConfig, Squash, Weights
from agents.policies.policy import Policy
from agents.policies.starting import starting_weights
from agents.ppo import collect as ppo_collect
from agents.ppo import keys as ppo_keys
from agents.ppo.collect import HostCollector
from agents.ppo.update import Learner, PyTree, Transitions, critic_of, without_nonfinite
from agents.training.evaluation import EVALUATION_LANES, evaluation_lanes
from envs.base import Env, HostEnv
from envs.base import Lanes as HostLanes
from envs.errors import UserError
from envs.precision import in_32_bits
from es_rl import checkpoints, devices
from es_rl.devices import AXIS, Program
from es_rl.play import observations
from es_rl.play.observations import Moments
from es_rl.play.pacing import Notify
from es_rl.strategies.evolution import update_if_finite


@dataclass(frozen=True)
class PPOConfig(NetworkConfig):
    """Settings of the `ppo` agent; the defaults are those of Stable-Baselines3."""

    squash: Squash = "clip"
    """How a Box action is kept within its bounds: tanh scales smoothly, clip cuts."""
    num_envs: int = 8
    """N, environments stepped side by side, on all devices together."""
    num_steps: int = 256
    """T, steps of each of them between two updates."""
    num_epochs: int = 10
    """How often an update goes through its T x N transitions."""
    minibatch_size: int = 64
    """Transitions of one gradient, on all devices together; at least 2 on each."""
    learning_rate: float = 3e-4
    """Of Adam, at the start."""
    anneal_steps: int | None = None
    """Env steps over which the learning rate falls to 0 linearly; constant unless given."""
    gamma: float = 0.99
    """Discount."""
    gae_lambda: float = 0.95
    """0 trusts the critic, 1 the returns."""
    clip_range: float = 0.2
    """How far the ratio of new to old probability may pay to go from 1."""
    entropy_coefficient: float = 0.0
    """Weight of the entropy, which is kept high."""
    value_coefficient: float = 0.5
    """Weight of the critic's mean squared error."""
    max_grad_norm: float = 0.5
    """Gradients are scaled down to this global norm."""
    log_std_init: float = 0.0
    """Log standard deviation of Box actions at the start."""
    normalize_rewards: bool = False
    """Whether rewards are divided by the running std of the discounted return."""
    devices: int | None = None
    """Devices that share the environments; chosen from their number unless given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.network == "gru":
            raise UserError("network=gru: must be mlp or cnn, as ppo trains no memory")
        for name in ("num_envs", "num_steps", "num_epochs"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.batch_size < 2:
            raise UserError(
                f"num_steps={self.num_steps}: must be at least 2 with num_envs={self.num_envs}"
            )
        if self.minibatch_size < 2:
            raise UserError(
                f"minibatch_size={self.minibatch_size}: must be at least 2, as advantages are "
                "standardised within a minibatch, which leaves 0 of a single one"
            )
        for name in ("anneal_steps", "devices"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: must be at least 1")
        for name in ("learning_rate", "clip_range", "max_grad_norm"):
            if not 0 < getattr(self, name) < np.inf:
                raise UserError(f"{name}={getattr(self, name)}: must be greater than 0")
        for name in ("entropy_coefficient", "value_coefficient"):
            if not 0 <= getattr(self, name) < np.inf:
                raise UserError(f"{name}={getattr(self, name)}: must be at least 0")
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name}={getattr(self, name)}: must be from 0 to 1")
        if self.batch_size % self.minibatch_size:
            raise UserError(
                f"minibatch_size={self.minibatch_size}: must divide num_envs x num_steps, "
                f"{self.batch_size}"
            )
        if self.devices is not None and not self._shared_by(self.devices):
            raise UserError(
                f"devices={self.devices}: must divide num_envs, {self.num_envs}, and "
                f"minibatch_size, {self.minibatch_size}, of which each device needs at least 2"
            )

    @property
    def batch_size(self) -> int:
        """T x N, the transitions of an update."""
        return self.num_envs * self.num_steps

    @property
    def num_minibatches(self) -> int:
        """Gradient steps of an epoch."""
        return self.batch_size // self.minibatch_size

    @property
    def learning_rate_schedule(self) -> optax.Schedule:
        """The learning rate of each gradient step."""
        if self.anneal_steps is None:
            return optax.constant_schedule(self.learning_rate)
        steps = self.num_epochs * self.num_minibatches * self.anneal_steps / self.batch_size
        return optax.linear_schedule(self.learning_rate, 0.0, max(1, round(steps)))

    def most_devices(self, available: int) -> int:
        """How many of the available devices to use: all that have 32 environments each."""
        # With fewer, waiting for each other after every minibatch costs more than is gained.
        enough = [n for n in range(2, available + 1) if self.num_envs >= 32 * n]
        return max(filter(self._shared_by, enough), default=1)

    def _shared_by(self, count: int) -> bool:
        # Advantages are standardised within each device's part of a minibatch.
        parts_of_two = self.minibatch_size % count == 0 and self.minibatch_size // count >= 2
        return self.num_envs % count == 0 and parts_of_two


@struct.dataclass
class PPOState:
    """Everything that a run needs to go on; a pytree."""

    params: PyTree
    """See `Learner.init`."""
    opt_state: optax.OptState
    moments: Moments
    """Of the observations of all batches so far; those of this one are added at its end."""
    lanes: Any
    """The environments between two steps: a `ppo_collect.Lanes`, on the host an `Episodes`."""
    discounted: jax.Array
    """(N,) the discounted return so far, whose moments scale rewards."""
    discounted_moments: Moments
    finished: jax.Array
    """(4,) mean, std, max and min return of the episodes that ended last; NaN before the first."""
    key: jax.Array
    """Never advanced: see `ppo_keys.of_iteration`."""
    iteration: jax.Array
    """int32 scalar, how many there were so far, those with a skipped update included."""


class PPOAgent(Agent):
    """Alternates T steps of N environments and epochs of minibatches on them."""

    resumable = True
    takes = ("network", "critic")

    def __init__(
        self,
        name: str,
        env: Env | HostEnv,
        config: PPOConfig,
        objects: Mapping[str, Any] = NO_OBJECTS,
    ):
        self.name = name
        self.env = env
        self.config = config
        self.objects = objects
        own = NetworkConfig(**{f.name: getattr(config, f.name) for f in fields(NetworkConfig)})
        self.network = Network(
            env.spec.observation_space, env.spec.action_space, own, objects.get("network")
        )
        self.optimizer = optax.chain(
            optax.clip_by_global_norm(config.max_grad_norm),
            optax.adam(config.learning_rate_schedule, eps=1e-5),
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
        on_host = isinstance(env, HostEnv)
        count = config.devices or config.most_devices(jax.device_count())
        self.mesh = devices.make_mesh(1 if on_host else count)
        everywhere: Any = PartitionSpec()
        apart: Any = PartitionSpec(AXIS)
        spec = PPOState(
            params=everywhere,
            opt_state=everywhere,
            moments=everywhere,
            lanes=apart,
            discounted=apart,
            discounted_moments=everywhere,
            finished=everywhere,
            key=everywhere,
            iteration=everywhere,
        )
        placed = jax.tree.map(lambda s: NamedSharding(self.mesh, s), spec)
        self._init = jax.jit(self._initial, out_shardings=placed)
        self.lanes: HostLanes | None = None
        if isinstance(env, HostEnv):
            self._keys = jax.jit(ppo_keys.of_iteration)
            # One environment that one worker steps is evaluated on, too: there is no other one.
            alone = config.num_envs == env.workers == 1
            self.lanes = evaluation_lanes(env, 1 if alone else EVALUATION_LANES)
            lanes = self.lanes if alone else env.lanes(config.num_envs)
            self._collector = HostCollector(
                env, lanes, self.learner, config.num_envs, config.num_steps
            )
            by_lane = PartitionSpec(None, AXIS)
            body: Any = self._learn
            given: Any = (spec, by_lane, by_lane)
        else:
            body, given = self._play_and_learn, (spec,)
        self._update = Program(
            jax.shard_map(
                body,
                mesh=self.mesh,
                in_specs=given,
                out_specs=(spec, everywhere),
                check_vma=False,
            ),
            donate_argnums=0,
        )

    @in_32_bits
    def init(self, key: jax.Array) -> PPOState:
        state = self._init(key)
        on_host = self.lanes is not None
        return replace(state, lanes=self._collector.nothing) if on_host else state

    def _initial(self, key: jax.Array) -> PPOState:
        params_key, lanes_key, key = jax.random.split(key, 3)
        params = self.learner.init(params_key, self.config.log_std_init)
        env, count = self.env, self.config.num_envs
        return PPOState(
            params=params,
            opt_state=self.optimizer.init(params),
            moments=observations.empty(self.network.statistics_size),
            lanes=() if isinstance(env, HostEnv) else ppo_collect.start(env, count, lanes_key),
            discounted=jnp.zeros(count),
            discounted_moments=observations.empty(1),
            finished=jnp.full(4, jnp.nan),
            key=key,
            iteration=jnp.int32(0),
        )

    @in_32_bits
    def compile(self, state: PPOState) -> None:
        if self.lanes is None:
            self._update.compile(state)
            return
        made = self._collector.compile(state.params, state.moments, self._keys(state.key, 0, 0))
        self._update.compile(replace(state, lanes=()), made.batch, made.totals)

    @in_32_bits
    def step(
        self, state: PPOState, notify: Notify | None = None
    ) -> tuple[PPOState, dict[str, Any]]:
        if self.lanes is None:
            state, metrics = self._update(state)
            return state, {"env_steps": self.config.batch_size, **metrics}
        keys = self._keys(state.key, state.iteration, 0)
        episodes, (batch, totals, failed) = self._collector.collect(
            state.params, state.moments, keys, state.lanes
        )
        state, metrics = self._update(replace(state, lanes=()), batch, totals)
        state = replace(state, lanes=episodes)
        counts = {"env_steps": self.config.batch_size, "failed_episodes": failed}
        return state, {**counts, **metrics}

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

    def close(self) -> None:
        super().close()
        if self.lanes is not None:
            self._collector.close()

    def _play_and_learn(self, state: PPOState) -> tuple[PPOState, dict[str, Any]]:
        assert not isinstance(self.env, HostEnv)
        keys = ppo_keys.of_iteration(state.key, state.iteration, jax.lax.axis_index(AXIS))
        with self.network.precision():
            lanes, collected = ppo_collect.collect(
                self.env,
                self.learner,
                self.config.num_steps,
                state.params,
                state.moments,
                state.lanes,
                keys,
            )
        return self._learn(replace(state, lanes=lanes), collected.batch, collected.totals)

    def _learn(
        self, state: PPOState, batch: Transitions, totals: jax.Array
    ) -> tuple[PPOState, dict[str, Any]]:
        """One update, on every device with its own lanes.

        It is skipped, statistics and all, where no transition is usable, or where a loss, a
        parameter or the optimiser's state would not be finite.
        """
        batch, usable = without_nonfinite(batch)
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
            vectors = jnp.reshape(batch.vector, (*usable.shape, -1))
            moments = _merge(moments, vectors, usable)
        finite = jnp.isfinite(jnp.stack(list(metrics.values()))).all()
        (params, opt_state, moments, discounted_moments), skipped = update_if_finite(
            (params, opt_state, moments, discounted_moments),
            (state.params, state.opt_state, state.moments, state.discounted_moments),
            allowed=finite & (nonfinite < self.config.batch_size),
        )
        finished = _statistics(totals, state.finished)
        names = ("return_mean", "return_std", "return_max", "return_min")
        # The optimiser's own count: skipped updates do not advance it.
        _, count = optax.tree.get_all_with_path(state.opt_state, "count")[-1]
        metrics |= dict(zip(names, finished, strict=True)) | {
            "learning_rate": jnp.asarray(self.config.learning_rate_schedule(count)),
            "param_norm": optax.tree.norm(params),
            "nonfinite_steps": nonfinite,
            "update_skipped": skipped.astype(jnp.int32),
        }
        new = PPOState(
            params=params,
            opt_state=opt_state,
            moments=moments,
            lanes=state.lanes,
            discounted=discounted,
            discounted_moments=discounted_moments,
            finished=finished,
            key=state.key,
            iteration=state.iteration + 1,
        )
        return new, metrics

    def _scale_rewards(self, state: PPOState, batch: Transitions) -> tuple[Any, Moments, jax.Array]:
        """Rewards over the std of discounted returns, as Stable-Baselines3's VecNormalize."""

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
    """Add those of the standardised vectors (T, N, d) of all devices that are usable (T, N)."""
    flat = jnp.where(usable[..., None], vectors, 0.0).reshape(-1, vectors.shape[-1])
    count, total, squares = jax.lax.psum(
        (jnp.sum(usable, dtype=jnp.float32), flat.sum(axis=0), jnp.sum(flat**2, axis=0)), AXIS
    )
    return observations.merge(moments, count[None], total[None], squares[None])


def _statistics(totals: jax.Array, before: jax.Array) -> jax.Array:
    """(4,) mean, std, max and min of what is finite on all devices; `before` if nothing is."""
    totals = jax.lax.all_gather(totals, AXIS)
    ended = jnp.isfinite(totals)
    now = jnp.stack([f(totals, where=ended) for f in (jnp.mean, jnp.std)])
    most = jnp.max(totals, where=ended, initial=-jnp.inf)
    least = jnp.min(totals, where=ended, initial=jnp.inf)
    return jnp.where(ended.any(), jnp.stack([*now, most, least]), before)
