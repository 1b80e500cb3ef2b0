"""Small linear systems are solved side by side, without LAPACK, which can stand still for ever."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.adapting import batched_solves
from envs.suites.brax_suite import names

pytestmark = pytest.mark.slow


def random(*shape, dtype=np.float32):
    rng = np.random.default_rng(0)
    real = rng.normal(size=shape)
    return (real + 1j * rng.normal(size=shape) if dtype == np.complex64 else real).astype(dtype)


@pytest.mark.parametrize("size", [1, 2, 14, 64, 150])
@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_cholesky_factors_are_those_of_numpy(size, dtype):
    a = random(3, size, size, dtype=dtype)
    a = a @ np.conj(np.swapaxes(a, -1, -2)) + size * np.eye(size, dtype=dtype)
    factor = batched_solves.cholesky(jnp.asarray(a))
    np.testing.assert_allclose(factor, np.linalg.cholesky(a), rtol=1e-3, atol=1e-3)
    # The upper triangle is not read.
    lower = batched_solves.cholesky(jnp.asarray(np.tril(a)))
    np.testing.assert_allclose(lower, factor, rtol=1e-3, atol=1e-3)


def test_a_matrix_that_is_not_positive_definite_gives_nan_and_spoils_no_other():
    a = np.stack([-np.eye(3), np.eye(3)]).astype(np.float32)
    factor = np.asarray(batched_solves.cholesky(jnp.asarray(a)))
    assert np.isnan(factor[0]).any()
    np.testing.assert_array_equal(factor[1], np.eye(3))


@pytest.mark.parametrize("size", [1, 5, 100])
@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_triangular_solves_are_those_of_numpy(size, dtype):
    full = random(2, size, size, dtype=dtype) / size + 2 * np.eye(size, dtype=dtype)
    for left_side, lower, transpose, conjugate, unit in itertools.product([False, True], repeat=5):
        b = random(2, *((size, 3) if left_side else (3, size)), dtype=dtype)
        x = batched_solves.triangular_solve(
            jnp.asarray(full),
            jnp.asarray(b),
            left_side=left_side,
            lower=lower,
            transpose_a=transpose,
            conjugate_a=conjugate,
            unit_diagonal=unit,
        )
        a = np.tril(full) if lower else np.triu(full)
        if unit:
            a = a - a * np.eye(size) + np.eye(size)
        a = np.conj(a) if conjugate else a
        a = np.swapaxes(a, -1, -2) if transpose else a
        np.testing.assert_allclose(a @ x if left_side else x @ a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", names())
def test_no_step_of_brax_calls_lapack(name):
    backends = ("generalized", "mjx") if name in ("ant", "hopper") else ("generalized",)
    for backend in (None,) if name == "fast" else backends:
        env = envs.make(f"brax/{name}", **({} if backend is None else {"backend": backend}))
        actions = jax.ShapeDtypeStruct((4, *env.spec.action_space.shape), np.float32)
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 4))

        def first_step(keys, actions, env=env):
            return jax.vmap(env.step)(jax.vmap(env.reset)(keys), actions, keys)

        step = jax.jit(first_step).lower(keys, actions)
        assert "lapack" not in step.as_text()
