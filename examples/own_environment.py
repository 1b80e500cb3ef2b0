"""Bring a Gymnasium class of your own: train on it, evaluate the policy, and replay it.

    python examples/own_environment.py
    PYTHONPATH=examples es-rl replay runs/own_environment --import own_environment

A propeller holds a balloon at a height of 1 m, whatever its mass, in gusts of wind.
"""

import gymnasium
import numpy as np
import tyro
from gymnasium import spaces

import agents
import envs


class Balloon(gymnasium.Env):
    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)  # height and speed
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)  # thrust

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.mass = self.np_random.uniform(0.5, 1.5)
        self.state = np.array([self.np_random.uniform(0, 2), 0.0], np.float32)
        return self.state, {}

    def step(self, action):
        height, speed = self.state
        speed += 0.1 * (5 * action[0] + self.np_random.normal()) / self.mass
        self.state = np.array([height + 0.1 * speed, speed], np.float32)
        error = abs(float(self.state[0]) - 1)
        lost = error > 1
        return self.state, -10.0 if lost else 1 - error, lost, False, {"is_success": error < 0.2}


envs.register(  # so that `es-rl replay` finds it by its name
    "mine/balloon", lambda: envs.from_gymnasium(Balloon, id="mine/balloon", max_episode_steps=50)
)


def main(env_steps: int = 30_000, seed: int = 0, out: str = "runs/own_environment"):
    env = envs.make("mine/balloon")
    with agents.make("eggroll", env, population_size=64, hidden=(16,)) as agent:
        result = agents.train(agent, env_steps=env_steps, seed=seed)
    result.policy.save(out)
    evaluation = result.evaluation
    print(f"return {evaluation.mean:.1f} of 50, success {evaluation.success_rate:.0%}")

    policy = agents.load_policy(out)
    replayed = agents.evaluate(policy, env, episodes=32)
    print("replays exactly:", replayed.returns.tolist() == policy.evaluation["returns"])
    balloon = Balloon()
    heights = [balloon.reset(seed=3)[0][0]]
    heights += [balloon.step(policy(balloon.state))[0][0] for _ in range(20)]
    print("height in m:", *(f"{height:.2f}" for height in heights[::2]))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
