"""Which GPU is whose."""

import pytest

from mlhub_spawner_worker import gpus

TWO = ("0", "1")


@pytest.mark.parametrize(
    ("asked", "there", "meant", "is_there"),
    [
        (None, TWO, (), True),
        (None, (), (), True),
        ("all", TWO, TWO, True),
        ("all", (), (), False),
        ("1", TWO, ("1",), True),
        ("1,1,0", TWO, ("1", "0"), True),
        ("2", TWO, ("2",), False),
        ("0,2", TWO, ("0", "2"), False),
        ("0", (), ("0",), False),
        ("count:2", TWO, (), False),
    ],
)
def test_what_is_asked_for_on_a_node(asked: str | None, there: tuple[str, ...], meant: object, is_there: bool) -> None:
    assert gpus.ids(asked, there) == meant
    assert gpus.is_there(asked, there) is is_there


@pytest.mark.parametrize(("asked", "is_there"), [(None, True), ("count:2", True), ("all", False), ("0", False)])
def test_a_node_that_counts_its_gpus_has_any_number_and_none_by_its_id(asked: str | None, is_there: bool) -> None:
    assert gpus.is_there(asked, (), are_counted=True) is is_there


@pytest.mark.parametrize(
    ("held", "is_shared", "missing"),
    [
        ([], False, ()),
        ([(("0",), False)], False, ("0",)),
        ([(("0",), False)], True, ("0",)),
        ([(("0",), True)], False, ("0",)),
        ([(("0",), True)], True, ()),
        ([(("0",), True), (("0",), False)], True, ("0",)),
        ([(("0", "1"), False)], False, ("0", "1")),
        ([(("2",), False)], False, ()),
    ],
    ids=[
        "free",
        "taken",
        "somebody who shares gets no other's own",
        "and gives nothing to who wants it for himself",
        "both share",
        "not all share",
        "both taken",
        "another one taken",
    ],
)
def test_two_have_the_same_gpu_only_where_both_share(
    held: list[tuple[tuple[str, ...], bool]], is_shared: bool, missing: tuple[str, ...]
) -> None:
    assert gpus.missing(TWO, gpus.holders(held), is_shared=is_shared) == missing


def test_words() -> None:
    assert gpus.in_words(("0",)) == "GPU 0"
    assert gpus.in_words(("0", "2")) == "GPUs 0 and 2"
    assert gpus.in_words(("0", "1", "2")) == "GPUs 0, 1 and 2"
