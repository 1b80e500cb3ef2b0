"""The agents that train a policy with evolution strategies: EGGROLL and OpenES."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import PartitionSpec

import es_rl
from agents.base import NO_OBJECTS, Agent
from agents.evolution.config import EvolutionConfig
from agents.evolution.members import Acting, Members
from agents.evolution.own_strategies import strategy_of
from agents.policies.network import Weights, network_for
from agents.policies.policy import Policy
from agents.policies.starting import starting_weights
from envs.base import Env, HostEnv
from envs.errors import UserError
from envs.precision import in_32_bits
from es_rl import checkpoints, devices
from es_rl.devices import AXIS, Program
from es_rl.fitness import Fitness, aggregate
from es_rl.play import observations
from es_rl.play.jobs import (
    Array,
    Played,
    as_int,
    as_int32,
    episode_keys,
    info_metric,
    make_jobs,
    wide_sum,
    without_unreported,
)
from es_rl.play.observations import Moments
from es_rl.play.player import Notify
from es_rl.play.stage import open_stage
from es_rl.shaping import statistics
from es_rl.strategies.optimizers import env_steps_for

_LOCATIONS = ("return_mean", "return_max", "return_min", "fitness_mean")
"""Metrics that change by c when a constant c is added to all returns."""
_MOVES_WITH_CONSTANTS = ("mean", "median", "min", "cvar")
"""Fitness settings that change by c when a constant c is added to all returns."""
_BLIND_TO_CONSTANTS = ("zscore", "centered_rank")
"""Shapings whose result does not change when a constant is added to all fitnesses."""


@struct.dataclass
class EvolutionState:
    """Everything that a run needs to continue; a pytree."""

    es: Any
    """The state of the strategy, an `es_rl.strategies.StrategyState`."""
    moments: Moments
    """Statistics of the observations of all generations so far. The observations of a generation
    are added when it ends, also where several make one update: were they held back until then, the
    whole first update would see observations that are not normalised."""
    key: jax.Array
    """The key from which all random numbers are derived (see `_keys`). It never changes."""


class _Keys(NamedTuple):
    """The keys of a run, one for each purpose."""

    params: jax.Array
    strategy: jax.Array
    episodes: jax.Array
    """The parent of the keys of each generation: the generation's number is folded into it."""


def _keys(key: jax.Array) -> _Keys:
    return _Keys(*jax.random.split(key, 3))


