"""Folders from strangers, and folders that are none of a run: a page that is safe, or one line."""

import json
import os

import pytest

from es_rl.files import locked
from experiments import cli
from experiments.commands import report
from experiments.run_page import films

SCRIPT = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'"


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main(["report", *map(str, arguments)])
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err.removeprefix("es-rl report: error: ").strip()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere", "does not exist: must be the folder of a run"),
        ("file", "is a file: must be the folder of a run"),
        ("empty", "has no config.json: must be the folder of a run of es-rl train"),
        (
            "comparison",
            "has no config.json: must be the folder of a run of es-rl train; a comparison writes "
            "its own page, report.html, when it ends",
        ),
    ],
)
def test_what_is_no_run(tmp_path, capsys, name, says):
    (tmp_path / "file").write_text("x")
    (tmp_path / "comparison").mkdir()
    (tmp_path / "comparison" / "tasks.json").write_text("[]")
    (tmp_path / "empty").mkdir()
    assert refused(capsys, tmp_path / name) == f"RUN {tmp_path / name}: {says}"
    assert not list((tmp_path / "empty").iterdir())


@pytest.mark.parametrize("left", ["empty", "missing", "half"])
def test_a_run_before_its_first_generation(run, capsys, left):
    path = run / "metrics.jsonl"
    path.write_text("" if left != "half" else '{"generation": 0, "env')
    if left == "missing":
        path.unlink()
    says = "first generation has ended: its metrics.jsonl holds none yet; "
    assert refused(capsys, run).endswith(says + "the run was stopped before it")
    assert refused(capsys, run, "--watch").endswith(says + "the run was stopped before it")
    with locked(run / ".lock"):
        assert refused(capsys, run).endswith(says + "--watch waits for it")
    assert not (run / "report.html").exists()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--out", "x.txt"), "--out x.txt: must end in .html"),
        (("--out", "config.json/x.html"), "must be a file, in a folder that can be written"),
        (("--every", "2"), "--every 2: must come with --watch"),
        (("--watch", "--every", "0"), "--every 0: must be from 0.1 to 3600"),
        (("--watch", "--every", "1e9"), "--every 1e+09: must be from 0.1 to 3600"),
    ],
)
def test_flags_out_of_range(run, capsys, monkeypatch, flags, says):
    monkeypatch.chdir(run)
    assert says in refused(capsys, run, *flags)


@pytest.mark.parametrize(
    "name",
    [
        *("config.json", "metrics.jsonl", ".lock", "policy", "best", "videos"),
        "videos/generation-000000.mp4",
    ],
)
@pytest.mark.parametrize("how", ["link", "nowhere", "hard", "pipe"])
def test_links_are_refused_and_named(run, tmp_path, capsys, name, how):
    path, outside = run / name, tmp_path / "outside"
    is_folder = path.is_dir()
    path.rename(outside)
    if how == "link":
        path.symlink_to(outside)
    elif how == "nowhere":
        path.symlink_to(tmp_path / "nowhere")
    elif how == "pipe":
        os.mkfifo(path)
    elif is_folder:
        path.write_text("a file in its place")
    else:
        os.link(outside, path)
    assert path.name in refused(capsys, run)
    assert not (run / "report.html").exists()


def test_a_page_that_is_a_link_is_replaced(run, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("precious")
    (run / "report.html").symlink_to(outside)
    assert report.main([str(run)]) == 0
    assert outside.read_text() == "precious"
    assert not (run / "report.html").is_symlink()


def test_a_policy_that_is_a_link_is_not_read(run, tmp_path, config_of, metrics_of, capsys):
    config_of(target_return=None)
    metrics_of({"return_mean": 1.0})
    outside = tmp_path / "outside"
    (run / "policy" / "policy.json").rename(outside)
    (run / "policy" / "policy.json").symlink_to(outside)
    assert "policy.json is a link: must be a file" in refused(capsys, run)


@pytest.mark.parametrize(
    ("evaluation", "says"),
    [
        ({"seed": 0, "returns": ["x"], "lengths": [1]}, "returns must be numbers of float32"),
        ({"seed": 0, "returns": [1.0]}, "an evaluation must be an object of seed"),
        ([], "an evaluation must be an object"),
    ],
)
def test_an_evaluation_that_is_none(run, metrics_of, config_of, capsys, evaluation, says):
    config_of(target_return=None)
    metrics_of({})
    policy = {"training": {"generations": 1}, "evaluation": evaluation}
    (run / "policy" / "policy.json").write_text(json.dumps(policy))
    assert says in refused(capsys, run)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", "must be a JSON object"),
        (b"[" * 100_000, "must be a JSON object"),
        (b"[]", "must be a JSON object"),
        (b"\xff" * 9, "must be a JSON object"),
        (b'{"generation": 1, "env_steps": %s}' % (b"9" * 9999), "must be a JSON object"),
        (b'{"generation": "1", "env_steps": 200}', "generation must be there"),
        (b'{"generation": 1, "env_steps": 1.5}', "env_steps must be there, and a whole number"),
        (b'{"generation": 1}', "env_steps must be there"),
        (b'{"generation": 0, "env_steps": 200}', "generation must be at least 1"),
        (b'{"generation": 1, "env_steps": 99}', "env_steps must be at least 100"),
        (b'{"generation": 1, "env_steps": 200, "x": "5"}', "x must be a number or null"),
        (b'{"generation": 1, "env_steps": 200, "x": {"y": 1}}', "x must be a number or null"),
        (b'{"generation": 1, "env_steps": 200, "\\u001b[2J": 1}', "must be a printable name"),
        (b'{"generation": 1, "env_steps": 200, "": 1}', "must be a printable name"),
        (b" " * (2 << 20), "must have fewer than 1048576 bytes"),
        (
            json.dumps({"generation": 1, "env_steps": 200, **{f"x{i}": 1 for i in range(300)}})
            .encode(),
            "there must be at most 300 names",
        ),
    ],
)  # fmt: skip
def test_lines_that_are_no_metrics(run, metrics_of, capsys, line, says):
    metrics_of({})
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(line + b"\n")
    error = refused(capsys, run)
    assert error.startswith(f"RUN {run}: line 2 of metrics.jsonl: ")
    assert says in error


