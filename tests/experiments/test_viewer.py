"""The 3D page: what it holds, and what a browser makes of it."""

import base64
import io
import json
import re
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from agents.training.filming import Recording
from envs.pictures import camera, looks
from envs.pictures.scene import Geom, Scene
from experiments import cli
from experiments.markup import asset
from experiments.viewer import Panel, figure, head, page
from tests.experiments.browser import Browser

FRAMES = 31


def synthetic(
    seed=0, follows=True, shapes=("plane", "sphere", "capsule", "cylinder", "box", "ellipsoid")
):
    """A second in which a solid of each shape moves, the plane excepted."""
    rng = np.random.default_rng(seed)
    colours = rng.uniform(0.2, 1, (len(shapes), 3))
    geoms = tuple(
        Geom(shape, (0.0, 0.0, 0.0), (0.5, 0.5, 0.5, 1.0), True)
        if shape == "plane"
        else Geom(shape, (0.2, 0.3, 0.1), (*colour.tolist(), 1.0), False)
        for shape, colour in zip(shapes, colours, strict=True)
    )
    positions = rng.uniform(-1, 1, (1, len(shapes), 3)) + [0, 0, 1.3]
    positions = positions + np.linspace(0, 100, FRAMES)[:, None, None] * [1, 0, 0]
    quaternions = rng.normal(size=(FRAMES, len(shapes), 4))
    quaternions /= np.linalg.norm(quaternions, axis=-1, keepdims=True)
    positions[:, 0], quaternions[:, 0] = 0, (1, 0, 0, 0)
    focus = np.linspace(0, 100, FRAMES)[:, None] * [1, 0, 0] + [0, 0, 1]
    arrays = (x.astype(np.float32) for x in (positions, quaternions, focus))
    scene = Scene(geoms, *arrays, reach=2.0, follows=follows)
    returns = np.linspace(0, 12.5, FRAMES, dtype=np.float32)
    return Recording(scene, returns, frames_per_second=30.0, steps=FRAMES - 1)


def data_of(text):
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', text)[1])


def decoded(text, dtype):
    return np.frombuffer(base64.b64decode(text), dtype)


def test_the_data_round_trips():
    recording = synthetic()
    data = data_of(figure([Panel("episode 0", recording)]))
    (panel,), (model,) = data["panels"], data["models"]
    scene = recording.scene
    assert panel["label"] == "episode 0"
    assert panel["fps"] == 30
    np.testing.assert_array_equal(decoded(panel["returns"], "<f4"), recording.returns)
    focus = decoded(panel["focus"], "<f4").reshape(-1, 3)
    np.testing.assert_array_equal(focus, scene.focus)
    poses = decoded(panel["poses"], "<i2").reshape(FRAMES, 5, 7) / 32767
    positions = poses[..., :3] * panel["span"] + focus[:, None]
    # Rounding to 16 bits, and that of float32 a hundred metres from the origin.
    np.testing.assert_allclose(positions, scene.positions[:, 1:], atol=panel["span"] / 6e4 + 1e-5)
    np.testing.assert_allclose(poses[..., 3:], scene.quaternions[:, 1:], atol=2e-5)
    assert [geom["shape"] for geom in model] == [geom.shape for geom in scene.geoms]
    assert model[0]["pose"] == [0, 0, 0, 1, 0, 0, 0]
    assert "pose" not in model[1]
    assert model[1]["size"] == [0.2, 0.3, 0.1]


def test_colours_and_framing_are_those_of_films():
    recording = synthetic()
    data = data_of(figure([Panel("p", recording)]))
    scene, panel = recording.scene, data["panels"][0]
    for geom, drawn in zip(scene.geoms, data["models"][0], strict=True):
        assert drawn["rgba"] == pytest.approx(looks.painted(geom.rgba, geom.fixed))
    assert panel["direction"] == pytest.approx(camera.direction(scene))
    right, up, near = panel["extent"]
    needed = max(right / 1.5, up) / np.tan(camera.FIELD_OF_VIEW / 2) + near
    assert needed == pytest.approx(camera.distance(scene, 1.5))
    light = asset("viewer.css").split("}")[0]
    for colour in (looks.SKY, *looks.GROUND):
        assert "#" + "".join(f"{round(255 * x):02x}" for x in colour) in light


def test_panels_share_a_model_and_bring_their_own():
    panels = [Panel("a", synthetic(0)), Panel("b", synthetic(0)), Panel("c", synthetic(1))]
    data = data_of(figure(panels))
    assert len(data["models"]) == 2
    assert [panel["model"] for panel in data["panels"]] == [0, 0, 1]


def test_the_page_loads_nothing():
    text = page("a <b> & c", [Panel("</script><img src=x>", synthetic())])
    assert not re.search(r"https?://|//cdn|\bimport\b|@import|fetch\(|XMLHttpRequest", text)
    assert re.findall(r"\b(?:src|href)=\S+", text.replace("img src=x", "")) == ['href="data:,">']
    assert "<title>a &lt;b&gt; &amp; c</title>" in text
    assert text.count("</script>") == 2
    assert data_of(text)["panels"][0]["label"] == "</script><img src=x>"


