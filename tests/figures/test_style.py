import subprocess
import sys

import matplotlib
import pytest

from cupel.errors import MissingDependency
from cupel.figures.style import THEMES, drawing


def _luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("name", THEMES)
@pytest.mark.parametrize(
    "role, least", [("text", 7), ("reference", 4.5), ("train", 3), ("validation", 3), ("bad", 3)]
)
def test_every_colour_stands_out_from_its_background(name, role, least):
    theme = THEMES[name]
    pair = sorted([_luminance(getattr(theme, role)), _luminance(theme.background)])
    assert (pair[1] + 0.05) / (pair[0] + 0.05) >= least


def test_the_users_matplotlib_settings_come_back_and_do_not_leak_in():
    with matplotlib.rc_context({"font.size": 31, "lines.marker": "x"}):
        with drawing("dark"):
            assert matplotlib.rcParams["font.size"] != 31
            assert matplotlib.rcParams["lines.marker"] == "None"
        assert matplotlib.rcParams["font.size"] == 31


def test_settings_come_back_after_a_failed_drawing():
    before = dict(matplotlib.rcParams)
    with pytest.raises(ZeroDivisionError), drawing("light"):
        raise ZeroDivisionError
    assert dict(matplotlib.rcParams) == before


def test_without_matplotlib_the_error_says_what_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with (
        pytest.raises(MissingDependency, match=r"pip install 'cupel\[analysis\]'"),
        drawing("light"),
    ):
        pass


@pytest.mark.slow
def test_settings_and_modules_import_neither_matplotlib_nor_torch():
    code = (
        "import cupel.figures.settings, cupel.figures.files, cupel.cli.curve, cupel.cli.progress\n"
        "import sys; sys.exit('matplotlib' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
