"""The agents that evolve a policy: EGGROLL and OpenES."""

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import PartitionSpec

import es_rl
from agents.base import NO_OBJECTS, Agent
from agents.evolution.config import EvolutionConfig
from agents.policies.network import Network, NetworkConfig, Weights
from agents.policies.policy import Policy
from agents.policies.spaces import empty
from agents.policies.starting import starting_weights
from agents.training.evaluation import EVALUATION_LANES
from envs.base import Env, HostEnv, Lanes
from envs.errors import UserError
from envs.precision import in_32_bits
from es_rl import checkpoints, devices, processes
from es_rl.devices import Program
from es_rl.play import observations
from es_rl.play.host_acting import as_float32
from es_rl.play.host_rollout import (
    HostRollout,
    episode_seeds,
    first_observation,
    lanes_for,
    with_idle_lanes,
)
from es_rl.play.jobs import Played, as_int, episode_keys, make_jobs, wide_sum
from es_rl.play.observations import Moments
from es_rl.play.pacing import Notify, PacedRollout
from es_rl.play.rollout import Behaviour, Episodes, Progress, Rollout

_LOCATIONS = ("mean", "max", "min")
"""Statistics of returns that move with a constant."""


@struct.dataclass
class EvolutionState:
    """Everything that a run needs to go on; a pytree."""

    es: es_rl.ESState
    moments: Moments
    """Of the observations of all generations so far; those of this one are added at its end."""
    key: jax.Array
    """For episodes. Never advanced: the generation is folded into it."""


