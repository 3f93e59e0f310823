"""What the chart's values say of JupyterHub: `hub.config`, `hub.extraConfig` and the environment of all workspaces."""

import json
from pathlib import Path

c = get_config()  # noqa: F821  (JupyterHub runs this file with it)

_given = json.loads(Path(__file__).with_name("values.json").read_text(encoding="utf-8"))

for _name, _traits in _given["config"].items():
    c[_name].update(_traits)

if _given["environment"]:
    c.Spawner.environment.update(_given["environment"])

# Named, so that an error tells which one it is in.
for _name, _code in sorted(_given["extraConfig"].items()):
    exec(compile(_code, f"hub.extraConfig.{_name}", "exec"))  # noqa: S102  (the operator's own configuration)
