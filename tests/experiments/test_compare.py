"""`es-rl compare`: whole comparisons of small agents on probes."""

import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pytest

from agents.ppo.config import PPOConfig
from experiments import cli
from experiments.commands import compare
from experiments.comparison import findings, results, suites

SUITE = """
agents = ["eggroll", "ppo"]

[[tasks]]
env = "probe/policy_reward"
threshold = 8
env_steps = 40_000
seconds = {seconds}
stop_when_solved = {stop}

[tasks.settings.eggroll]
population_size = 64
hidden = [8]
sigma = 0.2
learning_rate = 0.1

[tasks.settings.ppo]
hidden = [8]
num_envs = 16
num_steps = 16
num_epochs = 4
learning_rate = 0.02
"""


@pytest.fixture
def suite(tmp_path):
    """A file of a suite that takes seconds."""
    path = tmp_path / "small.toml"
    path.write_text(SUITE.format(seconds=20, stop="true"))
    return path


HOPPER = "gymnasium/Hopper-v5"


@pytest.mark.slow
def test_a_comparison_goes_on_where_it_was_stopped(suite, tmp_path, capsys, monkeypatch, request):
    # Background processes of a shell script ignore SIGINT from their start.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, handler))
    out = tmp_path / "out"
    command = [str(suite), "--seeds", "2", "--out", str(out)]
    train, calls = compare.Trials._train, []

    def interrupted(trials, seed):
        calls.append((trials.agent.name, seed))
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return train(trials, seed)

    monkeypatch.setattr(compare.Trials, "_train", interrupted)
    assert compare.main(command) == 130
    assert calls == [("eggroll", 0), ("eggroll", 1), ("ppo", 0)]
    so_far = results.load(out / "results.json")
    assert [r.agent for r in so_far.runs] == ["eggroll"] * 2
    assert so_far.tasks[0].random_return > 0
    assert "eggroll" in (out / "table.md").read_text()
    kept = {path: path.read_bytes() for path in out.rglob("run.json")}
    assert len(kept) == 2

    assert compare.main(command) == 0
    assert calls[3:] == [("ppo", 0), ("ppo", 1)]
    assert all(path.read_bytes() == before for path, before in kept.items())
    found = results.load(out / "results.json")
    assert [(r.agent, r.seed, r.error) for r in found.runs] == [
        (agent, seed, None) for agent in ("eggroll", "ppo") for seed in (0, 1)
    ]
    (task,) = found.tasks
    assert 3 < task.random_return < 5
    for run in found.runs:
        assert run.return_mean == 8
        assert len(run.returns) == 128
        reached = run.first_reaching(8)
        assert reached == run.curve[-1]
        assert reached.env_steps == run.env_steps
        assert 0 < reached.seconds <= run.seconds < 20
        assert run.settings["hidden"] == [8]
    for name in ("results.csv", "table.md", "report.html"):
        assert "policy_reward" in (out / name).read_text()
    assert len(list((out / "figures").glob("*.png"))) > 1

    # A third time there is nothing left to train, and the same comes out.
    before = (out / "results.json").read_bytes()
    assert compare.main(command) == 0
    assert calls[5:] == []
    assert (out / "results.json").read_bytes() == before
    said = capsys.readouterr().out
    assert "no film of ppo on probe/policy_reward: " in said
    assert "probe/policy_reward ppo seed 1: 8.0 after" in said
    suite.write_text(SUITE.format(seconds=30, stop="true"))
    with pytest.raises(ValueError, match="out=.*holds other tasks or budgets"):
        compare.main(command)


def test_a_run_that_fails_is_shown_and_stops_nothing(suite, tmp_path, monkeypatch, capsys):
    train = compare.Trials._train

    def fails(trials, seed):
        if (trials.agent.name, seed) == ("eggroll", 0):
            raise FloatingPointError("the sum\nis wrong")
        return train(trials, seed)

    monkeypatch.setattr(compare.Trials, "_train", fails)
    out = tmp_path / "out"
    assert compare.main([str(suite), "--seeds", "1", "--out", str(out)]) == 0
    first, second = results.load(out / "results.json").runs
    assert re.fullmatch(
        r"FloatingPointError: the sum is wrong \(.*test_compare.py:\d+\)", first.error
    )
    assert second.error is None
    assert "eggroll seed 0: failed: FloatingPointError" in capsys.readouterr().out
    assert "the sum is wrong" in (out / "report.html").read_text()


