"""Policy networks: from an observation to an action, as pure functions of their parameters."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from gymnasium import spaces

from agents import settings
from agents.policies import images, masks
from agents.policies import spaces as _spaces
from agents.policies.functions import Functions, described, functions_of
from agents.policies.modules import (
    CNN_HIDDEN,
    CONVOLUTIONS,
    LEAST_SIDE,
    Activation,
    Cnn,
    CnnName,
    Gru,
    Mlp,
)
from agents.policies.policy_files import MAX_WEIGHT_BYTES
from envs.base import EnvSpec
from envs.errors import UserError
from es_rl.play import observations
from es_rl.play.jobs import Array
from es_rl.play.observations import Moments

NetworkName: TypeAlias = Literal["mlp", "gru", "cnn"]
Squash: TypeAlias = Literal["tanh", "clip"]
MatmulPrecision: TypeAlias = Literal["float32", "tensorfloat32", "bfloat16"]
Forward: TypeAlias = Callable[[Any, jax.Array], tuple[Any, Any]]
"""(memory, x) -> (memory, outputs)."""
MAX_LAYERS = 64
MAX_WIDTH = 1 << 20
"""The largest width of a layer. Networks that exceed it, or MAX_LAYERS, are refused before
tracing."""


@dataclass(frozen=True)
class NetworkConfig:
    """The settings of a policy network; the spaces come from the environment."""

    network: NetworkName | None = None
    """The kind of network. mlp: dense layers; gru: dense layers, then a GRU cell; cnn:
    convolutions, then dense layers. Unless given it is cnn for image observations (uint8, 2 to 4
    axes), else mlp."""
    hidden: tuple[int, ...] | None = None
    """Widths of the dense layers. Unless given they are 64 64, or for a cnn 512 (nature) or 128
    (small)."""
    memory: int = 64
    """Units of the GRU cell, whose memory lasts for one episode."""
    cnn: CnnName | None = None
    """The convolutions of the cnn. nature: three layers (Mnih et al. 2015); small: one layer of 16
    filters 3x3 (Young & Tian 2019). Unless given it is nature for images of at least 36x36, else
    small."""
    activation: Activation | None = None
    """The activation after each layer; layer_norm_relu is relu(layer_norm(x)) without affine
    parameters. Unless given it is tanh, or for a cnn relu."""
    squash: Squash = "tanh"
    """How a Box action is kept within its bounds: tanh scales smoothly, clip cuts."""
    normalize_observations: bool = True
    """Whether Box observations are standardised by their running mean and std. Images and booleans
    never are."""
    action_mask: bool = True
    """Whether no action is taken that the part "action_mask" of a Dict observation forbids."""
    stochastic_evaluation: bool = False
    """Whether the policy draws discrete actions from its probabilities in evaluation and replay
    too, in place of the most likely one, with which it may walk in circles for ever."""
    matmul_precision: MatmulPrecision = "float32"
    """The precision of matrix products in the forward pass and the update; less is faster on some
    accelerators. A CPU always computes in float32."""

    def __post_init__(self) -> None:
        settings.check(self)
        hidden = self.hidden or ()
        if len(hidden) > MAX_LAYERS:
            raise UserError(f"hidden has {len(hidden)} layers: must be at most {MAX_LAYERS}")
        if any(not 1 <= n <= MAX_WIDTH for n in hidden):
            raise UserError(f"hidden={hidden}: must be widths of at least 1, at most {MAX_WIDTH}")
        if not 1 <= self.memory <= MAX_WIDTH:
            raise UserError(f"memory={self.memory}: must be at least 1, at most {MAX_WIDTH}")
        if self.memory != NetworkConfig.memory and self.network != "gru":
            raise UserError(f"memory={self.memory}: must be given with network=gru alone")
        if self.cnn is not None and self.network not in (None, "cnn"):
            raise UserError(f"cnn={self.cnn}: must be given with network=cnn alone")


BUILT_IN_SETTINGS = ("network", "hidden", "memory", "cnn", "activation")
"""The fields of `NetworkConfig` that describe built-in networks only."""


def built_in(space: spaces.Space, config: NetworkConfig, num_outputs: int) -> nn.Module:
    """The built-in network for observations of a space.

    Raises:
      UserError: the observations are no images, or too small, and the configuration wants a cnn.
    """
    chosen = resolved(space, config)
    hidden, activation = chosen.hidden, chosen.activation
    assert hidden is not None
    assert activation is not None
    match chosen.network:
        case "gru":
            return Gru(hidden, config.memory, num_outputs, activation)
        case "cnn":
            assert chosen.cnn is not None
            return Cnn(CONVOLUTIONS[chosen.cnn], hidden, num_outputs, activation)
    return Mlp(hidden, num_outputs, activation)


def resolved(space: spaces.Space, config: NetworkConfig) -> NetworkConfig:
    """The configuration with a value for each setting that depends on the observation space.

    Raises:
      UserError: the observations are no images, or too small, and the configuration wants a cnn.
    """
    layout = images.layout(space.shape or ()) if isinstance(space, spaces.Box) else None
    side = min(layout[:2]) if layout else 0
    values = asdict(config)
    if config.network is None:
        seen = images.is_image(space) and side >= LEAST_SIDE["small"]
        values["network"] = "cnn" if seen or config.cnn else "mlp"
    if values["network"] == "cnn":
        name = config.cnn or ("nature" if side >= LEAST_SIDE["nature"] else "small")
        if side < LEAST_SIDE[name]:
            least = LEAST_SIDE[name]
            raise UserError(
                f"network=cnn: observations are {space}: must be a Box of 2 to 4 axes for the "
                f"{name} cnn, images of at least {least}x{least}"
            )
        values["cnn"] = name
    is_cnn = values["network"] == "cnn"
    if config.hidden is None:
        values["hidden"] = CNN_HIDDEN[values["cnn"]] if is_cnn else (64, 64)
    if config.activation is None:
        values["activation"] = "relu" if is_cnn else "tanh"
    return NetworkConfig(**values)


class Weights(NamedTuple):
    """The arrays of a trained policy."""

    params: Any
    """The parameters of the network, a pytree of arrays."""
    mean: Array
    """(d,) mean of the observations seen in training; d is 0 if nothing is standardised."""
    std: Array
    """(d,) standard deviation of the observations seen in training."""
    num_observations: Array = np.zeros((), np.float32)
    """float32 scalar, the number of observations seen in training."""

    @property
    def moments(self) -> Moments:
        """The observation statistics, frozen if there are any, for training to start from them."""
        count, mean, std = map(jnp.asarray, (self.num_observations, self.mean, self.std))
        return Moments(count, mean, std, frozen=count > 0)


@dataclass(frozen=True, eq=False)
class Network:
    """A policy network for a pair of spaces.

    Raises:
      UserError: a space is not supported, or the network does not fit the spaces.
    """

    observation_space: spaces.Space
    action_space: spaces.Space
    config: NetworkConfig
    module: Any = None
    """A network of the user's (see `agents.policies.functions`); None means the built-in network
    that `config` describes."""
    mask: slice | None = None
    """Where the mask of legal actions is in a flat observation; None if all actions are legal."""

    def __post_init__(self) -> None:
        _spaces.check_observation_space(self.observation_space)
        _spaces.check_action_space(self.action_space)
        shapes = [leaf.shape for leaf in jax.tree.leaves(self.functions.params)]
        count = sum(np.prod(shape, dtype=float) for shape in shapes)
        if 4 * count > MAX_WEIGHT_BYTES:
            raise UserError(
                f"network={self.name}: has {count / 2**28:.1f} GiB of weights: must be at most "
                f"{MAX_WEIGHT_BYTES >> 30} GiB"
            )

    @cached_property
    def functions(self) -> Functions:
        """The module as functions of `clipped` observations."""
        count = _spaces.num_outputs(self.action_space)
        module = self.module
        if module is None:
            module = built_in(self.observation_space, self.config, count)
        return functions_of("network", module, self.shape, count)

    @property
    def name(self) -> str:
        """mlp, gru or cnn; for a network of the user's the name of its class or function."""
        if self.module is not None:
            return described(self.module)
        return str(resolved(self.observation_space, self.config).network)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one observation as the network reads it: the shape of a Box, or (n,) for
        one-hot vectors."""
        return _spaces.encoded_shape(self.observation_space)

    @property
    def memory(self) -> Any:
        """The memory at the start of an episode, a pytree of arrays; () if the network has none."""
        return self.functions.memory

    @property
    def normalizes(self) -> bool:
        """Whether observations are standardised: images, booleans and categories never are."""
        space = self.observation_space
        numbers = isinstance(space, spaces.Box) and space.dtype != bool
        return self.config.normalize_observations and numbers and not images.is_image(space)

    @property
    def statistics_size(self) -> int:
        """d, how many numbers of an observation have a mean and std: 0 if nothing is standardised,
        and none for those of a mask."""
        if not self.normalizes:
            return 0
        return len(jax.eval_shape(self.statistics, jax.ShapeDtypeStruct(self.shape, jnp.float32)))

    def precision(self) -> AbstractContextManager[None]:
        """A context; programs traced within it use the configured precision of matrix products."""
        name: str = self.config.matmul_precision
        if jax.default_backend() == "cpu":  # some matrix products on a CPU support only float32
            name = "float32"
        # JAX reads "bfloat16" as "the fastest precision", which is TF32 on a GPU.
        return jax.default_matmul_precision("BF16_BF16_F32" if name == "bfloat16" else name)

    def init(self, key: jax.Array) -> Any:
        """Initial parameters; those of the last layer of a built-in network are zero."""
        return self.functions.init(key)

    def observe(self, obs: jax.Array, mean: Array, std: Array) -> jax.Array:
        """Convert one observation to the float32 array of shape `shape` that `apply` takes.

        A Box keeps its shape and is standardised if the network normalises. Images are divided by
        255. Categories become one-hot vectors.

        Args:
          obs: an element of the observation space.
          mean: (d,) mean of the observations.
          std: (d,) standard deviation of the observations.
        """
        return self.scaled(self.stored(obs, mean, std))

    def scaled(self, stored: jax.Array) -> jax.Array:
        """What `observe` makes of an observation, from what `stored` makes of it."""
        is_image = images.is_image(self.observation_space)
        return stored.astype(jnp.float32) / 255.0 if is_image else stored

    def stored(self, obs: jax.Array, mean: Array, std: Array) -> jax.Array:
        """One observation as it is stored for an update: images as uint8, a quarter of the memory.

        The arguments are those of `observe`, whose result any other observation is stored as.
        """
        if not isinstance(self.observation_space, spaces.Box):
            return _spaces.one_hot(self.observation_space, obs)
        if images.is_image(self.observation_space):
            return jnp.asarray(obs)
        x = jnp.asarray(obs).astype(jnp.float32)
        if not self.normalizes:
            return x
        entries = masks.standardized_entries(jnp.ravel(x), self.mask)
        entries = observations.standardize(entries, mean, std)
        return jnp.reshape(masks.with_mask(entries, jnp.ravel(x), self.mask), x.shape)

    def statistics(self, x: jax.Array) -> jax.Array:
        """(d,) the numbers of an observation from `observe` that enter the observation
        statistics."""
        if not self.normalizes:
            return jnp.zeros(0)
        return masks.standardized_entries(jnp.ravel(x), self.mask)

    def clipped(self, x: jax.Array) -> jax.Array:
        """Clip an observation from `observe`, so that the module sees no outliers."""
        return observations.clip(x) if self.normalizes else x

    def apply(self, params: Any, memory: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        """(memory, outputs) for one observation from `observe`."""
        memory, outputs = self.functions.apply(params, memory, self.clipped(x))
        return memory, masks.legal(outputs, x, self.mask)

    def action(
        self,
        forward: Forward,
        memory: Any,
        x: jax.Array,
        key: jax.Array,
        *,
        sample: bool = False,
    ) -> tuple[jax.Array, Any]:
        """(one action, new memory) for an observation from `observe`.

        Args:
          forward: runs `apply` with some parameters.
          memory: the memory of the network.
          x: one observation from `observe`.
          key: for the sampling.
          sample: see `spaces.decode`.
        """
        with self.precision():
            memory, outputs = forward(memory, x)
        squash = self.config.squash
        action = _spaces.decode(self.action_space, outputs, squash=squash, sample=sample, key=key)
        return action, memory

    def act(
        self, weights: Weights, memory: Any, obs: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Any]:
        """(action, new memory) for one observation; for evaluation and replay."""

        def forward(memory: Any, x: jax.Array) -> Any:
            return self.apply(weights.params, memory, x)

        x = self.observe(obs, weights.mean, weights.std)
        sample = self.config.stochastic_evaluation
        return self.action(forward, memory, x, key, sample=sample)


def network_for(spec: EnvSpec, config: NetworkConfig, module: Any = None) -> Network:
    """The policy network of an agent on an environment.

    Args:
      spec: the environment's description.
      config: the agent's configuration; fields that are not in `NetworkConfig` are ignored.
      module: a network of the user's; None for a built-in network.

    Raises:
      UserError: a space is not supported, or the network or the mask of actions does not fit the
        spaces.
    """
    own = NetworkConfig(**{f.name: getattr(config, f.name) for f in fields(NetworkConfig)})
    mask = masks.mask_of(spec) if own.action_mask else None
    return Network(spec.observation_space, spec.action_space, own, module, mask)
