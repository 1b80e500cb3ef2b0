"""Agents learn what can be learned, and training leaves behind what it promises."""

import functools
import json
import signal
import time

import jax
import numpy as np
import pytest

import agents
import envs

SMALL = {"population_size": 64, "hidden": (8,), "learning_rate": 0.1, "sigma": 0.2}
MEMORY = {"network": "gru", "memory": 4}


@functools.cache
def env(name):
    return envs.make(name)


@pytest.mark.parametrize("name", ["eggroll", "open_es"])
@pytest.mark.parametrize(
    ("probe", "budget"),
    [("action_reward", 5_000), ("policy_reward", 30_000), ("delayed_reward", 60_000)],
)
def test_solves_the_probes(name, probe, budget):
    agent = agents.make(name, env(f"probe/{probe}"), **SMALL)
    best = agent.env.spec.reward_threshold
    result = agents.train(agent, env_steps=budget, target_return=best, eval_every=2)
    assert result.evaluation.mean == best
    assert result.env_steps < budget


@pytest.mark.slow
def test_memory_solves_what_needs_it_and_nothing_else_does():
    def best(**network):
        settings = {**SMALL, "population_size": 128, **network}
        agent = agents.make("eggroll", env("probe/recall"), **settings)
        budget = {"env_steps": 20_000, "target_return": 1.0, "eval_every": 4}
        return agents.train(agent, **budget).evaluation.mean

    assert best(network="gru", memory=8) == 1
    assert best(network="mlp") < 0.7


def test_nothing_to_learn_moves_nothing():
    agent = agents.make("eggroll", env("probe/constant_reward"), **SMALL)
    state = agent.init(jax.random.key(0))
    before = agent.snapshot(state).weights.params
    state, metrics = agent.step(state)
    assert metrics["return_mean"] == 1
    jax.tree.map(np.testing.assert_array_equal, agent.snapshot(state).weights.params, before)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"noise_reuse": 0},
        {"noise_reuse": 4, "episodes_per_member": 2},
        {"group_size": 16, "group_std": "population"},
        {"shaping": "centered_rank", "sample_actions": True},
        {"rank": 3, "optimizer": "sgd", "weight_decay": 0.01, "sigma_decay": 0.99},
        {"freeze_vectors": True, "lanes": 7},
        {"normalize_observations": False, "activation": "layer_norm_relu"},
        {"matmul_precision": "bfloat16", "network": "gru", "memory": 4},
    ],
    ids=lambda settings: ",".join(settings),
)
def test_every_setting_still_learns(settings):
    agent = agents.make("eggroll", env("probe/policy_reward"), **{**SMALL, **settings})
    result = agents.train(agent, env_steps=60_000, target_return=7.5, eval_every=2)
    assert result.evaluation.mean >= 7.5


@pytest.mark.parametrize(
    "name",
    [
        "gymnasium/phys2d/CartPole-v1",
        pytest.param("gymnasium/CartPole-v1", marks=pytest.mark.slow),
    ],
)
def test_returns_do_not_depend_on_the_lanes(name):
    def run(lanes):
        settings = {**SMALL, "population_size": 32, **MEMORY, "sigma": 1.0, "lanes": lanes}
        agent = agents.make("eggroll", env(name), **settings)
        _, metrics = agent.step(agent.init(jax.random.key(0)))
        return [float(metrics[k]) for k in ("return_mean", "return_std", "return_max", "env_steps")]

    assert run(4) == run(32)


@functools.cache
def after_generations(count, devices, **settings):
    settings = {**SMALL, "lanes": 8 * devices, "devices": devices, **settings}
    agent = agents.make("eggroll", env("gymnasium/phys2d/CartPole-v1"), **settings)
    assert agent.stage.mesh.size == devices
    state = agent.init(jax.random.key(0))
    for _ in range(count):
        state, metrics = agent.step(state)
    return jax.device_get((state.es.params, state.moments, metrics))


@pytest.mark.slow
def test_devices_change_nothing_and_memory_may_be_had():
    one, two = after_generations(2, 1, **MEMORY), after_generations(2, 2, **MEMORY)
    assert one[0]["params"]["memory"]["hn"]["kernel"].shape == (4, 4)
    jax.tree.map(np.testing.assert_array_equal, one[:2], two[:2])
    apart = {name for name in one[2] if one[2][name] != two[2][name]}
    assert apart <= {"lane_utilization"}


@pytest.mark.slow
def test_each_device_may_add_up_its_part_of_the_update():
    whole = after_generations(2, 2, **MEMORY)
    parts = after_generations(2, 2, **MEMORY, shard_update=True)
    assert whole[2]["return_mean"] == parts[2]["return_mean"]
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, whole[0], parts[0])
    with pytest.raises(ValueError, match="shard_update=True: must be False where environments"):
        agents.make("eggroll", env("gymnasium/CartPole-v1"), shard_update=True)
    with pytest.raises(ValueError, match="population_size=18: must be a multiple of 4, .*16 or 20"):
        after_generations(1, 2, shard_update=True, population_size=18)


