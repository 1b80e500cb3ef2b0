"""What a person sees of training: a bar in one line of a terminal, elsewhere a line at times."""

import io
import sys
import threading

import pytest

import agents
import envs
from agents.training.run_config import RunConfig
from experiments import progress
from experiments.comparison.results import UNLIMITED
from experiments.progress import Status, shown_progress

TASK = "gymnasium/phys2d/CartPole-v1"
METRICS = {
    "generation": 12,
    "env_steps": 1_234_567,
    "steps_per_second": 45_300.0,
    "return_mean": 812.34,
    "best_return": 903.12,
    "wall_seconds": 100.0,
    "evaluation_seconds": 10.0,
}


class Pipe(io.StringIO):
    """Standard error, as if it were a file; it says when something is written."""

    def __init__(self):
        super().__init__()
        self.wrote = threading.Event()

    def write(self, text):
        super().write(text)
        self.wrote.set()


def status(metrics=METRICS, **options):
    made = Status(TASK, RunConfig(**{"env_steps": 10_000_000, "target_return": 950.0, **options}))
    made.ended(metrics)
    return made


@pytest.fixture(autouse=True)
def still(monkeypatch):
    """No time passes after a generation, unless a test says so."""
    monkeypatch.setattr(progress, "time", type("Time", (), {"monotonic": staticmethod(lambda: 0)}))


def test_a_line_says_all():
    assert status().line() == (
        f"{TASK}: generation 12, 1.23M / 10M env steps, 45.3k steps/s, return 812.3, "
        "best evaluation 903.1 / 950, 3:13 left"
    )
    assert "best evaluation 903.1, " in status(target_return=None).line()
    assert Status(TASK, RunConfig()).line() == f"{TASK}: compiling"


def test_a_budget_of_seconds_alone_has_no_env_steps_to_go():
    made = status(env_steps=UNLIMITED, seconds=250.0)
    assert "generation 12, 1.23M env steps, 45.3k steps/s" in made.line()
    assert made.line().endswith(" 2:40 left")


def test_80_columns_are_enough_for_everything():
    wanted = "CartPole-v1 gen 12 1.23M/10M 45.3k/s return 812.3 best 903.1/950 3:13"
    assert status().fitted(len(wanted)) == wanted
    assert len(wanted) <= 80 - progress._BAR_WIDTH[0] - progress._AROUND_BAR
    assert status().fitted(len(wanted) - 1) == wanted.replace(" 45.3k/s", "")


@pytest.mark.parametrize("width", [10, 25, 40, 60, 68, 90, 200])
def test_what_matters_least_goes_first(width):
    shown = status().fitted(width)
    assert len(shown) <= width
    assert "3:13" in shown
    assert ("best" in shown) >= ("gen" in shown) >= ("return" in shown) >= ("/s" in shown)
    assert ("left" in shown) <= (width > 68)


def test_a_line_does_not_flicker():
    made = status({**METRICS, "return_mean": -1234.5})
    assert "/s" not in made.fitted(69)
    made.ended(METRICS)
    assert "/s" not in made.fitted(69)
    assert "/s" in made.fitted(80)
    assert "/s" in status().fitted(69)


def test_the_budget_that_ends_first_says_how_much_time_is_left(monkeypatch):
    later = {**METRICS, "env_steps": 2_234_567, "wall_seconds": 300.0, "evaluation_seconds": 110.0}
    made = status(seconds=1000.0)
    assert made.line().endswith(" 3:13 left")  # 8.77M steps at 45.3k/s
    made.ended(later)  # 1M steps in 200 s, 100 s of them training, of which 810 s are left
    assert made.line().endswith(" 25:53 left")
    made = status(seconds=250.0)
    made.ended(later)  # 60 s of training are left
    assert made.line().endswith(" 2:00 left")
    monkeypatch.setattr(progress.time, "monotonic", lambda: 30)
    assert made.line().endswith(" 1:30 left")


def test_progress_within_a_generation_is_shown():
    made = status()
    made.within("generation 13", 128, 512)
    assert f"{TASK}: generation 13 25%, 1.23M / 10M env steps" in made.line()
    made.within("evaluation", 32, 128)
    assert "evaluation 25%" in made.fitted(68)


def test_no_return_of_another_environment_is_shown():
    """Otherwise it would pass for a return of the task, or the line would fail without one."""
    other = {k: x for k, x in METRICS.items() if k != "return_mean"}
    shown = status({**other, "train_env_return_mean": 40.0}).line()
    assert "steps/s, best evaluation 903.1" in shown


def test_success_is_shown_until_the_next_evaluation():
    made = status({**METRICS, "eval_success_rate": 0.75})
    made.ended(METRICS)
    assert "75% successful" in made.line()


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0"), (950, "950"), (999.6, "1k"), (37_875, "37.9k"), (999_600, "1M"), (2e9, "2G")],
)
def test_counts_have_three_digits(count, shown):
    assert progress._short(count) == shown


def test_off_a_terminal_lines_come_while_nothing_is_told(monkeypatch):
    """A program that compiles for minutes tells nothing."""
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.01)
    pipe = Pipe()
    monkeypatch.setattr(sys, "stderr", pipe)
    with shown_progress(TASK, RunConfig()) as (show, _):
        assert pipe.wrote.wait(60)
        show(METRICS)
        pipe.wrote.clear()
        assert pipe.wrote.wait(60)
    first, *_, last = pipe.getvalue().splitlines()
    assert first == f"{TASK}: compiling"
    assert last.startswith(f"{TASK}: generation 12, ")


def test_a_run_that_goes_on_knows_its_best_evaluation(tmp_path):
    env = envs.make("probe/policy_reward")
    agent = agents.make("eggroll", env, population_size=8, hidden=())
    options = {"env_steps": 64, "eval_every": 100, "eval_episodes": 4}
    first = agents.train(agent, out=tmp_path, **options)
    told = []
    agents.train(
        agent,
        out=tmp_path,
        resume=True,
        env_steps=200,
        on_generation=lambda metrics, snapshot: told.append(metrics),
    )
    assert "eval_return_mean" not in told[0]
    assert told[0]["best_return"] == first.evaluation.mean
    assert "best_return" not in (tmp_path / "metrics.jsonl").read_text()
