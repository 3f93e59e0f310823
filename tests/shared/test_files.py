"""Files that are made once."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from mlhub_shared.files import make_once


def test_those_that_make_a_file_together_come_to_have_the_same(tmp_path: Path) -> None:
    path, gate = tmp_path / "new" / "file", Barrier(8)

    def content() -> bytes:
        gate.wait(20)
        return os.urandom(16)

    def make() -> bytes:
        make_once(path, content)
        return path.read_bytes()

    with ThreadPoolExecutor(8) as pool:
        seen = {future.result() for future in [pool.submit(make) for _ in range(8)]}
    assert len(seen) == 1
    assert os.listdir(path.parent) == ["file"]
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_one_that_is_there_is_kept_and_a_failure_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(ZeroDivisionError):
        make_once(path, lambda: bytes(1 // 0))
    assert os.listdir(tmp_path) == []
    for content in (b"first", b"second"):
        make_once(path, lambda content=content: content)  # type: ignore[misc]
    assert path.read_bytes() == b"first"
