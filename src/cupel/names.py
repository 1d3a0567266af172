"""Which names may become folders of ours: one rule, for recipes, for the record and for `init`.

Standard library only, since the record may not know how recipes are validated.
"""

from __future__ import annotations

import re

STUDIES = "studies"  # beside a project's runs, and no run itself
_FITS = re.compile(r"[^./\\\x00-\x1f\x7f\ud800-\udfff][^/\\\x00-\x1f\x7f\ud800-\udfff]*")


def refusal(name: str) -> str | None:
    """Why a name cannot be that of a run, a recipe or a project; None when it can."""
    if _FITS.fullmatch(name) and len(name.encode()) <= 120 and name != STUDIES:
        return None
    return f"it must be 1 to 120 bytes without '/', '\\' or a leading dot, and not '{STUDIES}'"