def test_too_many_panels_are_refused():
    for count in (0, 5):
        with pytest.raises(ValueError, match=f"panels={count}: must be from 1 to 4"):
            figure([Panel("x", synthetic())] * count)


def test_replay_writes_the_page(tmp_path, capsys):
    path = tmp_path / "new folder" / "x.html"
    short = ("--env-kwargs", "max_episode_steps=9", "workers=1", "--episodes", "5")
    arguments = ("replay", "gymnasium/Hopper-v5", "--agent", "zero", *short, "--html", str(path))
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 0
    assert f"3D page of episodes 0 to 3: {path}" in capsys.readouterr().out
    text = path.read_text()
    assert "<h1>gymnasium/Hopper-v5, zero, evaluation seed 0</h1>" in text
    assert [panel["label"] for panel in data_of(text)["panels"]] == [
        f"episode {i}" for i in range(4)
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("x", "--html", "x.htm"), "--html x.htm: must end in .html"),
        (("brax/ant",), "brax/ant is an environment, not a run: add --agent random or"),
        (("brax/antt", "--agent", "zero"), "ENV brax/antt: unknown environment; did you mean"),
        (("x", "--env-kwargs", "a=1"), "--env-kwargs a=1: only with --agent; a run has its own"),
        (("brax/ant", "--agent", "zero", "--env-kwargs", "a"), "--env-kwargs a: must be name=val"),
        (
            ("probe/recall", "--agent", "zero", "--html", "x.html"),
            "probe/recall has no 3D page: environments of a MuJoCo model have one",
        ),
    ],
)
def test_bad_input_is_one_line_and_nothing_written(arguments, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        cli.main(("replay", *arguments))
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert says in printed.err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("browser"))
    yield opened
    opened.close()


def complaints(browser):
    """All but what is said of drawing in software."""
    entries = [c for c in browser.complaints() if c["method"] == "Log.entryAdded"]
    ours = [c for c in browser.complaints() if c["method"] != "Log.entryAdded"]
    return ours + [c for c in entries if c["params"]["entry"]["source"] != "rendering"]


def state_of(browser, name="state"):
    return browser.evaluate(f"document.querySelector('.viewer').dataset.{name}")


def until_drawn(browser):
    deadline = time.monotonic() + 30
    while state_of(browser) is None and time.monotonic() < deadline:
        time.sleep(0.1)
    return state_of(browser)


def press(browser, key):
    browser.evaluate(f"dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}'}}))")
    # The frame after the one that draws.
    browser.evaluate("new Promise(f => requestAnimationFrame(() => requestAnimationFrame(f)))")


def picture(browser, path):
    """(height, width, 3) of the window, as floats."""
    browser.screenshot(path)
    return np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB"), float)


@pytest.mark.parametrize(("width", "height", "dark"), [(1000, 700, False), (390, 844, True)])
def test_a_browser_draws_the_page(browser, tmp_path, width, height, dark):
    path = tmp_path / "x.html"
    path.write_text(page("title", [Panel(f"p{i}", synthetic(i)) for i in range(4)]))
    browser.open(path, width, height, dark)
    assert until_drawn(browser) == "drawn"
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    shown = picture(browser, tmp_path / "shot.png")
    rects = browser.evaluate(
        "[...document.querySelectorAll('.panel')].map(p => p.getBoundingClientRect().toJSON())"
    )
    assert len(rects) == 4
    for rect in rects:
        left, top = int(rect["left"]), int(rect["top"])
        inner = shown[top + 50 : int(rect["bottom"]) - 50, left + 8 : int(rect["right"]) - 8]
        assert inner.std(axis=(0, 1)).min() > 5
        colours = np.ptp(inner, axis=-1)
        assert (colours > 40).mean() > 0.005, "solids are coloured, ground and sky are not"
    assert browser.requests() == [path.as_uri()]
    assert complaints(browser) == []


def test_keys_and_controls(browser, tmp_path):
    path = tmp_path / "x.html"
    path.write_text(page("title", [Panel("p", synthetic())]))
    browser.open(path, 800, 600)
    assert until_drawn(browser) == "drawn"
    press(browser, "ArrowLeft")
    assert browser.evaluate("document.querySelector('.play').textContent") == "Play"
    browser.evaluate(
        "(s => { s.value = 0.5; s.dispatchEvent(new Event('input')); })"
        "(document.querySelector('input'))"
    )
    press(browser, "ArrowRight")
    assert float(state_of(browser, "time")) == pytest.approx(16 / 30, abs=1e-3)
    assert browser.evaluate("document.querySelector('.earned').textContent") == "return 6.7"
    before = picture(browser, tmp_path / "before.png")
    drag = "new PointerEvent('{0}', {{pointerId: 1, clientX: {1}, clientY: 300, buttons: 1}})"
    browser.evaluate("Element.prototype.setPointerCapture = () => {}")  # there is no such pointer
    for name, x in (("pointerdown", 300), ("pointermove", 420), ("pointerup", 420)):
        event = drag.format(name, x)
        browser.evaluate(f"document.querySelector('.panel').dispatchEvent({event})")
    press(browser, "ArrowUp")
    assert browser.evaluate("document.querySelector('select').value") == "2"
    turned = picture(browser, tmp_path / "turned.png")
    assert np.abs(turned - before)[50:500].mean() > 2
    press(browser, " ")
    assert browser.evaluate("document.querySelector('.play').textContent") == "Pause"
    assert complaints(browser) == []


