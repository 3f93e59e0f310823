"""Sizes as people write them."""

import re
from typing import Annotated

from pydantic import BeforeValidator, PositiveInt

# ASCII: there are digits and a K beyond it that nothing here counts with.
_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", re.IGNORECASE | re.ASCII)
_FACTORS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_MAX_BYTES = 2**60


def parse_bytes(value: object) -> int:
    """Bytes of `2G`, `512M`, `1.5GiB` or of a bare number of GB; ValueError otherwise, and above 1 EiB."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        number, unit = max(-1, min(value, _MAX_BYTES)), "G"
    else:
        match = _BYTES.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None:
            raise ValueError("must be a size such as 2G or 512M")
        number, unit = float(match[1]), match[2].upper() or "G"
    size = number * _FACTORS[unit]
    if not size <= _MAX_BYTES:
        raise ValueError("is larger than any machine")
    return int(size)


def _size(value: object) -> int | None:
    return None if value in (None, "") else parse_bytes(value)


Size = Annotated[PositiveInt | None, BeforeValidator(_size)]
"""Bytes, read from what `parse_bytes` takes; None for nothing."""


def size_in_words(size: float) -> str:
    """`512 MiB`, `1.5 GiB`: in the largest unit it fills, to four figures."""
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            return f"{size:.4g} {unit}"
        size /= 1024
    raise AssertionError