def test_too_many_numbers_are_not_kept(run, monkeypatch, capsys):
    monkeypatch.setattr("experiments.run_page.metrics._MOST_NUMBERS", 10)
    assert "hold more than 10 numbers" in refused(capsys, run)


ODD = (1e308, -1e308, 5e-324, 0.0, None, True, 10**90, -(10**300), float("nan"), float("inf"))


@pytest.mark.parametrize("other", ODD)
def test_odd_numbers_are_drawn_or_left_out(run, config_of, metrics_of, other):
    config_of(target_return=None)
    for pair in ((other, 1.0), (-1.0, other), (other, other)):
        names = ("return_mean", "return_std", "eval_return_mean", "loss", "wall_seconds")
        metrics_of(*(dict.fromkeys((*names, "evaluation_seconds"), x) for x in pair))
        assert report.main([str(run)]) == 0
        page = (run / "report.html").read_text()
        drawn = page[page.index('<h2 id="curves">') : page.index('<h2 id="films">')]
        assert "nan" not in drawn.lower().replace("nonfinite", "")
        assert "inf" not in drawn.lower()


def test_texts_are_escaped(run, config_of, metrics_of):
    config_of(
        env=SCRIPT,
        agent=SCRIPT,
        settings={"x": SCRIPT, "y": {SCRIPT: [SCRIPT]}},
        versions={SCRIPT: SCRIPT},
        git={"commit": SCRIPT},
        device=SCRIPT,
        target_return=None,
    )
    name = SCRIPT[:90]
    metrics_of({name: 1.0, "failed_" + name: 1.0}, {name: 2.0, "failed_" + name: 1.0})
    assert report.main([str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "&lt;img src=x" in page
    assert "<img" not in page
    assert page.count("<script") == 1


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"format": 2}, "config.json: is of format 2, must be of format 3"),
        ({"format": True}, "config.json: is of format True"),
        ({"env": "x" * 201}, "the length of env must be at most 200"),
        ({"env": "\x1b[2J"}, "env must be printable"),
        ({"env_steps": -1}, "env_steps=-1: must be at least 1"),
        ({"env_steps": "x"}, "must be a whole number"),
        ({"settings": []}, "settings must be an object"),
        ({"versions": ["x"]}, "versions must be an object of texts"),
        ({"versions": {"x": 1}}, "versions must be an object of texts"),
        ({"versions": {str(i): "" for i in range(101)}}, "versions must be an object of texts"),
    ],
)
def test_a_configuration_that_is_none(run, config_of, capsys, values, says):
    config_of(**values)
    error = refused(capsys, run)
    assert error.startswith(f"RUN {run}: config.json: ")
    assert says in error


@pytest.mark.parametrize("data", [b"", b"[]", b"{" * 9, b'{"format": NaN}'])
def test_a_configuration_that_is_damaged(run, capsys, data):
    (run / "config.json").write_bytes(data)
    assert f"RUN {run}: config.json: config.json" in refused(capsys, run)


def test_a_film_that_is_a_playlist_is_no_film(run, tmp_path, monkeypatch):
    def never(*arguments, **options):
        raise AssertionError("ffmpeg must not see it")

    (run / "videos" / "generation-000000.mp4").write_text("#EXTM3U\nfile:///etc/passwd\n")
    monkeypatch.setattr(films.subprocess, "run", never)
    (shown,) = films.Films(run).shown(1)[0]
    assert shown == films.ShownFilm(0, None, None)


def test_a_film_without_frames_has_no_poster(run):
    (run / "videos" / "generation-000000.mp4").write_bytes(b"\0\0\0\x20ftypisom" + b"x" * 100)
    (shown,) = films.Films(run).shown(1)[0]
    assert shown.video.startswith("data:video/mp4;base64,")
    assert shown.poster is None


def test_a_film_that_is_too_large_is_left_out(run, monkeypatch):
    monkeypatch.setattr(films, "_LARGEST", 100)
    assert report.main([str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "<video" not in page
    assert "too large for the page" in page