def solid_share(browser, path):
    """Which share of the picture is coloured, as solids are and ground and sky are not."""
    return (np.ptp(picture(browser, path)[60:500], axis=-1) > 40).mean()


def click(browser, name):
    browser.evaluate(f"document.querySelector('{name}').click()")
    browser.evaluate("new Promise(f => requestAnimationFrame(() => requestAnimationFrame(f)))")


def test_the_camera_follows_until_it_is_told_to_stay(browser, tmp_path):
    path, shot = tmp_path / "x.html", tmp_path / "shot.png"
    path.write_text(page("title", [Panel("p", synthetic())]))
    browser.open(path, 800, 600)
    assert until_drawn(browser) == "drawn"
    press(browser, "ArrowLeft")  # which stops it
    pressed = "document.querySelector('.follow').getAttribute('aria-pressed')"
    assert browser.evaluate(pressed) == "true"
    seek = (
        "(s => { s.value = {0}; s.dispatchEvent(new Event('input')); })"
        "(document.querySelector('input'))"
    )
    browser.evaluate(seek.replace("{0}", "0.9"))
    press(browser, "ArrowRight")
    assert solid_share(browser, shot) > 0.01, "90 metres away, and followed"
    browser.evaluate(seek.replace("{0}", "0.1"))
    click(browser, ".follow")
    assert browser.evaluate(pressed) == "false"
    assert solid_share(browser, shot) > 0.01
    browser.evaluate(seek.replace("{0}", "0.9"))
    press(browser, "ArrowRight")
    assert solid_share(browser, shot) < 0.001, "the camera has stayed"
    press(browser, "f")
    assert browser.evaluate(pressed) == "true"
    assert solid_share(browser, shot) > 0.01
    assert complaints(browser) == []


def test_what_is_mounted_has_nothing_to_follow(browser, tmp_path):
    path = tmp_path / "x.html"
    path.write_text(page("title", [Panel("p", synthetic(follows=False))]))
    browser.open(path, 390)
    assert until_drawn(browser) == "drawn"
    assert browser.evaluate("document.querySelector('.follow').offsetParent === null")


@pytest.mark.parametrize("dark", [False, True])
def test_the_theme_is_the_systems_until_another_is_chosen(browser, tmp_path, dark):
    path, shot = tmp_path / "x.html", tmp_path / "shot.png"
    path.write_text(page("title", [Panel("p", synthetic())]))
    browser.open(path, 1440, 500, dark)
    assert until_drawn(browser) == "drawn"
    press(browser, "ArrowLeft")
    names = ["dark", "light"] if dark else ["light", "dark"]
    for name in names:
        assert state_of(browser, "theme") == name
        shown = picture(browser, shot)
        for part in (shown[:20], shown[60:80, 200:], shown[-20:]):  # title, sky, controls
            assert (part.mean() > 180) == (name == "light")
        click(browser, ".other")
    assert complaints(browser) == []


def test_figures_on_a_page_of_others_wait_to_be_played(browser, tmp_path):
    figures = [figure([Panel("p", synthetic(seed))]) for seed in range(2)]
    path = tmp_path / "x.html"
    path.write_text(f"<!DOCTYPE html><html><head>{head()}</head><body>{''.join(figures)}</body>")
    browser.open(path, 390, 844)
    assert until_drawn(browser) == "drawn"
    states = "[...document.querySelectorAll('.viewer')].map(v => v.dataset.state + v.dataset.time)"
    assert browser.evaluate(states) == ["drawn0.000", "drawn0.000"]
    press(browser, " ")
    assert browser.evaluate("document.querySelector('.play').textContent") == "Play"
    assert complaints(browser) == []


def test_a_browser_without_webgl_is_told_so(browser, tmp_path):
    off = "<script>HTMLCanvasElement.prototype.getContext = () => null;</script>"
    path = tmp_path / "x.html"
    path.write_text(page("title", [Panel("p", synthetic())]).replace("<title>", off + "<title>"))
    browser.open(path, 390)
    assert until_drawn(browser) == "failed"
    said = browser.evaluate("document.querySelector('.viewer .message[role=alert]').textContent")
    assert said.startswith("This picture needs WebGL 2")
    assert complaints(browser) == []


def test_an_episode_of_one_frame_is_drawn(browser, tmp_path):
    recording = synthetic()
    short = replace(recording, scene=recording.scene.at(np.array([0])), returns=np.zeros(1))
    path = tmp_path / "x.html"
    path.write_text(page("title", [Panel("p", short)]))
    browser.open(path, 390)
    assert until_drawn(browser) == "drawn"
    assert complaints(browser) == []
