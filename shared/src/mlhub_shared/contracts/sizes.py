"""Sizes as people write them."""

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, PositiveInt

# ASCII: there are digits and a K beyond it that nothing here counts with.
_BYTES = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGTkmgt]?)[Ii]?[Bb]?", re.ASCII)
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


_Written = float | Annotated[str, Field(pattern=rf"^({_BYTES.pattern})?$")] | None
"""What a schema says of it, which sees nothing of how it is read."""
Size = Annotated[PositiveInt | None, BeforeValidator(_size, json_schema_input_type=_Written)]
"""Bytes, read from what `parse_bytes` takes; None for nothing."""


def size_in_words(size: float) -> str:
    """`512 MiB`, `1.5 GiB`: in the largest unit it fills, to four figures."""
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            return f"{size:.4g} {unit}"
        size /= 1024
    raise AssertionError
