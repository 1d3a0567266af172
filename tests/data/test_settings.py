"""The data section: what is refused before anything is read, and that a null means the default."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from cupel.data.settings import TextDataSettings


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
