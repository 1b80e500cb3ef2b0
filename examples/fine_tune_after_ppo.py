"""Train with PPO for a short time, and go on with EGGROLL from its policy.

    python examples/fine_tune_after_ppo.py

The agent needs the network of the policy that it starts from, and small steps: most directions
away from a trained policy are worse.
"""

import tyro

import agents
import envs


def main(
    ppo_steps: int = 30_000, env_steps: int = 500_000, seed: int = 0, out: str = "runs/fine_tune"
):
    env = envs.make("gymnasium/phys2d/Pendulum-v0")
    ppo = agents.make("ppo", env)
    start = agents.train(ppo, env_steps=ppo_steps, seed=seed).policy

    network = agents.network_settings(start)
    small = {"sigma": 0.03, "learning_rate": 0.003, "optimizer": "adam"}
    eggroll = agents.make("eggroll", env, **network, **small)
    tuned = agents.train(eggroll, initial=start, env_steps=env_steps, seed=seed).best
    tuned.save(out)
    for name, policy in {"PPO": start, "then EGGROLL": tuned}.items():
        evaluation = agents.evaluate(policy, env, episodes=256, seed=1)
        print(f"{name:12}: {evaluation.mean:8.1f} ± {evaluation.std:.1f}")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
