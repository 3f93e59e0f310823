"""What a schema of the chart's values must say of profiles: what the services' own models take."""

from typing import Any

from mlhub_shared.contracts.policy import Profile

Schema = dict[str, Any]


def profile_definitions() -> dict[str, Schema]:
    """`$defs` of a profile and its parts, by the models' names."""
    whole = Profile.model_json_schema()
    parts = whole.pop("$defs")
    return {name: _plain(schema) for name, schema in {"Profile": whole, **parts}.items()}


def _plain(schema: Schema) -> Schema:
    """Without what only describes, and as strict and as short as the rest of the chart's schema."""
    found = {key: value for key, value in schema.items() if key not in {"title", "description", "default"}}
    for key in ("properties", "patternProperties"):
        if key in found:
            found[key] = {name: _plain(inner) for name, inner in found[key].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(found.get(key), dict):
            found[key] = _plain(found[key])
    if "patternProperties" in found:
        # The model refuses other keys.
        found["additionalProperties"] = False
    # Helm would else tell of each alternative why it is none.
    return _merged([_plain(each) for each in found["anyOf"]]) if "anyOf" in found else found


def _merged(alternatives: list[Schema]) -> Schema:
    """One schema for values of any of these types."""
    found: Schema = {"type": [each["type"] for each in alternatives]}
    for each in alternatives:
        found |= {key: value for key, value in each.items() if key != "type"}
    if "enum" in found:
        found["enum"] = [*found["enum"], None]
    return found
