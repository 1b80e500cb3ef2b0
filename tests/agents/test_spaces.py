"""Between spaces and vectors: encoding, action heads, and the JSON of spaces."""

import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from agents.policies import distributions
from agents.policies import spaces as s

KEY = jax.random.key(0)


def test_categories_become_vectors():
    box = spaces.Box(-1, 1, (2, 3), np.float64)
    np.testing.assert_array_equal(
        s.one_hot(spaces.Discrete(4, start=2), jnp.int32(3)), [0, 1, 0, 0]
    )
    multi = spaces.MultiDiscrete([2, 3])
    np.testing.assert_array_equal(s.one_hot(multi, jnp.array([1, 2])), [0, 1, 0, 0, 1])
    assert [s.num_outputs(x) for x in (box, spaces.Discrete(4), multi)] == [6, 4, 5]
    assert [s.encoded_shape(x) for x in (box, spaces.Discrete(4), multi)] == [(2, 3), (4,), (5,)]


@pytest.mark.parametrize("squash", ["tanh", "clip"])
def test_box_actions_stay_within_bounds(squash):
    space = spaces.Box(
        np.array([-2, 0, -np.inf], np.float32), np.array([2, 10, np.inf], np.float32)
    )

    def decode(*head):
        return s.decode(space, jnp.array(head), squash=squash, sample=False, key=KEY)

    np.testing.assert_allclose(decode(99.0, -99.0, 99.0), [2, 0, 99])
    middle = {"tanh": [0, 5, 0], "clip": [0, 0, 0]}[squash]
    np.testing.assert_allclose(decode(0.0, 0.0, 0.0), middle, atol=1e-6)
    assert space.contains(np.asarray(decode(0.3, -0.2, 1.0)))


def test_categories_are_the_largest_logit_or_sampled_from_the_softmax():
    space = spaces.MultiDiscrete([2, 3], start=[5, 0])
    logits = jnp.array([0.0, 1.0, 3.0, 1.0, 2.0])
    chosen = s.decode(space, logits, squash="clip", sample=False, key=KEY)
    np.testing.assert_array_equal(chosen, [6, 0])
    sampled = jax.vmap(lambda k: s.decode(space, logits, squash="clip", sample=True, key=k))(
        jax.random.split(KEY, 4000)
    )
    want = jax.nn.softmax(logits[2:])
    frequency = np.bincount(np.asarray(sampled[:, 1]), minlength=3) / 4000
    np.testing.assert_allclose(frequency, want, atol=0.04)
    one = s.decode(spaces.Discrete(3, start=-1), logits[2:], squash="clip", sample=False, key=KEY)
    assert one.shape == ()
    assert int(one) == -1


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-np.inf, np.inf, (4,), np.float32),
        spaces.Box(np.array([-1.5, -np.inf]), np.array([2.0, 7.0]), dtype=np.float64),
        spaces.Discrete(5, start=-2),
        spaces.Box(0, 255, (2,), np.uint8),
        spaces.Discrete(200, dtype=np.uint8),
        spaces.Discrete(2, dtype=np.uint64),
        spaces.MultiDiscrete([2, 7], start=[1, 1]),
        spaces.MultiDiscrete([[2, 3]], dtype=np.int32),
        spaces.MultiBinary(3),
        spaces.MultiBinary([3]),
        spaces.MultiBinary((2, 3)),
    ],
)
def test_spaces_survive_json(space):
    text = json.dumps(s.to_json(space), allow_nan=False)
    assert s.from_json(json.loads(text)) == space


@pytest.mark.parametrize("dtype", ["float32", "O", 3, None])
def test_a_dtype_that_is_none_is_refused(dtype):
    with pytest.raises(ValueError, match="must be one of int8"):
        s.from_json({"type": "Discrete", "n": 3, "start": 0, "dtype": dtype})


@pytest.mark.parametrize(("n", "start"), [(300, 0), (200, 100), (2, -1)])
def test_categories_that_their_dtype_does_not_hold_are_refused(n, start):
    with pytest.raises(ValueError, match="must be from 0 to 255, as uint8"):
        s.from_json({"type": "MultiDiscrete", "nvec": [n], "start": [start], "dtype": "uint8"})