def test_ctrl_c_keeps_what_was_done(suite, tmp_path):
    suite.write_text(SUITE.format(seconds=600, stop="false").replace("40_000", "4_000_000_000"))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "experiments.cli", "compare", str(suite), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(out.rglob("metrics.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said, complained = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "the same command goes on from here" in said
    assert complained == (
        "\nSIGINT: the run at hand is given up, those that ended are kept; once more ends at once\n"
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("clasic",),
            "SUITE clasic: must be one of ablation, box2d, brax, classic, masks, mujoco, "
            "paper, pixels, reference, or",
        ),
        (("classic", "--seeds", "0"), "--seeds 0: must be at least 1"),
        (("classic", "--agents", "eggrol"), "--agents eggrol: must be of eggroll, open_es"),
        (("classic", "--agents", "ppo", "ppo"), "--agents ppo,ppo: names an agent twice"),
        (("mujoco", "--tasks", HOPPER, HOPPER), f"--tasks {HOPPER},{HOPPER}: names a task twice"),
        (("classic", "--agents", "ppo", "--out", "."), "--out .: must be an empty or a new folder"),
    ],
)
def test_bad_flags_are_one_line_and_write_nothing(arguments, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "something").touch()
    with pytest.raises(SystemExit) as stopped:
        cli.main(["compare", *arguments])
    assert stopped.value.code == 2
    complained = capsys.readouterr().err
    assert complained.startswith(f"es-rl compare: error: {says}")
    assert complained.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["something"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("agents =", "agnets ="), "no 'agnets' is known; did you mean agents?"),
        (('"ppo"', '"pop"'), "agent='pop': must be one of"),
        (("policy_reward", "policy_rewrd"), "unknown environment; did you mean probe/policy_re"),
        (("threshold = 8", 'threshold = "8"'), "threshold must be a number, not '8'"),
        (("seconds = 20", "seconds = -1"), "seconds must be greater than 0, not -1"),
        (("seconds = 20", "seconds = 9\nevaluations = 0"), "evaluations must be greater than 0"),
        (
            ("seconds = 20", "seconds = 9\nfinal_episodes = 0"),
            "final_episodes must be greater than 0",
        ),
        (
            ("seconds = 20", "seconds = 9\nevaluation_episodes = 2.5"),
            "evaluation_episodes must be a whole number, not 2.5",
        ),
        (("stop_when_solved = true", "stop_when_solved = 1"), "must be true or false, not 1"),
        (("sigma = 0.2", "sgima = 0.2"), "settings of eggroll: no 'sgima' is known; did you mean"),
        (("env_steps = 40_000", "env_steps = 1.5"), "env_steps must be a whole number, not 1.5"),
        (("[[tasks]]", "[[tasks"), "is no TOML"),
        (('"ppo"', '{ name = "a", agent = "pop" }'), "agent='pop': must be one of"),
        (('"ppo"', '{ name = "a/b", agent = "ppo" }'), "must be at most 100 letters, digits"),
        (('"ppo"', '{ name = "p", agent = "ppo", gama = 1 }'), "no 'gama' is known; did you mean"),
        (('"ppo"', '"eggroll"'), "two agents have one name"),
        (("[tasks.settings.ppo]", "[tasks.settings.pop]"), "no 'pop' is known; did you mean ppo?"),
        (("agents =", "modules = 1\nagents ="), "modules must be a list of names"),
        (("agents =", 'modules = ["nowhere"]\nagents ='), "import=nowhere: must be a module"),
        (("agents =", 'relative_to = "pop"\nagents ='), "relative_to must name one of the agents"),
        (("agents =", "relative_to = 1\nagents ="), "relative_to must name one of the agents"),
        (('"ppo"', '{ name = "p", agent = "ppo", preset = 1 }'), "preset must be true or false"),
        (("seconds = 20", "seconds = 9\npublished = 1"), "published must be a table of agents"),
        (("seconds = 20", "seconds = 9\npublished.pop = 1"), "no 'pop' is known; did you mean ppo"),
        (("seconds = 20", "seconds = 9\npublished.ppo = nan"), "published.ppo must be finite"),
        (("seconds = 20", "seconds = 9\npublished.ppo = 1"), "published scores need relative_to"),
        (("seconds = 20", f"seconds = 9\npublished.ppo = {'9' * 400}"), "published.ppo must be"),
        (("env_steps = 40_000", f"env_steps = {'9' * 400}"), "env_steps must be"),
        (('"ppo"', '{ name = "random.json", agent = "ppo" }'), "must not be random.json"),
    ],
)
def test_what_is_wrong_with_a_suite_is_named(change, says, suite):
    suite.write_text(SUITE.format(seconds=20, stop="true").replace(*change))
    with pytest.raises(ValueError, match="suite=.*small.toml: ") as raised:
        suites.load(str(suite))
    assert says in str(raised.value)


