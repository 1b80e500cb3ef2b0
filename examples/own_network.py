"""Train a Flax network of your own on CartPole, save the policy, load it again and evaluate it.

    python examples/own_network.py

A saved policy holds weights and no code, so that loading it takes the network once more.
"""

import jax.numpy as jnp
import tyro
from flax import linen as nn

import agents
import envs


class TwoStreams(nn.Module):
    """Sees positions and velocities apart, before it brings them together."""

    outputs: int

    @nn.compact
    def __call__(self, obs):  # one standardised observation: (4,)
        positions = nn.swish(nn.Dense(8)(obs[0::2]))
        velocities = nn.swish(nn.Dense(8)(obs[1::2]))
        return nn.Dense(self.outputs)(jnp.concatenate([positions, velocities]))


def main(env_steps: int = 500_000, seed: int = 0, out: str = "runs/own_network"):
    env = envs.make("gymnasium/phys2d/CartPole-v1")
    network = TwoStreams(agents.num_outputs(env.spec.action_space))

    agent = agents.make("eggroll", env, network=network, population_size=128)
    result = agents.train(agent, env_steps=env_steps, target_return=475, seed=seed)
    print(f"trained for {result.env_steps:,} env steps in {result.wall_seconds:.1f} s")
    result.policy.save(out)

    policy = agents.load_policy(out, network=network)
    evaluation = agents.evaluate(policy, env, episodes=100, seed=1)
    print(f"return of {out}: {evaluation.mean:.1f} ± {evaluation.std:.1f} over 100 episodes")
    print("action when the pole falls to the right:", policy([0.0, 0.0, 0.1, 0.5]))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