def test_a_multi_binary_is_a_multi_discrete_of_twos():
    binary, twos = spaces.MultiBinary((2, 2)), spaces.MultiDiscrete([[2, 2], [2, 2]])
    obs, head = jnp.int8([[0, 1], [1, 1]]), jax.random.normal(KEY, (8,))
    assert s.num_outputs(binary) == s.num_outputs(twos) == 8
    np.testing.assert_array_equal(s.one_hot(binary, obs), s.one_hot(twos, obs))
    for sample in (False, True):
        actions = [
            s.decode(space, head, squash="clip", sample=sample, key=KEY) for space in (binary, twos)
        ]
        np.testing.assert_array_equal(*actions)
        assert binary.contains(np.asarray(actions[0], np.int8))
    raw = distributions.sample(binary, head, jnp.zeros(8), KEY)
    each = [distributions.log_prob(x, head, jnp.zeros(8), raw) for x in (binary, twos)]
    np.testing.assert_array_equal(*each)


@pytest.mark.parametrize("sizes", [[2, 3, 1, 5], [3, 3], [4]])
def test_distributions_are_those_of_each_dimension_alone(sizes):
    space = spaces.MultiDiscrete(sizes)
    head = jax.random.normal(KEY, (7, sum(sizes)))
    parts = np.split(np.asarray(head, np.float64), np.cumsum(sizes)[:-1], axis=-1)
    logs = [x - np.log(np.exp(x).sum(axis=-1, keepdims=True)) for x in parts]
    raw = distributions.sample(space, head, jnp.zeros(sum(sizes)), KEY)
    assert raw.shape == (7, len(sizes))
    assert (raw < np.array(sizes)).all()
    want = sum(log[np.arange(7), raw[:, i]] for i, log in enumerate(logs))
    found = distributions.log_prob(space, head, jnp.zeros(sum(sizes)), raw)
    np.testing.assert_allclose(found, want, rtol=1e-5)
    entropy = sum(-(np.exp(log) * log).sum(axis=-1) for log in logs)
    found = distributions.entropy(space, head, jnp.zeros(sum(sizes)))
    np.testing.assert_allclose(found, entropy, rtol=1e-5)

    def both(head):
        nothing = jnp.zeros(sum(sizes))
        log_prob = distributions.log_prob(space, head, nothing, raw)
        return (log_prob + distributions.entropy(space, head, nothing)).sum()

    assert jnp.isfinite(jax.grad(both)(head)).all()


def test_thousands_of_dimensions_are_one_part_of_a_program():
    space = spaces.MultiDiscrete(np.random.default_rng(0).integers(1, 4, (66, 66)))
    size = s.num_outputs(space)

    def everything(head, obs, key):
        raw = distributions.sample(space, head, head, key)
        action = s.decode(space, head, squash="clip", sample=True, key=key)
        entropy = distributions.entropy(space, head, head)
        return (
            action,
            s.one_hot(space, obs),
            distributions.log_prob(space, head, head, raw),
            entropy,
        )

    arguments = jnp.zeros(size), jnp.zeros((66, 66), jnp.int32), KEY
    began = time.perf_counter()
    lowered = jax.jit(everything).lower(*arguments)
    assert len(lowered.as_text().splitlines()) < 5000
    lowered.compile()
    assert time.perf_counter() - began < 30


def test_what_loading_refuses_training_refuses():
    for check in (s.check_observation_space, s.check_action_space):
        with pytest.raises(ValueError, match="space Discrete: categories must be .* 1048576"):
            check(spaces.Discrete(2**21))
        with pytest.raises(ValueError, match="space MultiBinary: 1000000 dimensions of up to 2"):
            check(spaces.MultiBinary(1_000_000))
        with pytest.raises(ValueError, match="space Box: the shape .* at most 1048576 numbers"):
            check(spaces.Box(-1, 1, (1025, 1024), np.float32))
        with pytest.raises(ValueError, match="starts of categories"):
            check(spaces.Discrete(2, start=2**30))
        check(spaces.Discrete(2**20))


def test_other_spaces_are_refused():
    with pytest.raises(ValueError, match="observation space Dict is not supported: must be Box"):
        s.check_observation_space(spaces.Dict({"x": spaces.Discrete(2)}))
    with pytest.raises(ValueError, match="action space Box.*int64.* is not supported"):
        s.check_action_space(spaces.Box(0, 3, (2,), np.int64))
