"""Dict and Tuple observations in worker processes: flat, and checked against their space."""

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.experimental.functional import FuncEnv

import envs
from envs.base import RESET, STEP
from envs.errors import UserError
from tests.envs import nested_envs

envs.import_module("tests.envs.nested_envs")
SPAN = slice(0, 1)


def played(name, steps, **kwargs):
    """The observations of an episode of seed 3 in which the action is 0."""
    pool = envs.make(f"gymnasium/{name}-v0", workers=1, **kwargs).open_lanes(1)
    try:
        pool.begin()
        pool.send(SPAN, np.array([RESET], np.uint8), np.array([3]), None)
        seen = [pool.receive(SPAN).obs[0].copy()]
        for _ in range(steps):
            pool.send(SPAN, np.array([STEP], np.uint8), np.array([3]), np.array([0]))
            received = pool.receive(SPAN)
            assert not received.lost.any()
            seen.append(received.obs[0].copy())
        return seen
    finally:
        pool.close()


@pytest.mark.parametrize("name", ["Rooms", "Unsorted"])
def test_a_worker_flattens_as_gymnasium_does(name):
    env = getattr(nested_envs, name)()
    space = env.observation_space
    expected = [env.reset(seed=3)[0], *(env.step(0)[0] for _ in range(4))]
    expected = [np.asarray(spaces.flatten(space, obs), np.float32) for obs in expected]
    np.testing.assert_array_equal(played(name, 4), expected)
    assert np.std(expected) > 0


def test_the_spec_has_both_spaces():
    spec = envs.make("gymnasium/Rooms-v0").spec
    assert spec.raw_observation_space == nested_envs.ROOMS
    assert spec.observation_space.shape == (18,)
    assert spec.observation_space.dtype == np.float32
    assert envs.make("gymnasium/CartPole-v1").spec.raw_observation_space is None


@pytest.mark.parametrize("at", [0, 1, 3])
@pytest.mark.parametrize(
    ("part", "says"),
    [
        ("missing", r"returned the observation \{'season': .*: must be an element of its obs"),
        ("list", r"returned the observation \[.*: must be an element of its observation_space, D"),
        ("shape", r"an observation\['room'\] of shape \(3,\) .*_space\['room'\], Box \(2, 2\)"),
        ("category", r"observation\['season'\] 5: must be an element of .*Discrete\(4, start=1\)"),
        ("length", r"observation\['pose'\] \(.*: must be an element of its .*\['pose'\], Tuple"),
        ("inner", r"observation\['pose'\]\[0\] of shape \(2,\) and dtype float64: must be"),
    ],
)
def test_what_is_no_element_is_told_with_its_place(at, part, says):
    with pytest.raises(UserError, match=says) as error:
        played("Spoilt", 3, at=at, part=part)
    call = f"step {at} of the episode with seed 3" if at else "reset(seed=3)"
    assert str(error.value).startswith(f"gymnasium/Spoilt-v0: {call} returned")
    assert "nested_envs.py:" in str(error.value)


def test_a_part_that_cannot_be_flat_is_named_before_anything_runs():
    says = r"Mission-v0': observation_space\['mission'\] is Text: must be .*FilterObservation"
    with pytest.raises(UserError, match=says):
        envs.make("gymnasium/Mission-v0")


@pytest.mark.parametrize(
    ("space", "says"),
    [
        (spaces.Dict(), "has 0 numbers"),
        (spaces.Dict(a=spaces.Discrete(2**40)), "has 1099511627776 numbers"),
        (spaces.Dict([(1, spaces.Discrete(2))]), "has the key 1: must be a text"),
        (spaces.Tuple([spaces.Sequence(spaces.Discrete(2))]), r"space\[0\] is Sequence: must be"),
    ],
)
def test_what_cannot_be_a_vector_is_refused(space, says):
    from envs.host.nested import flat_space

    with pytest.raises(UserError, match=says):
        flat_space(space)


def test_an_environment_on_the_accelerator_must_have_one_array():
    class Own(FuncEnv):
        observation_space = spaces.Dict(a=spaces.Discrete(2))
        action_space = spaces.Discrete(2)

    with pytest.raises(UserError, match="env='own/x': its observation space is Dict.*: must be a"):
        envs.from_func_env(Own(), id="own/x", max_episode_steps=5)


def test_workers_do_not_import_jax(monkeypatch):
    # Workers import what the user has imported, and other tests import what needs JAX.
    monkeypatch.setattr("envs.suites.gymnasium_suite._IMPORTED", ["tests.envs.nested_envs"])

    class NoJax(nested_envs.Rooms):
        def _draw(self):
            import sys

            assert "jax" not in sys.modules
            return super()._draw()

    import gymnasium

    gymnasium.register("NoJax-v0", NoJax, max_episode_steps=5)
    assert len(played("NoJax", 2)) == 3
