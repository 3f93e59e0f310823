"""Stands for a workspace with a tool: becomes HAProxy, which answers on the workspace's own port and on the tool's.

Run by the worker as a program, with the standard library alone: `tool_workspace.py HAPROXY TOOL_PORT`.
"""

import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

_CONFIG = """\
global
  maxconn 1000
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend all
  bind {own}
  bind 127.0.0.1:{tool}
  http-request return status 200 content-type application/json hdr X-JupyterHub-Version 6.1.1 string {{}}
"""


def main() -> None:
    haproxy, tool = sys.argv[1:]
    config = Path("haproxy.cfg")
    config.write_text(_CONFIG.format(own=urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"]).netloc, tool=tool))
    os.execv(haproxy, [haproxy, "-db", "-f", str(config)])  # noqa: S606  (the worker knows this process)


if __name__ == "__main__":
    main()
