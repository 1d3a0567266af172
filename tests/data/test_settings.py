"""The data section: what is refused before anything is read, and that a null means the default."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from cupel.data.settings import ImageDataSettings, TextDataSettings


def test_defaults_need_no_file_and_no_tokenizer():
    settings = TextDataSettings()
    assert (settings.path, settings.tokens, settings.max_bytes) == (None, "byte", None)


def test_a_vocabulary_that_byte_tokens_would_ignore_is_refused():
    with pytest.raises(ValidationError, match="vocabulary is 1000, but byte tokens are always 256"):
        TextDataSettings(vocabulary=1000)
    assert TextDataSettings(tokens="bpe", vocabulary=1000).vocabulary == 1000


def test_resolved_settings_validate_again():
    settings = TextDataSettings(path="a.txt", max_bytes=10)
    assert TextDataSettings(**settings.model_dump()) == settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"tokens": "word"},
        {"val_fraction": 0.0},
        {"val_fraction": 1.0},
        {"max_bytes": 0},
        {"tokens": "bpe", "vocabulary": 256},
        {"tokens": "bpe", "vocabulary": 65537},
        {"file": "a.txt"},
    ],
)
def test_out_of_range_and_unknown_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        TextDataSettings(**wrong)


# ---- images ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong, told",
    [
        ({"fold": 2}, "fold is 2, but there are no folds; set folds: 5, or leave fold out"),
        ({"fold": 7}, "fold is 7, but there are no folds; set folds: 8"),
        ({"folds": 5}, r"folds is 5, but no fold is chosen; set fold: 0 \(to 4\), or leave"),
        ({"folds": 5, "fold": 5}, "fold is 5, but the 5 folds are 0 to 4"),
    ],
)
def test_a_fold_without_folds_and_folds_without_one_are_refused(wrong, told):
    with pytest.raises(ValidationError, match=told):
        ImageDataSettings(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"folds": 1, "fold": 0},
        {"folds": 5, "fold": -1},
        {"name": "mnist"},
        {"augment": "flip"},
        {"path": "images"},
    ],
)
def test_out_of_range_and_unknown_settings_of_images_are_refused(wrong):
    with pytest.raises(ValidationError):
        ImageDataSettings(**wrong)


def test_resolved_settings_of_images_validate_again():
    settings = ImageDataSettings(folds=5, fold=4)
    assert ImageDataSettings(**settings.model_dump()) == settings
