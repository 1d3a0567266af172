"""The size of a ResNet: the rule for its widths, and what is refused before anything is built."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cupel.models.resnet.settings import ResNetModelSettings

widths = st.lists(st.integers(1, 200).map(lambda n: 8 * n), min_size=1, max_size=5)


@given(stages=widths)
@pytest.mark.slow
def test_without_a_multiplier_stages_are_as_wide_as_written(stages):
    assert ResNetModelSettings(stages=stages).widths == tuple(stages)


@given(stages=widths, multiplier=st.floats(0.01, 8))
def test_multiplied_widths_are_the_nearest_multiples_of_8_and_8_at_least(stages, multiplier):
    settings = ResNetModelSettings(stages=stages, width_multiplier=multiplier)
    for written, built in zip(stages, settings.widths, strict=True):
        assert built % 8 == 0
        assert built >= 8
        assert abs(built - written * multiplier) <= 4 or (built == 8 and written * multiplier < 8)


@pytest.mark.parametrize(
    "multiplier, expected",
    [
        (0.5, (32, 64, 128, 256)),
        (0.25, (16, 32, 64, 128)),
        (0.01, (8, 8, 8, 8)),
        # 64 · 0.1875 = 12 is as near to 8 as to 16, and goes up.
        (0.1875, (16, 24, 48, 96)),
    ],
)
def test_the_narrow_resnet_18_has_the_widths_of_the_formula(multiplier, expected):
    settings = ResNetModelSettings(stages=(64, 128, 256, 512), width_multiplier=multiplier)
    assert settings.widths == expected


def test_a_width_that_the_rule_would_change_is_refused_with_the_nearest():
    with pytest.raises(ValidationError, match="20 is not a multiple of 8; the nearest that is: 24"):
        ResNetModelSettings(stages=(16, 20))


@pytest.mark.parametrize(
    "wrong",
    [
        {"stages": ()},
        {"stages": (4,)},
        {"blocks": 0},
        {"norm": "layer"},
        {"width_multiplier": 0.0},
        {"channels_in": 0},
        {"classes": 1},
        {"depth": 18},
    ],
)
def test_out_of_range_and_unknown_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        ResNetModelSettings(**wrong)


def test_resolved_settings_validate_again():
    settings = ResNetModelSettings(stages=(64, 128), blocks=2, norm="none", classes=10)
    assert ResNetModelSettings(**settings.model_dump(mode="json")) == settings
