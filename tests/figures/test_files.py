import io
import json
import math
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from cupel.errors import MissingDependency
from cupel.figures.curves import CurveData
from cupel.figures.files import draw_training_curves
from cupel.figures.settings import FigureSettings

SVG_ONLY = FigureSettings(formats=("svg",), themes=("light",))


def data(count=20, **changes):
    steps = np.arange(1, count + 1)
    return CurveData(**({"name": "run-a", "steps": steps, "loss": 5 / steps} | changes))


@pytest.mark.slow
def test_writes_the_numbers_and_each_theme_in_each_format(tmp_path):
    files = draw_training_curves(data(), tmp_path / "figures", step=20, settings=FigureSettings())
    assert [file.name for file in files] == [
        "training-curves_step-000000020.json",
        "training-curves_step-000000020.light.svg",
        "training-curves_step-000000020.light.png",
        "training-curves_step-000000020.dark.svg",
        "training-curves_step-000000020.dark.png",
    ]
    assert sorted(files) == sorted((tmp_path / "figures").iterdir()), "nothing else is left there"
    light, dark = (Image.open(io.BytesIO(file.read_bytes())) for file in (files[2], files[4]))
    assert light.size == dark.size == (1200, 900)
    assert light.getpixel((2, 2))[:3] == (255, 255, 255)
    assert max(dark.getpixel((2, 2))[:3]) < 40
    xml.etree.ElementTree.fromstring(files[1].read_bytes())


@pytest.mark.slow
def test_equal_data_give_equal_bytes_in_another_process_and_folder(tmp_path):
    (_, here) = draw_training_curves(data(), tmp_path / "a", step=20, settings=SVG_ONLY)
    code = (
        "import numpy as np, sys, pathlib\n"
        "from cupel.figures.files import *\n"
        "steps = np.arange(1, 21)\n"
        "draw_training_curves(CurveData('run-a', steps, 5 / steps), pathlib.Path(sys.argv[1]),"
        " step=20, settings=FigureSettings(formats=('svg',), themes=('light',)))"
    )
    # A matplotlibrc of the user's must not show either.
    rc = tmp_path / "matplotlibrc"
    rc.write_text("font.size: 30\nsvg.hashsalt: other\n")
    subprocess.run(
        [sys.executable, "-c", code, tmp_path / "b"],
        check=True,
        env=os.environ | {"MATPLOTLIBRC": str(rc)},
    )
    assert (tmp_path / "b" / here.name).read_bytes() == here.read_bytes()
    assert b"<dc:date>" not in here.read_bytes()


def test_the_json_holds_exactly_what_was_drawn(tmp_path):
    loss = np.random.default_rng(0).normal(3, 1, 200).astype(np.float32)
    loss[:3] = [math.nan, math.inf, -math.inf]
    given = data(200, loss=loss, references={"bigram": 2.45}, resumed_at=[7])
    content = json.loads(
        draw_training_curves(given, tmp_path, step=200, settings=SVG_ONLY)[0].read_text()
    )
    line = content["lines"]["loss"]
    assert line["values"][:3] == ["NaN", "Infinity", "-Infinity"]
    assert line["values"][3:] == loss[3:].tolist()
    assert line["steps"] == list(range(1, 201))
    assert (line["points"], line["not_finite"]) == (200, 3)
    assert content["lines"]["loss_smooth"]["label"] == "train, median of 5 points"
    assert (content["name"], content["step"], content["unit"]) == ("run-a", 200, "nats/token")
    assert (content["references"], content["resumed_at"]) == ({"bigram": 2.45}, [7])


@pytest.mark.slow
def test_a_second_drawing_of_a_step_replaces_the_first(tmp_path):
    for name in ("first", "second"):
        files = draw_training_curves(data(name=name), tmp_path, step=20, settings=SVG_ONLY)
    assert json.loads(files[0].read_text())["name"] == "second"
    assert len(list(tmp_path.iterdir())) == 2


def test_no_formats_draw_nothing(tmp_path):
    settings = FigureSettings(formats=())
    assert draw_training_curves(data(), tmp_path / "x", step=1, settings=settings) == []
    assert not (tmp_path / "x").exists()


def test_without_matplotlib_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependency):
        draw_training_curves(data(), tmp_path, step=1, settings=SVG_ONLY)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    files = draw_training_curves(data(), tmp_path, step=20, settings=SVG_ONLY)
    before = files[0].read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        draw_training_curves(data(name="other"), tmp_path, step=20, settings=SVG_ONLY)
    assert files[0].read_bytes() == before
    assert sorted(tmp_path.iterdir()) == sorted(files)


WRITE_FOREVER = """
import sys, pathlib
from cupel.figures.files import _write_whole
path = pathlib.Path(sys.argv[1])
_write_whole(path, b"0" * 4_000_000)
print("ready", flush=True)
while True:
    for digit in b"123456789":
        _write_whole(path, bytes([digit]) * 4_000_000)
"""


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_a_whole_file(tmp_path):
    path = tmp_path / "figure.svg"
    for delay in (0.001, 0.005, 0.011, 0.017):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITE_FOREVER, path], stdout=subprocess.PIPE, text=True
        )
        with writer:
            assert writer.stdout.readline() == "ready\n"
            time.sleep(delay)
            writer.send_signal(signal.SIGKILL)
        content = path.read_bytes()
        assert len(content) == 4_000_000
        assert len(set(content)) == 1


def test_settings_are_checked_and_every_field_is_described():
    assert FigureSettings.model_validate({"formats": ["png"], "every": 50}).formats == ("png",)
    for wrong in ({"every": 0}, {"formats": ["jpg"]}, {"themes": []}, {"colour": 1}):
        with pytest.raises(ValidationError):
            FigureSettings.model_validate(wrong)
    assert all(field.description for field in FigureSettings.model_fields.values())