@pytest.mark.parametrize("name", suites.bundled())
def test_bundled_suites_fit_the_agents(name):
    suite = suites.load(name)
    for entry in suite.entries:
        for contestant in suite.contestants:
            settings = entry.settings_of(contestant)
            given = entry.settings.get(contestant.name, {})
            assert all(settings[setting] == value for setting, value in given.items())


def test_a_contestant_without_presets_has_the_defaults(suite):
    text = (
        suite.read_text()
        .replace("probe/policy_reward", "brax/ant")
        .replace('"ppo"', '"ppo", { name = "p", agent = "ppo", preset = false, gamma = 0.5 }')
    )
    suite.write_text(text)
    loaded = suites.load(str(suite))
    (entry,) = loaded.entries
    _, with_preset, without = loaded.contestants
    assert entry.settings_of(with_preset)["learning_rate"] == 0.02
    assert entry.settings_of(with_preset)["gamma"] == 0.98
    assert entry.settings_of(without) == asdict(PPOConfig(gamma=0.5))
    assert "rejax" in with_preset.source("brax/ant")
    assert "defaults" in without.source("brax/ant")


def test_only_the_chosen_tasks_need_their_packages(suite, tmp_path, monkeypatch):
    task = suite.read_text().partition("[[tasks]]")[2]
    other = task.replace("policy_reward", "action_reward")
    suite.write_text(suite.read_text() + "\n[[tasks]]" + other)
    chosen, missing = (entry.task.env for entry in suites.load(str(suite)).entries)
    reasons = {missing: 'needs x: pip install "es-rl[x]"'}
    monkeypatch.setattr(compare, "obstacle", reasons.get)
    made, make = [], compare.envs.make
    monkeypatch.setattr(compare.envs, "make", lambda id, **kwargs: made.append(id) or make(id))
    monkeypatch.setattr(compare, "claim", lambda *_: 1 / 0)
    command = [str(suite), "--out", str(tmp_path / "out")]
    with pytest.raises(
        ValueError, match=f"tasks={missing}: needs x: .*; without it: --tasks {chosen}$"
    ):
        compare.main(command)
    assert made == []
    with pytest.raises(ZeroDivisionError):
        compare.main([*command, "--tasks", chosen])
    assert made == [chosen]


def test_budgets_are_scaled_or_given_in_seconds(suite):
    loaded = suites.load(str(suite))
    (task,) = loaded.choose_tasks([])

    def with_budgets(*budgets):
        return loaded.with_budgets(*budgets).choose_tasks([])[0]

    assert with_budgets(1.0, None) == task
    assert with_budgets(0.5, None) == replace(task, env_steps=20_000, seconds=10.0)
    assert with_budgets(1e-9, None).env_steps == 1
    assert with_budgets(1.0, 3) == replace(task, env_steps=10**12, seconds=3.0)
    with pytest.raises(ValueError, match="seconds=3: must not be given with scale=0.5"):
        with_budgets(0.5, 3)


