"""Scikit-learn's handwritten digits: 1,797 images of 8 × 8, ten classes, nothing to download.

They are the test set of the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin and
Kaynak 1998), with pixels from 0 to 16; training and validation share them.
The file of the installed package is read directly. Importing scikit-learn for it would cost 1.5 CPU
seconds a run, more than a small training; the file takes five milliseconds.
"""

from __future__ import annotations

import gzip
import io
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from cupel.data.images import ImageSet, split
from cupel.data.settings import ImageDataSettings
from cupel.errors import DataError, MissingDependency

_FILE = "datasets/data/digits.csv.gz"
_SIDE, _BRIGHTEST, _CLASSES = 8, 16, 10


def load_digits(settings: ImageDataSettings) -> ImageSet:
    """The digits, split as the settings say.

    Raises MissingDependency without scikit-learn, DataError when its file is not what it was.
    """
    place = find_spec("sklearn")  # finds the package's folder, and imports nothing
    if place is None or not place.submodule_search_locations:
        raise MissingDependency("scikit-learn", extra="data", purpose="data.name=digits")
    path = Path(place.submodule_search_locations[0], _FILE)
    rows = _read(path)
    pixels = rows[:, :-1].reshape(-1, 1, _SIDE, _SIDE)
    labels = rows[:, -1].astype(np.int64)
    train, val, name = split(labels, settings)
    return ImageSet(settings.name, pixels, labels, _CLASSES, train, val, name)


def _read(path: Path) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """The file's rows: 64 pixels and a label."""
    advice = "install scikit-learn anew, with: pip install --force-reinstall scikit-learn"
    try:
        with gzip.open(path) as file:
            content = file.read() or b"0"  # of nothing at all, loadtxt would warn
        rows = np.loadtxt(io.BytesIO(content), delimiter=",", dtype=np.uint8, ndmin=2)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} cannot be read ({told}); {advice}") from error
    columns = _SIDE * _SIDE + 1
    if rows.shape[1] != columns or rows[:, :-1].max() > _BRIGHTEST or rows[:, -1].max() >= _CLASSES:
        raise DataError(
            f"{path} does not hold digits: expected rows of {columns} numbers, pixels up to "
            f"{_BRIGHTEST} and a label up to {_CLASSES - 1}; {advice}"
        )
    return rows