class EvolutionAgent(Agent):
    """Trains a policy network with an evolution strategy; every member plays its own episodes."""

    in_processes = True
    takes = ("network", "strategy", "shaping", "fitness")
    takes_train_env = True

    def __init__(
        self,
        name: str,
        env: Env | HostEnv,
        config: EvolutionConfig,
        objects: Mapping[str, Any] = NO_OBJECTS,
        train_env: Env | HostEnv | None = None,
    ):
        self.name = name
        self.env = env
        self.train_env = train_env
        self.config = config
        self.objects = objects
        self.network = network_for(env.spec, config, objects.get("network"))
        params = jax.eval_shape(self.network.init, jax.eval_shape(jax.random.key, 0))
        x = jax.ShapeDtypeStruct(self.network.shape, jnp.float32)
        layout = es_rl.layout(self.network.apply, params, self.network.memory, x)
        self.strategy: es_rl.Strategy = strategy_of(config, objects, params, layout)
        self.summary = es_rl.describe(self.strategy, params).summary
        self._fitness: Fitness = objects.get("fitness", config.fitness)
        jobs = make_jobs(
            self.strategy.population_size,
            config.episodes_per_member,
            self.strategy.episode_sharing,
        )
        self._num_episodes = int(jobs.episode.max()) + 1
        stage_of = partial(
            open_stage, devices=config.devices, jobs=len(jobs.member), lanes=config.lanes
        )
        self.stage = stage_of(env)
        if train_env is not None:
            self.train_stage = stage_of(train_env)
        self._check_noise()
        self._check_jobs(len(jobs.member))
        everywhere: Any = PartitionSpec()
        spec, members_here = everywhere, None
        if config.shard_update:
            self._check_shards()
            # `agents.make` takes no strategy of the user's together with this setting.
            assert isinstance(self.strategy, es_rl.EvolutionStrategy)
            self.strategy = replace(self.strategy, mesh=self.train_stage.mesh)
            members_here = config.population_size // self.train_stage.mesh.size
            apart: Any = PartitionSpec(AXIS)
            noise = es_rl.Noise(apart, everywhere, config.noise_reuse)
            spec = Members(everywhere, everywhere, everywhere, noise)
        self._make_programs()
        self.player = self.train_stage.player(
            Acting(self.network, config.sample_actions, members_here).behaviour,
            jobs,
            max_steps=config.episode_steps,
            shared_spec=spec,
        )

    def _make_programs(self) -> None:
        """Make the compiled programs that run before and after the episodes of a generation."""
        everywhere: Any = devices.replicated(self.train_stage.mesh)
        noise = everywhere
        if self.config.shard_update:
            apart: Any = devices.spread(self.train_stage.mesh)
            noise = es_rl.Noise(apart, everywhere, self.config.noise_reuse)
        self._init = jax.jit(self._initial, in_shardings=everywhere, out_shardings=everywhere)
        self._restart = jax.jit(self._restarted, in_shardings=everywhere, out_shardings=everywhere)
        self._ask = Program(
            self._start_generation,
            in_shardings=everywhere,
            out_shardings=(noise, everywhere, everywhere),
        )
        self._tell = Program(
            self._finish_generation,
            in_shardings=(everywhere, noise, everywhere),
            out_shardings=everywhere,
            donate_argnums=0,
        )

    def _check_noise(self) -> None:
        """Refuse a population whose noise does not fit into memory, before the noise is made."""

        def draw(key: jax.Array) -> es_rl.Noise:
            return self.strategy.ask(self.strategy.init(key, self.network.init(key)))

        drawn = jax.tree.leaves(jax.eval_shape(draw, jax.eval_shape(jax.random.key, 0)))
        needed = sum(math.prod(x.shape) * x.dtype.itemsize for x in drawn)
        most = devices.memory(self.train_stage.mesh)
        if needed > most:
            raise UserError(
                f"population_size={self.strategy.population_size}: makes {needed / 2**30:,.0f} GiB "
                f"of noise for this network: must make at most {most / 2**30:,.0f} GiB, as there is"
            )

    def _check_jobs(self, jobs: int) -> None:
        if jobs < self.train_stage.min_jobs:
            raise UserError(
                f"population_size={self.strategy.population_size}: must be at least "
                f"{self.train_stage.min_jobs}, the number of processes"
            )

    def _check_shards(self) -> None:
        if not self.train_stage.splits_shared:
            raise UserError("shard_update=True: must be False where environments step on the host")
        population, step = self.config.population_size, max(self.config.noise_reuse, 1)
        step *= self.train_stage.mesh.size
        if population % step:
            near = max(population // step, 1) * step
            raise UserError(
                f"population_size={population}: must be a multiple of {step}, noise_reuse times "
                f"devices, with shard_update: such as {near} or {near + step}"
            )

    @in_32_bits
    def init(self, key: jax.Array) -> EvolutionState:
        # A NumPy array can be passed to a program on all devices of all processes.
        return self._init(np.asarray(jax.random.key_data(key)))

    def _initial(self, key_data: jax.Array) -> EvolutionState:
        key = jax.random.wrap_key_data(key_data)
        params = self.network.init(_keys(key).params)
        es_state = self.strategy.init(_keys(key).strategy, params)
        return EvolutionState(es_state, observations.empty(self.network.statistics_size), key)

    def _restarted(self, key: jax.Array, params: Any) -> Any:
        """The strategy's state at the start of a run from given parameters."""
        return self.strategy.init(_keys(key).strategy, params)

    @in_32_bits
    def compile(self, state: EvolutionState) -> None:
        noise, std, keys = jax.eval_shape(self._start_generation, state)
        members = Members(state.es.params, state.moments.mean, std, noise)
        played = self.player.shapes(members, keys)
        returns: Any = jax.ShapeDtypeStruct(played.returns.shape, np.float32)
        devices.all_at_once(
            lambda: self._ask.compile(state),
            lambda: self.player.compile(members, keys),
            lambda: self._tell.compile(state, noise, played._replace(returns=returns)),
        )

    @in_32_bits
    def step(
        self, state: EvolutionState, notify: Notify | None = None
    ) -> tuple[EvolutionState, dict[str, Any]]:
        members, keys = self.ask(state)
        if self.network.normalizes and np.asarray(state.moments.count) == 0:
            state = self._with_a_first_mean(state, keys)
            members = members._replace(mean=state.moments.mean)
        played = self.player.play(members, keys, notify)
        returns, offset = self._as_float32(played.returns)
        state, counts, metrics = self._tell(state, members.noise, played._replace(returns=returns))
        env_steps, lane_steps = map(as_int, jax.device_get(counts))
        moved = {k: float(metrics[k]) + offset for k in _LOCATIONS if offset and k in metrics}
        metrics = without_unreported(metrics, played.info)
        if self._fitness == "success" and "success_rate" not in metrics:
            trained = self.env if self.train_env is None else self.train_env
            raise UserError(
                f"fitness=success: {trained.spec.id} reports no success at the end of its "
                "episodes (info['is_success'] or info['success']): must be another one"
            )
        used = {"env_steps": env_steps, "lane_utilization": env_steps / lane_steps}
        return state, {**metrics, **moved, **used}

    def ask(self, state: EvolutionState) -> tuple[Members, Array]:
        """The members of a generation, and the key data of the generation's episodes."""
        noise, std, keys = self._ask(state)
        return Members(state.es.params, state.moments.mean, std, noise), keys

    def _as_float32(self, returns: Array) -> tuple[Array, float]:
        """The returns in float32 for the update, and the offset that was subtracted from them.

        Returns from host environments are float64. Where the update ignores constants, one of the
        returns is subtracted from all of them before the conversion to float32. This keeps the
        digits of returns that share a large part, such as a reward for being alive.
        """
        if returns.dtype == np.float32:
            return returns, 0.0
        returns = np.asarray(returns)
        finite = returns[np.isfinite(returns)]
        # A strategy or shaping of the user's may depend on the offset, and the success rule does.
        own = self.objects.keys() & {"strategy", "shaping"} or self.config.sigma_rule == "success"
        blind = not own and self.config.shaping in _BLIND_TO_CONSTANTS
        blind = blind and self._fitness in _MOVES_WITH_CONSTANTS
        offset = float(finite[0]) if len(finite) and blind else 0.0
        return (returns - offset).astype(np.float32), offset

    def _with_a_first_mean(self, state: EvolutionState, keys: Array) -> EvolutionState:
        """Use the first observation as the mean of the statistics while there is none.

        Without it, the sums of squares of observations around 60,000 (prices, for example) would
        lose in float32 all digits of how the observations differ.
        """
        first, moments = self.player.first_observation(keys), state.moments
        if first is None:
            return state
        # The initial mean and std leave the observation as it is.
        observed = self.network.observe(jnp.asarray(first), moments.mean, moments.std)
        mean = np.asarray(self.network.statistics(observed))
        mean = np.where(np.isfinite(mean), mean, np.float32(0))
        mean = jax.device_put(mean, moments.mean.sharding)
        return replace(state, moments=replace(moments, mean=mean))

    @in_32_bits
    def with_policy(self, state: EvolutionState, policy: Policy) -> EvolutionState:
        weights = starting_weights(self.network, policy)
        params, moments = checkpoints.placed(
            (weights.params, weights.moments), (state.es.params, state.moments)
        )
        return replace(state, es=self._restart(state.key, params), moments=moments)

    @in_32_bits
    def snapshot(self, state: EvolutionState) -> Policy:
        # A copy, as the next step may reuse the memory of the state.
        moments = state.moments
        weights = Weights(state.es.params, moments.mean, moments.std, moments.count)
        weights = jax.tree.map(np.array, jax.device_get(weights))
        return Policy(self.env.spec, self.network, weights, agent=self.name)

    def _start_generation(self, state: EvolutionState) -> tuple[es_rl.Noise, Any, jax.Array]:
        """The noise, the std of observations, and the key data of the episodes."""
        noise = self.strategy.ask(state.es)
        whole = (
            self.train_stage.mesh.is_multi_process
            or self.strategy.num_draws % self.train_stage.mesh.size != 0
        )
        if self.config.shard_update or not whole:
            # Each device draws a part of the noise. Without `shard_update` the devices then
            # exchange the parts (below). Between processes that exchange would take longer than
            # drawing all of the noise on every device.
            apart = devices.spread(self.train_stage.mesh)
            leaves = jax.lax.with_sharding_constraint(noise.leaves, apart)
            noise = replace(noise, leaves=leaves)
        if not self.config.shard_update:
            noise = jax.lax.with_sharding_constraint(
                noise, devices.replicated(self.train_stage.mesh)
            )
        key = jax.random.fold_in(_keys(state.key).episodes, state.es.generation)
        keys = jax.random.key_data(episode_keys(key, self._num_episodes))
        return noise, state.moments.std, keys

    def _finish_generation(
        self, state: EvolutionState, noise: es_rl.Noise, played: Played
    ) -> tuple[EvolutionState, Any, dict[str, Any]]:
        """The next state, env steps and lane steps as `wide_sum` gives them, and other metrics."""
        counts = wide_sum(played.lengths), wide_sum(played.lane_steps)
        state, metrics = self._learn(state, noise, played)
        return state, counts, metrics

    def _learn(
        self, state: EvolutionState, noise: es_rl.Noise, played: Played
    ) -> tuple[EvolutionState, dict[str, Any]]:
        returns = jnp.asarray(played.returns).reshape(self.strategy.population_size, -1)
        info = {name: jnp.asarray(values) for name, values in played.info.items()}
        outcomes = info["success"].reshape(returns.shape) if "success" in info else None
        # Added to every step of an episode, the offset adds up to this.
        offset = self.config.reward_offset * jnp.asarray(played.lengths).reshape(returns.shape)
        with self.network.precision():
            fitness = aggregate(returns + offset, outcomes, self._fitness)
            steps = env_steps_for(state.es, as_int32(wide_sum(played.lengths)))
            es_state, told = self.strategy.tell(state.es, noise, fitness, **steps)
        means = returns.mean(axis=1)
        filled, _ = es_rl.replace_nonfinite(means)
        moments = state.moments
        if self.network.normalizes:
            moments = observations.merge(
                moments, played.lengths, played.obs_sum, played.obs_squares
            )
        metrics = {
            **{f"return_{k}": v for k, v in statistics(means, filled).items()},
            "nonfinite_members": jnp.sum(~jnp.isfinite(fitness)),
            # An episode that was played has at least one step, so length 0 marks a failed one.
            "failed_episodes": jnp.sum(jnp.asarray(played.lengths) == 0),
            # The number of episodes in which an observation was not finite.
            "nonfinite_observations": jnp.sum(~jnp.isfinite(played.obs_sum).all(axis=1)),
        }
        # The metrics of the strategy are kept, except those of fitness, which are computed here.
        said = {"nonfinite_members", *(f"fitness_{k}" for k in ("mean", "std", "max", "min"))}
        metrics = {**{k: v for k, v in told.items() if k not in said}, **metrics}
        if played.nonfinite_actions is not None:
            metrics["nonfinite_actions"] = jnp.sum(played.nonfinite_actions)
        if self._fitness != "mean":
            metrics["fitness_mean"] = jnp.mean(fitness, where=jnp.isfinite(fitness))
        metrics |= {info_metric(name): jnp.nanmean(values) for name, values in info.items()}
        return EvolutionState(es_state, moments, state.key), metrics
