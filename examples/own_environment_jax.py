"""The balloon of own_environment.py as pure functions of JAX, which step on the accelerator.

    python examples/own_environment_jax.py

Nothing leaves the device within a generation, so that a step costs next to nothing.
"""

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from gymnasium import spaces

import agents
import envs


class Balloon:
    spec = envs.EnvSpec(
        "mine/jax_balloon",
        observation_space=spaces.Box(-np.inf, np.inf, (2,), np.float32),  # height and speed
        action_space=spaces.Box(-1.0, 1.0, (1,), np.float32),  # thrust
        max_episode_steps=50,
    )

    def reset(self, key):
        mass, height = jax.random.uniform(key, (2,)) * jnp.array([1.0, 2.0]) + jnp.array([0.5, 0.0])
        return self._state(mass, height, speed=jnp.float32(0), steps=jnp.int32(0))

    def step(self, state, action, key):
        mass, height, speed = state.inner
        speed += 0.1 * (5 * action[0] + jax.random.normal(key)) / mass
        return self._state(mass, height + 0.1 * speed, speed, state.steps + 1)

    def _state(self, mass, height, speed, steps):
        error = jnp.abs(height - 1)
        lost = error > 1
        return envs.State(
            inner=(mass, height, speed),
            obs=jnp.stack([height, speed]),
            reward=jnp.where(lost, -10.0, 1 - error),
            terminated=lost,
            truncated=~lost & (steps == self.spec.max_episode_steps),
            steps=steps,
            info={"success": jnp.float32(error < 0.2)},
        )


def main(env_steps: int = 300_000, seed: int = 0, out: str = "runs/own_environment_jax"):
    agent = agents.make("eggroll", Balloon(), population_size=64, hidden=(16,))
    result = agents.train(agent, env_steps=env_steps, seed=seed)
    result.policy.save(out)
    evaluation = result.evaluation
    print(f"return {evaluation.mean:.1f} of 50, success {evaluation.success_rate:.0%}")
    seconds = result.wall_seconds - result.evaluation_seconds
    print(f"{result.env_steps / seconds:,.0f} env steps per second of training")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
