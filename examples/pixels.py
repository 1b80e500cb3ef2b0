"""Learn to catch a falling ball from pixels: bsuite's Catch, a board of 10x5, through gymnax.

    pip install "es-rl[gymnax]"
    python examples/pixels.py

Observations are images, so that a convolutional network reads them. Random actions return -0.6.
"""

import jax
import numpy as np
import tyro

import agents
import envs


def show(env, policy, seed):
    """Print the board of one episode: the falling ball, and the paddle in the bottom row."""
    start, *keys = jax.random.split(jax.random.key(seed), env.spec.max_episode_steps)
    state = env.reset(start)
    boards = [np.asarray(state.obs)]
    for key in keys:
        if state.terminated | state.truncated:
            break
        state = env.step(state, policy(state.obs), key)
        boards.append(np.asarray(state.obs))
    for rows in zip(*boards, strict=True):
        print("  ".join("".join(".#"[int(pixel > 0)] for pixel in row.flat) for row in rows))


def main(env_steps: int = 200_000, seed: int = 0, out: str = "runs/pixels"):
    env = envs.make("gymnax/Catch-bsuite")
    print("observations:", env.spec.observation_space)
    agent = agents.make("eggroll", env, network="cnn", population_size=256)

    def report(metrics, policy):
        if "eval_return_mean" in metrics:
            print(f"generation {metrics['generation']:3}: {metrics['eval_return_mean']:5.2f}")

    result = agents.train(
        agent, env_steps=env_steps, target_return=1.0, seed=seed, on_generation=report
    )
    print(f"return {result.evaluation.mean:.2f} after {result.env_steps:,} env steps")
    result.policy.save(out)
    show(env, agents.load_policy(out), seed)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
