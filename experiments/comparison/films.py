"""Films of the best policies of a comparison, for its report.

A film is made once, and kept beside the policy: `replay.mp4`, `replay.jpg` (a frame from its
middle) and, written last, `replay.json`.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import imageio.v3 as imageio

import envs
from agents import load_policy
from agents.policies.policy import Policy
from agents.policies.policy_files import named_file, read_json
from agents.training.filming import film
from envs.base import Env, HostEnv
from envs.errors import UserError
from es_rl.files import write_whole
from experiments.comparison.results import Results, Run, Task
from experiments.comparison.trials import FINAL_SEED
from experiments.videos import why_not, write_video

_MOST_FRAMES = 900
"""The frames of a film: about half a minute or more. Nobody watches 4,000 steps of a game."""
_LARGEST = 256 << 20
"""The largest film in bytes that is used; no episode needs as many."""
_POSTER_QUALITY = 80
"""Of JPEG, from 1 to 95."""


@dataclass(frozen=True)
class Played:
    """What `replay.json` says of the episode of a film, episode 0 of the final evaluation."""

    episode_return: float
    """The undiscounted return of the whole episode, as it was filmed."""
    whole: bool
    """Whether the film shows the episode to its end."""


@dataclass(frozen=True)
class Replay:
    """A film of the policy of a run."""

    video: Path
    """An MP4 file."""
    poster: Path
    """A JPEG file: what is shown until the film plays."""
    played: Played
    """The episode of the film."""


def best_run(results: Results, task: str, agent: str) -> Run | None:
    """The run of an agent on a task with the highest final return, whose film is shown."""
    return max(results.of(task, agent), key=lambda run: run.return_mean, default=None)


def replays(results: Results, out: Path) -> Iterator[tuple[tuple[str, str], Replay]]:
    """Yield a film of each agent's best policy on each task: ((task, agent), film).

    If a film cannot be made, one line says why, and there is none.

    Args:
      results: the results of the whole comparison.
      out: the comparison's folder.
    """
    for task in results.tasks:
        for agent in results.agents:
            best = best_run(results, task.name, agent)
            if best is None or best.policy is None or not (out / best.policy).exists():
                continue
            try:
                found = _kept(out / best.policy)
                if found is None:
                    print(f"filming {agent} on {task.name}", file=sys.stderr, flush=True)
                    found = _made(out / best.policy, task)
            except Exception as error:
                print(f"no film of {agent} on {task.name}: {why_not(error)}")
                continue
            yield (task.name, agent), found


def _paths(policy: Path) -> tuple[Path, Path, Path]:
    """The film of a saved policy, its poster, and its description."""
    video = policy.with_name("replay.mp4")
    return video, video.with_suffix(".jpg"), video.with_suffix(".json")


def _kept(policy: Path) -> Replay | None:
    """The film that was made earlier, if all of it is there."""
    video, poster, description = _paths(policy)
    try:
        if max(video.stat().st_size, poster.stat().st_size) > _LARGEST:
            return None
        played = Played(**read_json(description))
    except (OSError, ValueError, TypeError):
        return None
    if type(played.episode_return) is not float or type(played.whole) is not bool:
        return None
    return Replay(video, poster, played)


def _made(policy: Path, task: Task) -> Replay:
    """Film a saved policy."""
    video, poster, description = _paths(policy)
    env = envs.make(task.env, **task.env_kwargs)
    filmed = film(_policy(policy, env), env, seed=FINAL_SEED, max_frames=_MOST_FRAMES)
    played = Played(filmed.episode_return, len(filmed.frames) < _MOST_FRAMES)
    middle = filmed.frames[len(filmed.frames) // 2]
    write_video(video, filmed)
    picture = imageio.imwrite("<bytes>", middle, extension=".jpg", quality=_POSTER_QUALITY)
    assert picture is not None
    write_whole(poster, picture)
    write_whole(description, json.dumps(asdict(played), allow_nan=False).encode())
    return Replay(video, poster, played)


def _policy(folder: Path, env: Env | HostEnv) -> Policy:
    """Load a policy to play on an environment of the suite.

    Raises:
      UserError: there is no policy, or it is for another environment.
    """
    # Files that the suite itself names are trusted, as the suite is the user's own.
    policy = load_policy(folder, trusted=named_file(env.spec.kwargs) is not None)
    for name in ("id", "kwargs", "raw_observation_space", "observation_space", "action_space"):
        if getattr(policy.spec, name) != getattr(env.spec, name):
            raise UserError(f"policy {str(folder)!r}: is not one of {env.spec.id} as in the suite")
    return policy
