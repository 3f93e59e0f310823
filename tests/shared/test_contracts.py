"""What goes over the wire is what the golden files say; what went over it once can still be read."""

import inspect
import json
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from mlhub_shared.contracts.commands import Command, decode_command, next_generation
from mlhub_shared.contracts.message import Message
from mlhub_shared.contracts.workspace import Phase, queue_positions
from tests.shared.golden import FOLDER, MODULES, SAMPLES, VOCABULARIES, text, versions, vocabulary
from tests.support.makers import record, spawn

FILES = sorted(path for path in FOLDER.glob("*.json") if not path.name.startswith("vocabulary"))
HOW = "run `python -m tests.shared.update_golden` if the change is meant, and keep the old file"


def golden(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(versions(name)[-1].read_text())
    return found


@pytest.mark.parametrize("name", SAMPLES)
def test_a_message_is_written_as_its_golden_file_says(name: str) -> None:
    assert text(SAMPLES[name].written()) == versions(name)[-1].read_text(), HOW


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_golden_file_is_read_without_losing_anything(path: Path) -> None:
    sample = SAMPLES[path.name.rsplit(".", 2)[0]]
    assert contains(json.loads(sample.read(path.read_bytes()).model_dump_json()), json.loads(path.read_text()))


@pytest.mark.parametrize("name", SAMPLES)
def test_a_field_of_a_newer_version_is_no_obstacle(name: str) -> None:
    newer = with_news(golden(name))
    assert SAMPLES[name].read(json.dumps(newer).encode()) == SAMPLES[name].value


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_sets_every_field(name: str) -> None:
    unset = [
        field
        for field in type(SAMPLES[name].value).model_fields
        if field not in SAMPLES[name].value.model_fields_set and field not in {"kind", "answer", "failure"}
    ]
    assert unset == []


def test_every_message_has_a_sample() -> None:
    sampled = {type(sample.value) for sample in SAMPLES.values()}
    nested = {annotation for model in sampled for annotation in models_in(model)}
    public = {
        model
        for module in MODULES
        for _, model in inspect.getmembers(module, inspect.isclass)
        if issubclass(model, BaseModel)
        and model.__module__ == module.__name__
        and model.__name__.isidentifier()
        and not model.__name__.startswith("_")
    }
    assert public - sampled - nested - {Message} == set()


def test_no_word_has_gone() -> None:
    for path in versions("vocabulary"):
        for name, words in json.loads(path.read_text()).items():
            assert set(words) <= set(VOCABULARIES[name])
    assert text(vocabulary()) == versions("vocabulary")[-1].read_text(), HOW


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{}", b"\xff", b'{"kind": "restart"}', b'{"kind": "stop"}'])
def test_what_is_no_command_is_refused(data: bytes) -> None:
    with pytest.raises(ValidationError):
        decode_command(data)


@pytest.mark.parametrize("field", ["generation", "workspace", "requester"])
def test_a_command_without_what_it_needs_is_refused(field: str) -> None:
    content = golden("spawn")
    del content[field]
    with pytest.raises(ValidationError):
        decode_command(json.dumps(content).encode())


def test_every_kind_of_command_says_what_it_wants() -> None:
    kinds = get_args(get_args(Command)[0])
    commands = [decode_command(json.dumps(golden(name)).encode()) for name in ("spawn", "stop", "delete")]
    assert {type(command) for command in commands} == set(kinds)
    assert len({command.wanted for command in commands}) == 3


def test_messages_have_ids_of_their_own() -> None:
    one, other = spawn(), spawn()
    assert one.id != other.id
    assert one.correlation_id != other.correlation_id
    assert one.at.tzinfo is not None


def test_generations_always_grow() -> None:
    assert next_generation(100, 5) == 100
    assert next_generation(100, 100) == 101
    assert next_generation(100, 500) == 501


def test_places_in_line_are_counted_by_pool() -> None:
    queued = [
        record("a", phase=Phase.QUEUED, sequence=9),
        record("b", phase=Phase.QUEUED, sequence=3),
        record("c", phase=Phase.READY, sequence=1),
        record("d", phase=Phase.QUEUED, sequence=1, pool="gpu"),
        record("e", phase=Phase.QUEUED, sequence=3),
    ]
    positions = {name.split("-")[1]: place for name, place in queue_positions(queued).items()}
    assert positions == {"b": 1, "e": 2, "a": 3, "d": 1}


def contains(whole: Any, part: Any) -> bool:
    """Whether all of a document is found again in a larger one."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and contains(whole[key], part[key]) for key in part)
    return bool(whole == part)


def with_news(content: dict[str, Any]) -> dict[str, Any]:
    """The same from a newer version, which knows more on every level that is a message or a model."""
    free = {"detail", "env", "secret_env", "workspaces", "data", "answer", "labels"}
    return {
        key: with_news(value) if isinstance(value, dict) and key not in free else value
        for key, value in content.items()
    } | {"of_a_newer_version": {"x": 1}}


def models_in(annotation: Any) -> set[type[BaseModel]]:
    """Every model that a model's fields are made of."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        fields = [field.annotation for field in annotation.model_fields.values()]
        return {annotation}.union(*(models_in(field) for field in fields))
    return set().union(*(models_in(part) for part in get_args(annotation)))
