"""The command, as a person types it: in processes of its own."""

import json
import re
import shlex
import signal
import subprocess
import sys
import time

import imageio.v3 as imageio
import jax
import numpy as np
import pytest

from envs.errors import UserError
from experiments import cli
from experiments.commands import list_envs

PROBE = ("train", "probe/policy_reward", "--population-size", "64", "--hidden", "8")


def es_rl(*arguments, cwd=None):
    command = [sys.executable, "-m", "experiments.cli", *map(str, arguments)]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)
    done.seconds = time.monotonic() - began
    return done


def assert_silent(done):
    """Off a terminal training says nothing but how far it is, every 30 seconds."""
    lines = done.stderr.splitlines()
    says = r"\S+: (compiling|(generation|evaluation) .*)"
    assert all(re.fullmatch(says, line) for line in lines), lines
    assert len(lines) <= done.seconds // 30


def commands_of(done):
    """The commands at the end of a run, by what they do, as a shell splits them."""
    found = dict(re.findall(r"^(.+): (es-rl .+)$", done.stdout, re.MULTILINE))
    return {does: shlex.split(command)[1:] for does, command in found.items()}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """CartPole as `es-rl train` without arguments trains it."""
    out = tmp_path_factory.mktemp("runs") / "quick start"
    done = es_rl("train", "--out", out)
    assert done.returncode == 0, done.stderr
    return out, done


def test_train_without_arguments_solves_cart_pole(run):
    out, done = run
    assert_silent(done)
    assert f"run: {out}" in done.stdout
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["eval_return_mean"] >= 475
    assert lines[-1]["env_steps"] <= 2_000_000
    assert lines[-1]["eval_episodes"] == 128


def test_a_run_ends_with_the_commands_that_take_it_further(run):
    out, done = run
    assert commands_of(done) == {
        "replay": ["replay", str(out)],
        "page": ["report", str(out)],
        "resume": ["train", "--resume", str(out), "--target-return", "None"],
    }