def test_host_and_accelerator_agree_on_counting():
    agent = agents.make("eggroll", env("gymnasium/CartPole-v1"), **{**SMALL, "population_size": 16})
    state, metrics = agent.step(agent.init(jax.random.key(0)))
    assert metrics["env_steps"] == state.moments.count
    assert 0 < metrics["lane_utilization"] <= 1
    assert metrics["failed_episodes"] == 0
    again, repeated = agent.step(agent.init(jax.random.key(0)))
    assert metrics["return_mean"] == repeated["return_mean"]
    jax.tree.map(np.testing.assert_array_equal, state.es.params, again.es.params)


def test_learns_cart_pole_on_the_host():
    agent = agents.make("eggroll", env("gymnasium/CartPole-v1"))
    result = agents.train(agent, env_steps=1_000_000, target_return=475, eval_every=1)
    assert result.evaluation.mean >= 475


@pytest.mark.parametrize("name", ["random", "zero"])
def test_untrained_agents_play(name, tmp_path):
    agent = agents.make(name, env("probe/action_reward"), episodes=64)
    result = agents.train(agent, env_steps=100, out=tmp_path)
    assert result.env_steps == 128
    assert result.evaluation.mean == pytest.approx({"random": 0.5, "zero": 0.0}[name], abs=0.2)
    assert agents.load_policy(tmp_path).agent == name


def test_evaluation_is_fixed_and_prefix_stable():
    agent = agents.make("random", env("probe/random_length"))
    policy = agent.snapshot(agent.init(jax.random.key(0)))
    long = agents.evaluate(policy, agent.env, episodes=50)
    short = agents.evaluate(policy, agent.env, episodes=7)
    np.testing.assert_array_equal(long.returns[:7], short.returns)
    other = agents.evaluate(policy, agent.env, episodes=7, seed=1)
    assert not np.array_equal(other.lengths, short.lengths)


METRICS = {
    "generation",
    "env_steps",
    "wall_seconds",
    "evaluation_seconds",
    "steps_per_second",
    "lane_utilization",
    "return_mean",
    "return_std",
    "return_max",
    "return_min",
    "nonfinite_members",
    "sigma",
    "learning_rate",
    "grad_norm",
    "param_norm",
    "update_norm",
}


def test_a_run_leaves_everything_behind(tmp_path):
    out = tmp_path / "a" / "run"
    agent = agents.make("eggroll", env("probe/policy_reward"), **SMALL)
    seen = []
    result = agents.train(
        agent,
        env_steps=3000,
        seed=5,
        out=out,
        eval_every=4,
        eval_episodes=10,
        on_generation=lambda metrics, snapshot: seen.append((metrics, snapshot())),
    )
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == result.generations == len(seen) == 6
    for line in lines:
        assert set(line) >= METRICS
    assert ["eval_return_mean" in line for line in lines] == [True, False, False, False, True, True]
    assert lines[-1]["env_steps"] == result.env_steps == 6 * 64 * 8
    assert lines[-1]["eval_episodes"] == 10
    assert lines[0]["learning_rate"] == pytest.approx(0.1)
    assert [metrics["generation"] for metrics, _ in seen] == list(range(6))
    assert 0 < lines[-1]["evaluation_seconds"] < lines[-1]["wall_seconds"]
    jax.tree.map(
        np.testing.assert_array_equal, seen[-1][1].weights.params, result.policy.weights.params
    )
    config = json.loads((out / "config.json").read_text())
    assert config["env"] == "probe/policy_reward"
    assert config["settings"]["population_size"] == 64
    assert config["seed"] == 5
    assert config["versions"]["jax"] == jax.__version__
    assert config["device"] == "2 x cpu"
    assert config["settings"]["matmul_precision"] == "float32"
    assert any((out / "tensorboard").iterdir())

    policy = agents.load_policy(out)
    replayed = agents.evaluate(policy, env("probe/policy_reward"), episodes=10)
    np.testing.assert_array_equal(replayed.returns, policy.evaluation["returns"])
    with pytest.raises(ValueError, match="out=.*must be an empty or a new folder"):
        agents.train(agent, env_steps=1, out=out)


def test_seconds_are_a_budget_of_training_alone():
    agent = agents.make("eggroll", env("probe/policy_reward"), **SMALL)
    slow = lambda metrics, snapshot: time.sleep(0.2)  # noqa: E731
    budget = {"env_steps": 10**9, "seconds": 0.4, "evaluations": 2}
    result = agents.train(agent, **budget, on_generation=slow)
    training = result.wall_seconds - result.evaluation_seconds
    assert training >= 0.4
    assert result.generations > 2
    assert result.evaluation_seconds > 0.2 * (result.generations - 1)
    with pytest.raises(ValueError, match="seconds=0: must be a number of seconds above 0"):
        agents.train(agent, env_steps=1, seconds=0)


