"""The strategies EGGROLL (low-rank noise) and OpenES (full noise), with `ask` and `tell`."""

import math
from dataclasses import dataclass
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import Mesh, PartitionSpec

from envs.errors import UserError
from es_rl import noise as _noise
from es_rl import shaping as _shaping
from es_rl.noise import Frozen, Full, FullRank, Layout, LeafNoise, LowRank, Noise, PyTree
from es_rl.shaping import GroupStd, Shaping, ShapingName
from es_rl.strategies.optimizers import learning_rate_of, waiting
from es_rl.strategies.updates import update_if_finite


@struct.dataclass
class ESState:
    """The state of a strategy, as a pytree."""

    params: PyTree
    """The unperturbed parameters, which are the parameters of the mean policy."""
    opt_state: optax.OptState
    """The state of the optimiser."""
    key: jax.Array
    """The key of the noise. It never changes: the generation is folded into it, so any generation
    can be recomputed alone."""
    generation: jax.Array
    """int32 scalar, the number of generations so far, also those whose update was skipped."""


@dataclass(frozen=True)
class EvolutionStrategy:
    """An evolution strategy on a pytree of parameters; make one with `eggroll` or `open_es`."""

    population_size: int
    """N, the number of members."""
    rank: int | None
    """r, the rank of the perturbation of every matrix; None for full noise (OpenES)."""
    sigma: float | optax.Schedule
    """The standard deviation of the perturbations, or a schedule of it over generations."""
    optimizer: optax.GradientTransformation
    """The optimiser. It gets minus the estimated gradient of the shaped fitness, and minus the mean
    fitness as `value`, the loss that `optax.contrib.reduce_on_plateau` and others need. (Set
    `rtol=0` and an `atol` for `reduce_on_plateau`, as its relative tolerance needs a positive
    loss.)"""
    noise_reuse: int
    """The number of members that share a draw of noise: 0 or 1 for no sharing, 2 for a mirrored
    pair, an even k > 2 for k/2 mirrored pairs."""
    group_size: int
    """G, the number of members that are normalised together; 0 for the whole population. With
    G > 0 the members of a group also play the same episodes."""
    group_std: GroupStd
    """Whose standard deviation divides a group's fitness: "group" or "population"."""
    shaping: Shaping
    """"zscore", "centered_rank" or "none", or a function (fitness (N,), group size) -> (N,).
    The function only gets finite fitness."""
    freeze_vectors: bool
    """Whether leaves that are not matrices are neither perturbed nor updated."""
    layout: Layout | None = None
    """How the network uses the leaves, from `es_rl.layout`; derived from their shapes if None."""
    full_rank: FullRank = "vectors"
    """"vectors" gives full noise to the leaves that are not matrices, "tensors" also to every leaf
    of three or more axes."""
    top_draws: int | None = None
    """b, the number of draws that make the update: those whose best member is best (ARS V2-t, Mania
    et al. 2018). None for all draws."""
    mesh: Mesh | None = None
    """A mesh with one axis over which the draws are spread, or None. Each device sums its part of
    the gradient."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, np.generic):  # NumPy numbers are accepted as well
                object.__setattr__(self, name, value.item())
        _validate(self)

    @property
    def num_draws(self) -> int:
        """D, the number of draws of noise in a generation."""
        return _noise.num_draws(self.population_size, self.noise_reuse)

    @property
    def episode_sharing(self) -> int:
        """The number of neighbouring members that play the same episodes.

        This is G if there are groups, otherwise 2 for mirrored pairs, otherwise 1.
        """
        return self.group_size or min(max(self.noise_reuse, 1), 2)

    def init(self, key: jax.Array, params: PyTree) -> ESState:
        """Make the first state from `params`, any pytree of float arrays.

        Raises:
          UserError: a leaf is not a float array, there are no leaves, or `layout` has another
            number of leaves.
        """
        params = jax.tree.map(jnp.asarray, params)
        leaves = jax.tree_util.tree_leaves_with_path(params)
        if not leaves:
            raise UserError("params has no leaves: expected a pytree of float arrays")
        for path, leaf in leaves:
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                name = jax.tree_util.keystr(path)
                raise UserError(f"params{name} is {leaf.dtype}: every leaf must be a float array")
        if self.layout is not None and len(self.layout) != len(leaves):
            raise UserError(
                f"layout: is of {len(self.layout)} leaves: must be of these {len(leaves)}, from "
                "es_rl.layout(module, params, *inputs)"
            )
        return ESState(params, self.optimizer.init(params), key, jnp.int32(0))

    def ask(self, state: ESState) -> Noise:
        """Draw this generation's noise: factors and sigma, not a population of parameters."""
        key = jax.random.fold_in(state.key, state.generation)
        leaves = _noise.sample(
            key,
            state.params,
            draws=self.num_draws,
            rank=self.rank,
            layout=self.layout,
            full_rank=self.full_rank,
            freeze_vectors=self.freeze_vectors,
        )
        sigma = self.sigma(state.generation) if callable(self.sigma) else self.sigma
        return Noise(leaves, jnp.asarray(sigma, jnp.float32), self.noise_reuse)

    def shape(self, fitness: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Shape the fitness (N,) for the update.

        Returns:
          The shaped fitness (N,), the fitness (N,) with finite numbers in place of those that are
          not, and how many were replaced (int32 scalar).

        Raises:
          UserError: the fitness, or what a shaping function returns, has a wrong shape.
        """
        if jnp.shape(fitness) != (self.population_size,):
            raise UserError(
                f"fitness has shape {jnp.shape(fitness)}: must be ({self.population_size},), "
                "one number per member"
            )
        fitness = jnp.asarray(fitness)
        finite, nonfinite = _shaping.replace_nonfinite(fitness, self.group_size, self.shaping)
        if self.top_draws is None:
            shaped = _shaping.shape_fitness(finite, self.shaping, self.group_size, self.group_std)
        else:
            shaped = _shaping.shape_top_draws(
                finite, self.shaping, self.top_draws, self.num_draws, self.group_std
            )
        if callable(self.shaping):  # the named shapings already give such groups zeros
            shaped = _shaping.without_dead_groups(shaped, fitness, self.group_size)
        return shaped, finite, nonfinite

    def gradient(self, params: PyTree, noise: Noise, shaped: jax.Array) -> PyTree:
        """Return the ascent direction g = 1 / (N sigma) sum_i f_i s_i E_i.

        Here f (N,) is the shaped fitness.

        First the members that share a draw d are summed to one coefficient c_d = sum_i f_i s_i.
        Then each matrix needs one matrix product over draws and ranks (EGGROLL, arXiv 2511.16652,
        section 3).
        """
        _, signs = _noise.draw_and_sign(jnp.arange(self.population_size), self.noise_reuse)
        folded = (shaped * signs).reshape(self.num_draws, -1).sum(axis=1)
        folded = folded / (self.population_size * noise.sigma)

        def estimate(leaf: jax.Array, folded: jax.Array, eps: LeafNoise) -> jax.Array:
            c = folded.astype(leaf.dtype)
            match eps:
                case LowRank():
                    return _noise.sum_of_draws(c, eps)
                case Full(e):
                    return jnp.tensordot(c, e, axes=1)
                case _:
                    return jnp.zeros_like(leaf)

        leaves, treedef = jax.tree.flatten(params)

        def estimates(folded: jax.Array, noise: tuple[LeafNoise, ...]) -> list[jax.Array]:
            return [estimate(leaf, folded, eps) for leaf, eps in zip(leaves, noise, strict=True)]

        if self.mesh is None:
            return jax.tree.unflatten(treedef, estimates(folded, noise.leaves))
        (axis,), size = self.mesh.axis_names, self.mesh.size

        def add_up(folded: jax.Array, noise: tuple[LeafNoise, ...]) -> list[jax.Array]:
            here = folded.reshape(size, -1)[jax.lax.axis_index(axis)]
            return jax.lax.psum(estimates(here, noise), axis)

        everywhere, apart = PartitionSpec(), PartitionSpec(axis)
        summed = jax.shard_map(
            add_up,
            mesh=self.mesh,
            in_specs=(everywhere, apart),
            out_specs=everywhere,
            check_vma=False,
        )
        return jax.tree.unflatten(treedef, summed(folded, noise.leaves))

    def tell(
        self,
        state: ESState,
        noise: Noise,
        fitness: jax.Array,
        env_steps: jax.Array | None = None,
    ) -> tuple[ESState, dict[str, jax.Array]]:
        """Make one update from the fitness (population_size,) of the members. Higher is better.

        An optimiser of `accumulate` needs the env steps of the generation (int32 scalar) as well.

        A member without a finite fitness counts as the worst of its group. A group without any
        finite fitness has no influence. The update is skipped, so that only the generation number
        increases, if no member has a finite fitness or if the update would make the parameters or
        the optimiser's state non-finite.

        Returns:
          The next state, and scalars: fitness_mean, fitness_std, fitness_max and fitness_min over
          the members with a finite fitness (NaN if there are none), nonfinite_members, sigma,
          grad_norm, param_norm, update_norm (0 when skipped or waiting), update_skipped (int32, 0
          or 1), learning_rate if the optimiser's state holds it (see `optimizers.learning_rate_of`)
          and waiting_generations with `accumulate` (int32, those since the last update).

        Raises:
          UserError: the fitness, or what a shaping function returns, has a wrong shape.
        """
        shaped, finite, nonfinite = self.shape(fitness)
        gradient = self.gradient(state.params, noise, shaped)
        statistics = _shaping.statistics(jnp.asarray(fitness), finite)
        told = {"value": -statistics["mean"]}
        if env_steps is not None:
            told["env_steps"] = env_steps
        updates, opt_state = self._step(state, noise, gradient, told)
        # Read before the check below, so that it is this update's rate even if that is skipped.
        rate = learning_rate_of(opt_state)
        (params, opt_state), skipped = update_if_finite(
            (optax.apply_updates(state.params, updates), opt_state),
            (state.params, state.opt_state),
            allowed=nonfinite < self.population_size,
        )
        metrics = {
            **{f"fitness_{name}": value for name, value in statistics.items()},
            "nonfinite_members": nonfinite,
            "sigma": noise.sigma,
            **({} if rate is None else {"learning_rate": rate}),
            "grad_norm": optax.tree.norm(gradient),
            "param_norm": optax.tree.norm(params),
            "update_norm": jnp.where(skipped, 0.0, optax.tree.norm(updates)),
            "update_skipped": skipped.astype(jnp.int32),
            **waiting(opt_state),
        }
        return ESState(params, opt_state, state.key, state.generation + 1), metrics

    def _step(
        self, state: ESState, noise: Noise, gradient: PyTree, told: dict[str, jax.Array]
    ) -> tuple[PyTree, optax.OptState]:
        """Return what the optimiser adds to the parameters, and its next state."""
        # Fitness is maximised but Optax minimises, so the gradient changes its sign, only here.
        updates, opt_state = optax.with_extra_args_support(self.optimizer).update(
            jax.tree.map(jnp.negative, gradient), state.opt_state, state.params, **told
        )
        leaves, treedef = jax.tree.flatten(updates)
        # Weight decay must not move a frozen leaf.
        kept = [
            jnp.zeros_like(leaf) if isinstance(eps, Frozen) else leaf
            for leaf, eps in zip(leaves, noise.leaves, strict=True)
        ]
        return jax.tree.unflatten(treedef, kept), opt_state


def eggroll(
    population_size: int = 1024,
    rank: int = 1,
    sigma: float | optax.Schedule = 0.1,
    optimizer: optax.GradientTransformation | None = None,
    noise_reuse: int = 2,
    group_size: int = 0,
    group_std: GroupStd = "group",
    shaping: Shaping = "zscore",
    freeze_vectors: bool = False,
    layout: Layout | None = None,
    full_rank: FullRank = "vectors",
    top_draws: int | None = None,
) -> EvolutionStrategy:
    """Make EGGROLL, an evolution strategy with matrix perturbations of rank r (arXiv 2511.16652).

    The arguments are the fields of `EvolutionStrategy`; `optimizer` is optax.adam(1e-2) unless
    given.

    Raises:
      UserError: an argument is out of range. The message names it and says what is accepted.
    """
    if rank is None:
        raise UserError("rank=None: must be an integer of at least 1 (open_es has full noise)")
    return EvolutionStrategy(
        population_size=population_size,
        rank=rank,
        sigma=sigma,
        optimizer=optimizer or optax.adam(1e-2),
        noise_reuse=noise_reuse,
        group_size=group_size,
        group_std=group_std,
        shaping=shaping,
        freeze_vectors=freeze_vectors,
        layout=layout,
        full_rank=full_rank,
        top_draws=top_draws,
    )


def open_es(
    population_size: int = 1024,
    sigma: float | optax.Schedule = 0.1,
    optimizer: optax.GradientTransformation | None = None,
    noise_reuse: int = 2,
    group_size: int = 0,
    group_std: GroupStd = "group",
    shaping: Shaping = "zscore",
    freeze_vectors: bool = False,
    layout: Layout | None = None,
    top_draws: int | None = None,
) -> EvolutionStrategy:
    """Make OpenAI's evolution strategy, with full Gaussian noise in every leaf (arXiv 1703.03864).

    The arguments are those of `eggroll`, without `rank` and `full_rank`. `layout` determines which
    leaves `freeze_vectors` freezes. The noise needs memory for population size x parameters
    numbers.
    """
    return EvolutionStrategy(
        population_size=population_size,
        rank=None,
        sigma=sigma,
        optimizer=optimizer or optax.adam(1e-2),
        noise_reuse=noise_reuse,
        group_size=group_size,
        group_std=group_std,
        shaping=shaping,
        freeze_vectors=freeze_vectors,
        layout=layout,
        top_draws=top_draws,
    )


def _validate(es: EvolutionStrategy) -> None:
    def integer(name: str, minimum: int) -> int:
        value: Any = getattr(es, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise UserError(f"{name}={value!r}: must be an integer of at least {minimum}")
        return value

    population, reuse = integer("population_size", 2), integer("noise_reuse", 0)
    group = integer("group_size", 0)
    if es.rank is not None:
        integer("rank", 1)
    if not callable(es.sigma) and not 0 < es.sigma < math.inf:
        raise UserError(f"sigma={es.sigma!r}: must be greater than 0")
    if reuse > 1 and reuse % 2:
        raise UserError(f"noise_reuse={reuse}: must be 0, 1 or an even number")
    if reuse > 1 and population % reuse:
        near = max(population // reuse, 1) * reuse
        raise UserError(
            f"population_size={population}: must be a multiple of noise_reuse, {reuse}, "
            f"such as {near} or {near + reuse}"
        )
    step = max(reuse, 1)
    if group and (group < 2 or population % group or group % step):
        # For a huge population only small sizes and N itself are tried: all would take minutes.
        sizes = (*range(2, min(population, 1 << 16)), population)
        fitting = [g for g in sizes if population % g == 0 and g % step == 0]
        near_first = sorted(fitting, key=lambda g: abs(g - group))[:4]
        raise UserError(
            f"group_size={group}: must divide population_size, {population}, and be a multiple of "
            f"noise_reuse, {reuse}: 0 or one of {', '.join(map(str, sorted(near_first)))}"
        )
    if es.top_draws is not None:
        most = _noise.num_draws(population, reuse)
        if integer("top_draws", 1) > most:
            raise UserError(
                f"top_draws={es.top_draws}: must be at most {most}, the number of draws"
            )
        if group:
            raise UserError(f"top_draws={es.top_draws}: must not be given with groups, group_size")
    for name, choices in (
        ("group_std", GroupStd),
        ("shaping", ShapingName),
        ("full_rank", FullRank),
    ):
        if name == "shaping" and callable(es.shaping):
            continue
        if getattr(es, name) not in get_args(choices):
            accepted = ", ".join(get_args(choices))
            accepted += " or a function" * (name == "shaping")
            raise UserError(f"{name}={getattr(es, name)!r}: must be one of {accepted}")
