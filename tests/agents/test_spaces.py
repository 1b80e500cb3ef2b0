"""Between spaces and vectors: encoding, action heads, and the JSON of spaces."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from agents import spaces as s

KEY = jax.random.key(0)


def test_observations_become_vectors():
    box = spaces.Box(-1, 1, (2, 3), np.float64)
    np.testing.assert_array_equal(s.encode(box, jnp.arange(6.0).reshape(2, 3)), np.arange(6))
    np.testing.assert_array_equal(s.encode(spaces.Discrete(4, start=2), jnp.int32(3)), [0, 1, 0, 0])
    multi = spaces.MultiDiscrete([2, 3])
    np.testing.assert_array_equal(s.encode(multi, jnp.array([1, 2])), [0, 1, 0, 0, 1])
    assert [s.encoded_size(x) for x in (box, spaces.Discrete(4), multi)] == [6, 4, 5]


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
        spaces.MultiDiscrete([2, 7], start=[1, 1]),
    ],
)
def test_spaces_survive_json(space):
    text = json.dumps(s.to_json(space), allow_nan=False)
    assert s.from_json(json.loads(text)) == space


def test_other_spaces_are_refused():
    with pytest.raises(ValueError, match="observation space Dict is not supported: must be Box"):
        s.check_observation_space(spaces.Dict({"x": spaces.Discrete(2)}))
    with pytest.raises(ValueError, match=r"action space MultiBinary\(3\) is not supported"):
        s.check_action_space(spaces.MultiBinary(3))