class EvolutionAgent(Agent):
    """Evolves the parameters of a policy network; every member plays its own episodes."""

    resumable = True
    takes = ("network",)

    def __init__(
        self,
        name: str,
        env: Env | HostEnv,
        config: EvolutionConfig,
        objects: Mapping[str, Any] = NO_OBJECTS,
    ):
        self.name = name
        self.env = env
        self.config = config
        self.objects = objects
        self.strategy = config.strategy()
        own = NetworkConfig(**{f.name: getattr(config, f.name) for f in fields(NetworkConfig)})
        self.network = Network(
            env.spec.observation_space, env.spec.action_space, own, objects.get("network")
        )
        # A host environment's actions are computed in one call, on one device.
        on_host = isinstance(env, HostEnv)
        self.mesh = devices.make_mesh(1 if on_host else config.devices, local=on_host)
        self._check_noise()
        self._jobs = make_jobs(
            config.population_size, config.episodes_per_member, self.strategy.episode_sharing
        )
        self._num_episodes = int(self._jobs.episode.max()) + 1
        everywhere = devices.replicated(self.mesh)
        self._init = jax.jit(self._initial, in_shardings=everywhere, out_shardings=everywhere)
        if config.shard_update:
            self._check_shards()
        behaviour = Behaviour(self._select, self.network.memory, self._act_as_member)
        count = len(self._jobs.member)
        self.lanes: Lanes | None = None
        if isinstance(env, HostEnv):
            if count < processes.count():
                raise UserError(
                    f"population_size={config.population_size}: must be at least "
                    f"{processes.count()}, the number of processes"
                )
            lanes_here = config.lanes and -(-config.lanes // processes.count())
            num_lanes = lanes_for(-(-count // processes.count()), env.workers, lanes_here)
            # No more than were asked for, in evaluation neither; else as many as that likes.
            busy = num_lanes if config.lanes else max(num_lanes, EVALUATION_LANES)
            self.lanes = env.lanes(with_idle_lanes(busy), busy)
            self.host_rollout = HostRollout(
                env.spec.id, self.lanes, behaviour, self._jobs, num_lanes, config.episode_steps
            )
            self.ask = jax.jit(self._ask_and_keys)
            self._tell = jax.jit(self._learn, donate_argnums=0)
        else:
            lanes = devices.lanes_per_device(count, self.mesh, config.lanes)
            tail = devices.tail_lanes(lanes, self.mesh)
            spec: Any = PartitionSpec()
            placed: Any = everywhere
            if config.shard_update:
                self.strategy = replace(self.strategy, mesh=self.mesh)
                leaves: Any = PartitionSpec(devices.AXIS)
                spec = (spec, es_rl.Noise(leaves, spec, config.noise_reuse))
                apart: Any = devices.spread(self.mesh)
                placed = es_rl.Noise(apart, placed, config.noise_reuse)
            rollout = Rollout(
                env, behaviour, self._jobs, self.mesh, lanes, tail, config.episode_steps, spec
            )
            self._use(rollout, placed)

    def _use(self, rollout: Rollout, noise: Any) -> None:
        """Make the programs of a generation: its start, its steps and its end.

        Args:
          rollout: plays the jobs.
          noise: how the noise lies on the devices.
        """
        self.rollout, self._noise_placed = rollout, noise
        everywhere, apart = devices.replicated(self.mesh), devices.spread(self.mesh)
        self._start = Program(
            self._start_generation, in_shardings=everywhere, out_shardings=(noise, apart, apart)
        )
        self._advance = PacedRollout(rollout)
        self._finish = Program(
            self._finish_generation,
            in_shardings=(everywhere, noise, apart),
            out_shardings=everywhere,
            donate_argnums=0,
        )

    def _check_noise(self) -> None:
        """Refuse a population whose noise does not fit into memory, before any of it is made."""

        def draw(key: jax.Array) -> es_rl.Noise:
            return self.strategy.ask(self.strategy.init(key, self.network.init(key)))

        drawn = jax.tree.leaves(jax.eval_shape(draw, jax.eval_shape(jax.random.key, 0)))
        needed = sum(math.prod(x.shape) * x.dtype.itemsize for x in drawn)
        most = devices.memory(self.mesh)
        if needed > most:
            raise UserError(
                f"population_size={self.config.population_size}: makes {needed / 2**30:,.0f} GiB "
                f"of noise for this network: must make at most {most / 2**30:,.0f} GiB, as there is"
            )

    def _check_shards(self) -> None:
        if isinstance(self.env, HostEnv):
            raise UserError("shard_update=True: must be False where environments step on the host")
        population, step = self.config.population_size, max(self.config.noise_reuse, 1)
        step *= self.mesh.size
        if population % step:
            near = max(population // step, 1) * step
            raise UserError(
                f"population_size={population}: must be a multiple of {step}, noise_reuse times "
                f"devices, with shard_update: such as {near} or {near + step}"
            )

    @in_32_bits
    def init(self, key: jax.Array) -> EvolutionState:
        # NumPy's data of the key is at once on all devices of all processes.
        return self._init(np.asarray(jax.random.key_data(key)))

    def _initial(self, key_data: jax.Array) -> EvolutionState:
        key = jax.random.wrap_key_data(key_data)
        params_key, es_key, episodes_key = jax.random.split(key, 3)
        es_state = self.strategy.init(es_key, self.network.init(params_key))
        moments = observations.empty(self.network.statistics_size)
        return EvolutionState(es_state, moments, episodes_key)

    @in_32_bits
    def compile(self, state: EvolutionState) -> None:
        if self.lanes is None:
            noise, episodes, progress = jax.eval_shape(self._start_generation, state)
            devices.all_at_once(
                lambda: self._start.compile(state),
                lambda: self._advance.compile((state, noise), episodes, progress),
                lambda: self._finish.compile(state, noise, progress),
            )
            return
        noise, keys = self.ask(state)
        self.host_rollout.compile((state, noise), keys, empty(self.env.spec.observation_space))
        count = len(self._jobs.member)
        nothing = np.zeros((count, self.network.statistics_size), np.float32)
        lengths = np.ones(count, np.int32)
        played = Played(np.zeros(count, np.float32), lengths, nothing, nothing, lengths[:1])
        self._tell(jax.tree.map(jnp.copy, state), noise, played)

    @in_32_bits
    def step(
        self, state: EvolutionState, notify: Notify | None = None
    ) -> tuple[EvolutionState, dict[str, Any]]:
        if self.lanes is None:
            noise, episodes, progress = self._start(state)
            progress = self._advance((state, noise), episodes, progress, notify)
            return with_counts(self._finish(state, noise, progress))
        noise, keys = self.ask(state)
        seeds = episode_seeds(keys, evaluation=False)
        if self.network.normalizes and state.moments.count == 0:
            state = self._with_a_first_mean(state, seeds[0])
        played = self.host_rollout.play((state, noise), keys, seeds, notify)
        # The update sees float32. Differences to one of the returns keep the digits of those that
        # have a large part in common, as the reward for being alive; a constant changes no weights.
        finite = played.returns[np.isfinite(played.returns)]
        offset = finite[0] if len(finite) and self.config.shaping != "none" else 0.0
        centred = (played.returns - offset).astype(np.float32)
        told = played._replace(returns=centred, nonfinite_actions=None)
        state, metrics = self._tell(state, noise, told)
        means = {f"return_{k}": float(metrics[f"return_{k}"]) + offset for k in _LOCATIONS}
        counts = (int(np.sum(x, dtype=np.int64)) for x in (played.lengths, played.lane_steps))
        wrong = {
            # No episode that was played is of length 0.
            "failed_episodes": int(np.sum(played.lengths == 0)),
            "nonfinite_actions": int(np.sum(np.asarray(played.nonfinite_actions))),
        }
        return state, {**_counted(*counts), **metrics, **means, **wrong}

    def _with_a_first_mean(self, state: EvolutionState, seed: int) -> EvolutionState:
        """Take one observation for the mean while there is none.

        Sums of squares of observations around 60,000, as prices are, would leave no digits for
        how they differ.
        """
        first = np.zeros(self.network.statistics_size, np.float32)
        if self.lanes is not None and processes.is_main():
            obs = first_observation(self.lanes, seed)
            if obs is not None:
                first = np.ravel(as_float32(obs)).astype(np.float32)
        first = processes.broadcast([np.where(np.isfinite(first), first, np.float32(0))])[0]
        mean = jax.device_put(first, state.moments.mean.sharding)
        return replace(state, moments=replace(state.moments, mean=mean))

    @in_32_bits
    def with_policy(self, state: EvolutionState, policy: Policy) -> EvolutionState:
        weights = starting_weights(self.network, policy)
        params, moments = checkpoints.placed(
            (weights.params, weights.moments), (state.es.params, state.moments)
        )
        return replace(state, es=replace(state.es, params=params), moments=moments)

    @in_32_bits
    def snapshot(self, state: EvolutionState) -> Policy:
        # A copy, as the next step may reuse the memory of the state.
        moments = state.moments
        weights = Weights(state.es.params, moments.mean, moments.std, moments.count)
        weights = jax.tree.map(np.array, jax.device_get(weights))
        return Policy(self.env.spec, self.network, weights, agent=self.name)

    def _ask_and_keys(self, state: EvolutionState) -> tuple[es_rl.Noise, jax.Array]:
        noise = self.strategy.ask(state.es)
        whole = self.mesh.is_multi_process or self.strategy.num_draws % self.mesh.size != 0
        if self.config.shard_update or not whole:
            # Each device draws its part; below all of them get all of it, which between processes
            # would take longer than to draw all of it everywhere.
            apart = devices.spread(self.mesh)
            leaves = jax.lax.with_sharding_constraint(noise.leaves, apart)
            noise = replace(noise, leaves=leaves)
        if not self.config.shard_update:
            noise = jax.lax.with_sharding_constraint(noise, devices.replicated(self.mesh))
        key = jax.random.fold_in(state.key, state.es.generation)
        return noise, episode_keys(key, self._num_episodes)

    def _select(self, shared: tuple[EvolutionState, es_rl.Noise], member: jax.Array) -> list[Any]:
        state, noise = shared
        if self.config.shard_update:  # of the noise there are the rows of this device's members
            member = member % (self.config.population_size // self.mesh.size)
        return es_rl.select(state.es.params, noise, member)

    def _act_as_member(
        self,
        shared: tuple[EvolutionState, es_rl.Noise],
        selected: list[Any],
        memory: Any,
        obs: jax.Array,
        key: jax.Array,
    ) -> tuple[jax.Array, Any, jax.Array]:
        """One member's action for one observation, and the vector to take statistics of."""
        state, _ = shared

        def forward(memory: Any, x: jax.Array) -> Any:
            return es_rl.apply_selected(self.network.apply, state.es.params, selected, memory, x)

        x = self.network.observe(obs, state.moments.mean, state.moments.std)
        action, memory = self.network.action(
            forward, memory, x, key, sample=self.config.sample_actions
        )
        return action, memory, self.network.statistics(x)

    def _start_generation(self, state: EvolutionState) -> tuple[es_rl.Noise, Episodes, Progress]:
        noise, keys = self._ask_and_keys(state)
        return noise, *self.rollout.start((state, noise), keys)

    def _finish_generation(
        self, state: EvolutionState, noise: es_rl.Noise, progress: Progress
    ) -> tuple[EvolutionState, Any, dict[str, Any]]:
        return self.learn(state, noise, self.rollout.finish(progress))

    def learn(
        self, state: EvolutionState, noise: es_rl.Noise, played: Played
    ) -> tuple[EvolutionState, Any, dict[str, Any]]:
        """The next state, env steps and lane steps as `wide_sum` gives them, and other metrics."""
        counts = wide_sum(played.lengths), wide_sum(played.lane_steps)
        state, metrics = self._learn(state, noise, played)
        return state, counts, metrics

    def _learn(
        self, state: EvolutionState, noise: es_rl.Noise, played: Played
    ) -> tuple[EvolutionState, dict[str, Any]]:
        returns = jnp.asarray(played.returns).reshape(self.config.population_size, -1)
        # The schedule's own count, the last in the chain: skipped updates do not advance it.
        _, count = optax.tree.get_all_with_path(state.es.opt_state, "count")[-1]
        learning_rate = self.config.learning_rate_schedule(count)
        with self.network.precision():
            es_state, told = self.strategy.tell(state.es, noise, returns.mean(axis=1))
        moments = state.moments
        if self.network.normalizes:
            moments = observations.merge(
                moments, played.lengths, played.obs_sum, played.obs_squares
            )
        metrics = {
            **{f"return_{k}": told[f"fitness_{k}"] for k in ("mean", "std", "max", "min")},
            "nonfinite_members": told["nonfinite_members"],
            # Episodes in which there was one.
            "nonfinite_observations": jnp.sum(~jnp.isfinite(played.obs_sum).all(axis=1)),
            "sigma": told["sigma"],
            "learning_rate": jnp.asarray(learning_rate),
            **{k: told[k] for k in ("grad_norm", "param_norm", "update_norm", "update_skipped")},
        }
        return EvolutionState(es_state, moments, state.key), metrics


def _counted(env_steps: int, lane_steps: int) -> dict[str, Any]:
    return {"env_steps": env_steps, "lane_utilization": env_steps / lane_steps}


def with_counts(
    learned: tuple[EvolutionState, Any, dict[str, Any]],
) -> tuple[EvolutionState, dict[str, Any]]:
    """What `EvolutionAgent.learn` returned, once it is known, as `step` returns it."""
    state, counts, metrics = learned
    return state, {**_counted(*map(as_int, jax.device_get(counts))), **metrics}
