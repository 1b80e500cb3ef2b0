"""Export a trained policy to ONNX, and act with it where there is neither JAX nor this project.

    pip install "es-rl[onnx]"
    python examples/deploy_without_jax.py train
    python examples/deploy_without_jax.py play

The second command needs gymnasium, numpy and onnxruntime alone; copy `play` to your robot.
"""

import sys
from pathlib import Path

import tyro


def train(env_steps: int = 500_000, seed: int = 0, out: Path = Path("runs/deploy")):
    """Train on the accelerator and write policy.onnx."""
    import agents
    import envs

    env = envs.make("gymnasium/phys2d/CartPole-v1")
    agent = agents.make("eggroll", env)
    result = agents.train(agent, env_steps=env_steps, target_return=500, seed=seed)
    out.mkdir(parents=True, exist_ok=True)
    result.policy.export_onnx(out / "policy.onnx")
    print(f"wrote {out / 'policy.onnx'}, whose policy returns {result.evaluation.mean:.1f}")


def play(episodes: int = 5, seed: int = 0, out: Path = Path("runs/deploy")):
    """Play Gymnasium's own CartPole with policy.onnx."""
    import gymnasium
    import numpy as np
    import onnxruntime

    model = onnxruntime.InferenceSession(out / "policy.onnx")
    env = gymnasium.make("CartPole-v1")
    for episode in range(episodes):
        obs, _ = env.reset(seed=seed + episode)
        total, over = 0.0, False
        while not over:
            (action,) = model.run(["action"], {"obs": obs.astype(np.float32)})
            obs, reward, terminated, truncated, _ = env.step(int(action))
            total, over = total + float(reward), terminated or truncated
        print(f"episode {episode}: return {total:.0f}")
    print("JAX was imported:", "jax" in sys.modules)


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"train": train, "play": play}, description=__doc__)