def test_an_ended_run_goes_on_as_it_says(tmp_path):
    train = ("train", "gymnasium/CartPole-v1", "--population-size", 8, "--workers", 1)
    done = es_rl(*train, "--env-steps", 64, "--eval-episodes", 2, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    further = commands_of(done)
    assert further["resume"][3:] == ["--env-steps", "128"]
    compared = ["--tasks", "gymnasium/CartPole-v1", "--agents", "eggroll", "ppo"]
    assert further["compare (from new runs)"] == ["compare", "classic", *compared]
    again = es_rl(*further["resume"])
    assert again.returncode == 0, again.stderr
    assert commands_of(again)["resume"][3:] == ["--env-steps", "256"]


def test_replay_gives_exactly_the_recorded_returns(run):
    recorded = json.loads((run[0] / "policy" / "policy.json").read_text())["evaluation"]
    done = es_rl("replay", run[0], "--json", "--episodes", 128)
    assert done.returncode == 0, done.stderr
    replayed = json.loads(done.stdout)
    assert replayed["returns"] == recorded["returns"]
    assert replayed["lengths"] == recorded["lengths"]


@pytest.mark.slow
def test_replay_is_exact_where_returns_are_not_whole_numbers(tmp_path):
    train = ("train", "gymnasium/phys2d/Pendulum-v0", "--env-steps", 200_000)
    assert es_rl(*train, "--out", tmp_path / "run").returncode == 0
    recorded = json.loads((tmp_path / "run/policy/policy.json").read_text())["evaluation"]
    replayed = json.loads(es_rl("replay", tmp_path / "run", "--json", "--episodes", 40).stdout)
    assert replayed["returns"] == recorded["returns"][:40]
    assert len(set(replayed["returns"])) == 40
    filmed = es_rl("replay", tmp_path / "run", "--episodes", 1, "--video", tmp_path / "x.gif")
    assert f"return {recorded['returns'][0]:.1f}" in filmed.stdout


# imageio leaves the pipes of its ffmpeg to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_replay_writes_a_video(run, tmp_path, suffix):
    path = tmp_path / "new folder" / f"replay.{suffix}"
    done = es_rl("replay", run[0], "--episodes", 1, "--video", path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    frames = imageio.imread(path)
    assert len(frames) > 100
    assert min(frame.std() for frame in frames) > 5
    assert any((frames[0] != frame).any() for frame in frames[1:])


@pytest.mark.slow
def test_ppo_is_trained_and_filmed_as_it_learns(tmp_path):
    flags = ("--agent", "ppo", "--env-steps", 600, "--video-every", 2, "--out", tmp_path / "run")
    done = es_rl("train", *flags)
    assert done.returncode == 0, done.stderr
    assert_silent(done)
    films = sorted(path.name for path in (tmp_path / "run" / "videos").iterdir())
    assert films == ["generation-000000.mp4", "generation-000002.mp4"]
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["env_steps"] == 3 * 256
    assert {"policy_loss", "approx_kl", "entropy", "eval_return_mean"} <= set(last)


def test_envs_lists_and_marks(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["envs"])
    assert ended.value.code == 0
    listed = capsys.readouterr().out.splitlines()
    assert "brax/ant *" in listed
    assert "brax/walker2d" in listed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("trian",), "no command 'trian'; did you mean train?"),
        (("train", "brax/antt"), "ENV brax/antt: unknown environment; did you mean brax/ant"),
        (("train", "--agent", "egroll"), "--agent egroll: must be one of eggroll, open_es"),
        (("train", "--agent", "mine"), "; --import MODULE brings in your own"),
        (("train", "mine/reacher"), "; --import MODULE brings in your own"),
        (("compare", "classic", "--agents", "mine"), "; --import MODULE brings in your own"),
        (("train", "--population-size", "7"), "--population-size 7: must be a multiple of noise"),
        (("train", "--group-size", "6"), "--group-size 6: must divide population_size"),
        (("train", "--rank", "0"), "--rank 0: must be an integer of at least 1"),
        (("train", "--sigma", "0"), "--sigma 0.0: must be greater than 0"),
        (("train", "--env-steps", "0"), "--env-steps 0: must be at least 1"),
        (("train", "--seed", "-1"), "--seed -1: must be at least 0"),
        (("train", "brax/ant", "--backend", "sprng"), "--backend sprng: must be one of"),
        (("train", "--backend", "spring"), "--backend spring: only brax/"),
        (("train", "--devices", "9"), "--devices 9: must be from 1 to 2, the devices here"),
        (("train", "--lanes", "0"), "--lanes 0: must be at least 1"),
        (("train", "--video-every", "0"), "--video-every 0: must be at least 1"),
        (("train", "--agent", "ppo", "--gamma", "2"), "--gamma 2.0: must be from 0 to 1"),
        (("train", "--seconds", "0"), "--seconds 0.0: must be a number of seconds above 0"),
        (("train", "--trust"), "--trust True: must come with --resume"),
        (("replay", "nowhere"), "policy 'nowhere': there is no policy.json in it"),
        (("replay", "x", "--episodes", "0"), "--episodes 0: must be at least 1"),
        (("replay", "x", "--video", "film.avi"), "--video film.avi: must end in .mp4 or .gif"),
        (("benchmark", "--rounds", "0"), "--rounds 0: must be at least 1"),
        (("benchmark", "--json", "no/x.json"), "--json no/x.json: must be a file in a folder that"),
        (("envs", "--suite", "atari"), "--suite atari: must be one of brax, gymnasium, gymnax"),
    ],
)
def test_bad_input_is_one_line_exit_code_2_and_nothing_written(
    arguments, says, tmp_path, monkeypatch, capsys
):
    jax.devices()  # before a command sees --devices: conftest.py has chosen how many there are
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert says in printed.err
    assert printed.err.startswith(f"es-rl {arguments[0]}: error: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("train", "--sigma", "wide"), "Error parsing --sigma"),
        (("train", "--agent"), "Missing value for argument '--agent'"),
        (("train", "--popultion-size", "8"), "--population-size INT"),
        (("train", "--activation", "gelu"), "invalid choice 'gelu'"),
        (("train", "--matmul-precision", "fp8"), "invalid choice 'fp8'"),
        (("train", "--agent", "ppo", "--sigma", "1"), "Unrecognized options: --sigma"),
        (("replay",), "Missing from es-rl replay"),
        (("benchmark", "foward"), "foward"),
    ],
)
def test_what_cannot_be_parsed_is_said_by_tyro(arguments, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert says in printed.err
    assert list(tmp_path.iterdir()) == []


def test_help_imports_nothing_heavy_and_lists_the_commands():
    code = "import sys; from experiments import cli\ntry: cli.main(['--help'])\nexcept SystemExit: "
    code += "print('jax' in sys.modules, 'gymnasium' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *lines, last = done.stdout.splitlines()
    assert last == "False False False"
    assert all(any(f"• {name} " in line for line in lines) for name in cli.COMMANDS)


@pytest.mark.parametrize(
    ("raised", "code", "says"),
    [
        (ValueError("of a user's environment"), None, ""),
        (UserError("keep=0: must be\nat least 1"), 2, "error: --keep 0: must be at least 1\n"),
        (UserError("\x1b[2J"), 2, "error: ?[2J\n"),
        (KeyboardInterrupt(), 130, "es-rl envs: interrupted\n"),
        (BrokenPipeError(), 1, ""),
    ],
)
def test_exit_codes(monkeypatch, capsys, raised, code, says):
    def fails(arguments):
        raise raised

    monkeypatch.setattr(list_envs, "main", fails)
    with pytest.raises((SystemExit, ValueError)) as ended:
        cli.main(["envs"])
    if code is None:
        assert ended.value is raised
    else:
        assert ended.value.code == code
    assert capsys.readouterr().err.endswith(says)


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    done = es_rl(*PROBE, "--out", tmp_path)
    assert done.returncode == 2
    assert "must be an empty or a new folder" in done.stderr
    assert [f.name for f in tmp_path.iterdir()] == ["mine.txt"]


def test_ctrl_c_saves_the_policy_and_says_where(tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "experiments.cli", *PROBE, "--env-steps", "1000000000"]
    process = subprocess.Popen(
        [*command, "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (out / "metrics.jsonl").exists() and (out / "metrics.jsonl").stat().st_size:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert str(out / "policy") in stdout
    assert es_rl("replay", out, "--json", "--episodes", 3).returncode == 0


def test_a_default_folder_is_made_and_help_shows_the_tuned_settings(tmp_path):
    done = es_rl(*PROBE, "--env-steps", 100, "--agent", "open_es", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (made,) = (tmp_path / "runs/probe/policy_reward/open_es").iterdir()
    assert made.name.startswith("seed-0-")
    shown = es_rl("train", "gymnasium/phys2d/Pendulum-v0", "--help")
    assert shown.returncode == 0
    assert "layer_norm_relu" in shown.stdout
    assert np.char.find(shown.stdout, "--group-size") >= 0
