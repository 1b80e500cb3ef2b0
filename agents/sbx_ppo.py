"""PPO of Stable-Baselines3 in JAX (sbx-rl): an independent reference to compare with.

All learning is done by the code of sbx, in the same steps as its `learn` method. The resulting
policies are ours and need neither sbx nor Stable-Baselines3 (SB3). Both packages are imported only
when an agent is made.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias

import jax
import numpy as np
from flax import linen as nn
from gymnasium import spaces

from agents import settings
from agents.base import Agent
from agents.policies.images import is_image
from agents.policies.network import NetworkConfig, Weights, network_for
from agents.policies.policy import Policy
from agents.policies.spaces import bounded
from agents.ppo.config import PPOSettings
from envs.base import Env, EnvSpec, HostEnv
from envs.installing import pip_install
from envs.precision import in_32_bits
from envs.suites.gymnasium_suite import GymnasiumEnv
from es_rl.play.jobs import TRAINING_SEEDS
from es_rl.play.player import Notify
from es_rl.play.stage import open_stage

SbxActivation: TypeAlias = Literal["tanh", "relu"]


@dataclass(frozen=True)
class SbxPPOConfig(PPOSettings):
    """Settings of the `sbx_ppo` agent."""

    num_envs: int = 1
    """Environments, stepped one after another in this process."""
    num_steps: int = 2048
    """Steps of each environment in an iteration."""
    normalize_observations: bool = False
    """Whether observations are standardised by their running mean and std (VecNormalize)."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of the policy and of the critic."""
    activation: SbxActivation = "tanh"
    """The activation after each hidden layer."""

    def __post_init__(self) -> None:
        settings.check(self)
        self.check_ranges()
        self.network()

    def network(self) -> NetworkConfig:
        """The configuration of our network that computes the same function as theirs.

        Raises:
          UserError: a width is out of range.
        """
        return NetworkConfig(
            network="mlp",
            hidden=self.hidden,
            activation=self.activation,
            squash="clip",
            normalize_observations=self.normalize_observations,
            action_mask=False,  # PPO of Stable-Baselines3 knows none
        )

    @property
    def horizon(self) -> float:
        """Env steps over which SB3 counts its remaining progress from 1 down to 0."""
        return self.anneal_steps or np.inf

    def learning_rate_at(self, remaining: float) -> float:
        """The learning rate when this fraction of the horizon remains; negative fractions count as
        0."""
        return self.learning_rate * max(remaining, 0.0)


@dataclass
class SbxState:
    """The state holds the model itself, which `step` changes in place.

    Unlike the states of other agents it is not a pytree of arrays. It cannot be checkpointed
    exactly, as environments in the middle of an episode cannot be saved.
    """

    shuffling: Any
    """The state of the random generator that shuffles the model's minibatches."""
    model: Any = None
    """The `sbx.PPO` object."""
    callback: Any = None
    """A callback that does nothing, as SB3 requires one."""
    returns: dict[str, float] = field(
        default_factory=lambda: _statistics(np.array([np.nan]))  # NaN until an episode has ended
    )
    """Return statistics of the episodes of the last iteration in which any ended."""