@pytest.mark.slow
def test_an_agent_and_an_environment_may_take_part_several_times(tmp_path, capsys, monkeypatch):
    (tmp_path / "own_agents_and_envs.py").write_text(
        "import envs\n"
        "from envs.probes import make\n"
        "envs.register('mine/probe', lambda **kwargs: make('policy_reward', **kwargs))\n"
    )
    path = tmp_path / "several.toml"
    path.write_text(SEVERAL)
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    assert compare.main([str(path), "--seeds", "1", "--out", str(out)]) == 0
    found = results.load(out / "results.json")
    assert found.agents == ("rank_2", "eggroll")
    assert [(t.name, t.env) for t in found.tasks] == [
        ("short", "mine/probe"),
        ("mine/probe", "mine/probe"),
    ]
    told = [(r.task, r.agent, r.kind, r.settings["rank"], r.settings["sigma"]) for r in found.runs]
    assert told == [
        ("short", "rank_2", "eggroll", 2, 0.2),
        ("short", "eggroll", "eggroll", 1, 0.1),
        ("mine/probe", "rank_2", "eggroll", 2, 0.3),
        ("mine/probe", "eggroll", "eggroll", 1, 0.1),
    ]
    assert all(r.error is None for r in found.runs)
    assert max(r.return_mean for r in found.of("short", "eggroll")) <= 3
    assert "short rank_2 seed 0" in capsys.readouterr().out
    # Those of the suite can be chosen by the names that it gives them.
    assert [c.name for c in suites.load(str(path)).choose(["rank_2", "ppo"])] == ["rank_2", "ppo"]


def test_agents_train_with_other_arguments_than_they_are_evaluated(tmp_path, monkeypatch):
    """Otherwise a suite's arguments of training would be lost, or hold for evaluations too."""
    path, out = tmp_path / "apart.toml", tmp_path / "out"
    path.write_text(APART)
    monkeypatch.setattr(compare.report, "write_report", lambda *of: None)
    assert compare.main([str(path), "--seeds", "1", "--out", str(out)]) == 0
    found = results.load(out / "results.json")
    assert found.tasks[0].train_env_kwargs == {"max_episode_steps": 2}
    (run,) = found.runs
    # 16 members play episodes of two steps, evaluations ones of eight.
    assert run.error is None
    assert run.env_steps == 96
    assert len(run.returns) == 5
    assert 2 < run.return_mean <= 8
    assert findings.tasks_table(found).rows[0][1] == "in training max_episode_steps=2"
    with pytest.raises(
        ValueError, match="apart.toml: task .*, train_env_kwargs: .*: random trains"
    ):
        compare.main([str(path), "--agents", "random", "--out", str(tmp_path / "other")])


APART = """
agents = ["eggroll"]

[[tasks]]
env = "probe/policy_reward"
train_env_kwargs = { max_episode_steps = 2 }
threshold = 8
env_steps = 90
seconds = 20
evaluation_episodes = 4
final_episodes = 5

[tasks.settings.eggroll]
population_size = 16
hidden = []
"""


SEVERAL = """
modules = ["own_agents_and_envs"]

[[agents]]
name = "rank_2"
agent = "eggroll"
rank = 2
sigma = 0.2
population_size = 16
hidden = []

[[agents]]
name = "eggroll"
population_size = 16
hidden = []

[[tasks]]
name = "short"
env = "mine/probe"
env_kwargs = { max_episode_steps = 3 }
threshold = 3
env_steps = 200
seconds = 20
evaluation_episodes = 4

[[tasks]]
env = "mine/probe"
threshold = 8
env_steps = 200
seconds = 20
evaluation_episodes = 4

[tasks.settings.rank_2]
sigma = 0.3
"""
