"""The digits are scikit-learn's, read without it; a file that is not them is refused in a line."""

from __future__ import annotations

import gzip
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from cupel.data.digits import load_digits
from cupel.data.settings import ImageDataSettings
from cupel.errors import DataError, MissingDependency

ROW = ",".join(["0"] * 64)


@pytest.mark.slow
def test_images_and_labels_are_those_that_scikit_learn_loads():
    from sklearn import datasets

    theirs, ours = datasets.load_digits(), load_digits(ImageDataSettings())
    assert np.array_equal(ours.pixels[:, 0], theirs.images)
    assert np.array_equal(ours.labels, theirs.target)


@pytest.mark.slow
def test_the_file_is_read_without_importing_scikit_learn():
    code = (
        "import sys; from cupel.data.digits import load_digits\n"
        "from cupel.data.settings import ImageDataSettings\n"
        "assert len(load_digits(ImageDataSettings()).labels) == 1797\n"
        "assert not {'sklearn', 'scipy', 'pandas', 'torch'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_the_digits_and_their_fixed_split_never_change():
    images = load_digits(ImageDataSettings())
    # Frozen: whoever changes this hash changes every run that was ever made.
    assert images.sha256 == "6586db263039bc30de470e55f62cfd2bae7c81fd40210cd62e05e1d9bbd359bf"
    assert (images.channels, images.classes) == (1, 10)
    assert (len(images.train), len(images.val)) == (1437, 360)
    described = images.describe()
    assert described["images"] == {"train": 1437, "val": 360}
    assert described["shape"] == [1, 8, 8]
    # The mean of all 1,797 is 4.884 and their deviation 6.017; a fifth is left out here.
    assert described["mean"][0] == pytest.approx(4.884, abs=0.03)
    assert described["std"][0] == pytest.approx(6.017, abs=0.03)


def test_every_fold_has_its_own_hash_and_a_fair_share_of_every_digit():
    folds = [load_digits(ImageDataSettings(folds=4, fold=fold)) for fold in range(4)]
    hashes = {one.sha256 for one in (*folds, load_digits(ImageDataSettings()))}
    assert len(hashes) == 5
    for one in folds:
        counts = np.bincount(one.labels[one.val], minlength=10)
        assert np.all(np.abs(counts - np.bincount(one.labels) / 4) < 1)


def test_without_scikit_learn_the_command_that_installs_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingDependency, match=r"scikit-learn.*pip install 'cupel\[data\]'"):
        load_digits(ImageDataSettings())


packed = partial(gzip.compress, mtime=0)  # the same bytes, and names of tests, in every process


@pytest.mark.parametrize(
    "content, told",
    [
        (None, "cannot be read"),
        (b"", "does not hold digits"),
        (b"1,2,3\n", "cannot be read"),
        (packed(f"{ROW},3\n".encode() * 20)[:-9], "cannot be read"),
        (packed(b"1,2,x\n"), "cannot be read"),
        (packed(b""), "does not hold digits"),
        (packed(b"1,2,3\n"), "does not hold digits"),
        (packed(f"{ROW},10\n".encode()), "does not hold digits"),
        (packed(f"17,{ROW}\n".encode()), "does not hold digits"),
        (packed(f"300,{ROW}\n".encode()), "cannot be read"),
        (packed(f"-1,{ROW}\n".encode()), "cannot be read"),
        (packed("é\n".encode("latin-1")), "cannot be read"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line_with_what_to_type(
    content: bytes | None, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "sklearn" / "datasets" / "data" / "digits.csv.gz"
    place.parent.mkdir(parents=True)
    (tmp_path / "sklearn" / "__init__.py").write_text("")
    if content is not None:
        place.write_bytes(content)
    monkeypatch.delitem(sys.modules, "sklearn", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match=told) as caught:
        load_digits(ImageDataSettings())
    assert str(place) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "pip install --force-reinstall scikit-learn" in str(caught.value)