class SbxPPOAgent(Agent):
    """Trains `sbx.PPO` on a Gymnasium environment.

    gSDE and a falling clip range are not supported. Parameters are initialised by sbx.

    Raises:
      UserError: the environment is not a Gymnasium environment on the host, or SB3 does not support
        its spaces.
      UserError: sbx-rl is not installed.
    """

    resumable = False
    takes_train_env = True

    @classmethod
    def obstacle(cls, env: Env | HostEnv) -> str | None:
        if not isinstance(env, GymnasiumEnv):
            return (
                f"{env.spec.id} does not step on the host; must be one of Gymnasium's "
                "environments that do"
            )
        return _refused_space(env.spec)

    @classmethod
    def missing_package(cls) -> str | None:
        if find_spec("sbx") is None:
            return f"needs sbx-rl, which is not installed ({pip_install('sbx')})"
        return None

    def __init__(
        self,
        name: str,
        env: Env | HostEnv,
        config: SbxPPOConfig,
        train_env: Env | HostEnv | None = None,
    ):
        trained = env if train_env is None else train_env
        assert isinstance(trained, GymnasiumEnv)
        spec = env.spec
        self.network = network_for(spec, config.network())
        self.name = name
        self.env = env
        self.train_env = train_env
        self.config = config
        self._single = trained.single
        self.stage = open_stage(env)
        if train_env is not None:
            self.train_stage = open_stage(train_env)

    @in_32_bits
    def init(self, key: jax.Array) -> SbxState:
        from stable_baselines3.common.logger import Logger

        # SB3 gives environment i the seed `seed + i`; training seeds are below TRAINING_SEEDS.
        seed = int(jax.random.randint(key, (), 0, TRAINING_SEEDS - self.config.num_envs))
        state = SbxState(np.random.RandomState(seed).get_state())  # noqa: NPY002
        with _shuffling(state):
            state.model = self._model(seed)
            state.model.set_logger(Logger(folder=None, output_formats=[]))
            _, state.callback = state.model._setup_learn(self.config.horizon)
        return state

    def _model(self, seed: int) -> Any:
        import sbx
        from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

        config = self.config
        env: Any = DummyVecEnv([self._monitored] * config.num_envs)
        if config.normalize_observations or config.normalize_rewards:
            env = VecNormalize(
                env,
                norm_obs=config.normalize_observations,
                norm_reward=config.normalize_rewards,
                gamma=config.gamma,
            )
        return sbx.PPO(
            "MlpPolicy",
            env,
            n_steps=config.num_steps,
            n_epochs=config.num_epochs,
            batch_size=config.minibatch_size,
            learning_rate=config.learning_rate_at,
            gamma=config.gamma,
            gae_lambda=config.gae_lambda,
            clip_range=config.clip_range,
            ent_coef=config.entropy_coefficient,
            vf_coef=config.value_coefficient,
            max_grad_norm=config.max_grad_norm,
            policy_kwargs={
                "net_arch": list(config.hidden),
                "activation_fn": getattr(nn, config.activation),
                "log_std_init": config.log_std_init,
            },
            seed=seed,
        )

    def _monitored(self) -> Any:
        from stable_baselines3.common.monitor import Monitor

        return Monitor(self._single())

    @in_32_bits
    def compile(self, state: SbxState) -> None:
        """Compile by training on a batch of zeros, then restore the previous state."""
        model, policy = state.model, state.model.policy
        before = policy.actor_state, policy.vf_state, model._n_updates
        model.rollout_buffer.reset()
        model.rollout_buffer.full = True
        model.n_epochs = 2  # the first and later updates are different programs
        with _shuffling(replace(state)):
            model.train()
        model.n_epochs = self.config.num_epochs
        policy.actor_state, policy.vf_state, model._n_updates = before
        policy.predict_all(model._last_obs, policy.noise_key)
        for obs in (model._last_obs, model._last_obs[:1]):  # end of a rollout, of an episode
            model.vf.apply(policy.vf_state.params, obs)

    @in_32_bits
    def step(
        self, state: SbxState, notify: Notify | None = None
    ) -> tuple[SbxState, dict[str, Any]]:
        model = state.model
        # A buffer for all episodes of an iteration; SB3's own keeps only the last 100.
        model.ep_info_buffer = deque()
        with _shuffling(state):
            model.collect_rollouts(model.env, state.callback, model.rollout_buffer, model.n_steps)
            model._update_current_progress_remaining(model.num_timesteps, self.config.horizon)
            model.train()
        if model.ep_info_buffer:
            state.returns = _statistics(np.array([ended["r"] for ended in model.ep_info_buffer]))
        return state, {
            "env_steps": self.config.num_envs * self.config.num_steps,
            **state.returns,
            "learning_rate": self.config.learning_rate_at(model._current_progress_remaining),
        }

    @in_32_bits
    def snapshot(self, state: SbxState) -> Policy:
        theirs = state.model.policy.actor_state.params["params"]
        layers = [theirs[f"Dense_{i}"] for i in range(len(self.config.hidden) + 1)]
        names = [*(f"Dense_{i}" for i in range(len(self.config.hidden))), "head"]
        params = {"params": dict(zip(names, layers, strict=True))}
        mean = std = np.zeros(0)
        count = 0.0
        if self.config.normalize_observations:
            normalizer = state.model.get_vec_normalize_env()
            mean = normalizer.obs_rms.mean.reshape(-1)
            std = np.sqrt(normalizer.obs_rms.var.reshape(-1) + normalizer.epsilon)
            count = normalizer.obs_rms.count
        statistics = (np.asarray(x, np.float32) for x in (mean, std, count))
        weights = Weights(params, *statistics)
        weights = jax.tree.map(np.array, jax.device_get(weights))
        return Policy(self.env.spec, self.network, weights, agent=self.name)


def _refused_space(spec: EnvSpec) -> str | None:
    """Why SB3 does not support an environment's spaces as we use them; None if it does.

    Supported observations are numbers in a Box. Supported actions are a finite Box (n,) of floats,
    and Discrete or MultiDiscrete (n,) spaces that count from 0.
    """
    action = spec.action_space
    if not isinstance(spec.observation_space, spaces.Box):
        kind = type(spec.observation_space).__name__
        return f"{spec.id} has {kind} observations; must be a Box"
    if is_image(spec.observation_space) or spec.observation_space.dtype == bool:
        return (
            f"{spec.id} has observations {spec.observation_space}; must be numbers, neither images "
            "nor booleans"
        )
    match action:
        case spaces.Box():
            known = len(action.shape) == 1 and bool(bounded(action).all())
        case spaces.Discrete():
            known = action.start == 0
        case spaces.MultiDiscrete():
            known = len(action.shape) == 1 and not action.start.any()
        case _:
            known = False
    if known:
        return None
    return (
        f"{spec.id} has actions {action}; must be a finite Box (n,), or Discrete or MultiDiscrete "
        "(n,) from 0"
    )


@contextmanager
def _shuffling(state: SbxState) -> Iterator[None]:
    """Use this state's generator for NumPy's global one, with which SB3 shuffles.

    Without this, two states, or a state and the caller's code, would change each other's random
    numbers.
    """
    outer = np.random.get_state()  # noqa: NPY002
    np.random.set_state(state.shuffling)  # noqa: NPY002
    try:
        yield
    finally:
        state.shuffling = np.random.get_state()  # noqa: NPY002
        np.random.set_state(outer)  # noqa: NPY002


def _statistics(returns: np.ndarray) -> dict[str, float]:
    return {
        "return_mean": float(returns.mean()),
        "return_std": float(returns.std()),
        "return_max": float(returns.max()),
        "return_min": float(returns.min()),
    }