def test_a_signal_ends_the_run_with_the_policy_saved(tmp_path):
    agent = agents.make("eggroll", env("probe/policy_reward"), **SMALL)

    def interrupt(metrics, snapshot):
        if metrics["generation"] == 2:
            signal.raise_signal(signal.SIGTERM)

    result = agents.train(agent, env_steps=10**9, out=tmp_path, on_generation=interrupt)
    assert result.stopped_by == signal.SIGTERM
    assert result.generations == 4
    assert agents.load_policy(tmp_path).training["generations"] == 4
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_two_seeds_differ_and_one_seed_repeats():
    agent = agents.make("eggroll", env("probe/random_length"), **SMALL)

    def run(seed):
        state, _ = agent.step(agent.init(jax.random.key(seed)))
        state, metrics = agent.step(state)
        return float(metrics["return_mean"]), np.asarray(
            state.es.params["params"]["head"]["kernel"]
        )

    first, again, other = run(0), run(0), run(1)
    assert first[0] == again[0]
    np.testing.assert_array_equal(first[1], again[1])
    assert first[0] != other[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env_id", "threshold", "budget"),
    [
        ("gymnasium/Acrobot-v1", -100, 100_000),
        ("gymnasium/MountainCarContinuous-v0", 90, 60_000),
        ("gymnasium/Pendulum-v1", -200, 1_000_000),
        ("brax/inverted_double_pendulum", 9100, 500_000),
    ],
)
def test_presets_learn_within_their_budgets(env_id, threshold, budget):
    """Budgets are two to five times what the slowest of many seeds took."""
    agent = agents.make("eggroll", env(env_id))
    result = agents.train(agent, env_steps=budget, target_return=threshold, seed=7, eval_every=5)
    assert result.evaluation.mean >= threshold
    assert result.env_steps < budget


@pytest.mark.parametrize("name", agents.list_agents())
def test_every_preset_builds(name):
    from agents.presets.evolution import tuned_ids
    from agents.registry import configure, preset
    from agents.training.run_config import RunConfig

    assert {"gymnasium/phys2d/CartPole-v1", "brax/ant", "brax/hopper"} <= tuned_ids()
    for env_id in (*tuned_ids(), "nothing/tuned"):
        configure(name, env_id)
        assert RunConfig.of(preset(name, env_id).run).env_steps > 0


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("egroll", {}, "agent='egroll': must be one of eggroll, open_es, ppo, sbx_ppo"),
        ("eggroll", {"popsize": 4}, "popsize=4: no such setting of eggroll; did you mean"),
        ("eggroll", {"population_size": 7}, "population_size=7: must be a multiple"),
        ("eggroll", {"sigma": -1.0}, "sigma=-1.0: must be greater than 0"),
        ("eggroll", {"hidden": (0,)}, r"hidden=\(0,\): must be widths"),
        ("eggroll", {"activation": "gelu"}, "activation='gelu': must be one of tanh, relu"),
        ("eggroll", {"lanes": 0}, "lanes=0: must be at least 1"),
        ("eggroll", {"devices": 3}, "devices=3: must be from 1 to 2, the devices here"),
        ("eggroll", {"memory": 0, "network": "gru"}, "memory=0: must be at least 1"),
        ("eggroll", {"memory": 4}, "memory=4: must be given with network=gru alone"),
        ("eggroll", {"network": "mpl"}, "network='mpl': must be one of mlp, gru, cnn"),
        (
            "eggroll",
            {"network": "mlp", "cnn": "small"},
            "cnn=small: must be given with network=cnn",
        ),
        (
            "eggroll",
            {"network": "cnn"},
            r"network=cnn: observations are Box.*must be a Box of 2 to",
        ),
        ("eggroll", {"matmul_precision": "fp8"}, "matmul_precision='fp8': must be one of float32"),
        ("eggroll", {"learning_rate": 0.0}, "learning_rate=0.0: must be greater than 0"),
        ("eggroll", {"optimizer": "lion"}, "optimizer='lion': must be one of adam, sgd"),
        ("random", {"episodes": 0}, "episodes=0: must be at least 1"),
    ],
)
def test_bad_settings(name, settings, says):
    with pytest.raises(ValueError, match=says):
        agents.make(name, env("probe/policy_reward"), **settings)


def test_bad_budgets():
    agent = agents.make("zero", env("probe/policy_reward"))
    for argument in ("env_steps", "eval_every", "eval_episodes"):
        with pytest.raises(ValueError, match=f"{argument}=0: must be at least 1"):
            agents.train(agent, **{"env_steps": 5, argument: 0})
