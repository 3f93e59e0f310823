"""Configuration of a stock JupyterHub with DockerSpawner: `jupyterhub -f docker_spawner_config.py`."""

import json
import os

from tests.bench.peers.no_proxy import NoProxy

c = get_config()  # type: ignore[name-defined]  # noqa: F821  (JupyterHub puts it there)
c.JupyterHub.bind_url = f"http://127.0.0.1:{os.environ['BENCH_PUBLIC_PORT']}"
# The servers of the bench never call back.
c.JupyterHub.hub_ip = "127.0.0.1"
c.JupyterHub.hub_port = int(os.environ["BENCH_HUB_PORT"])
c.JupyterHub.db_url = "sqlite:///:memory:"
c.JupyterHub.authenticator_class = "dummy"
c.JupyterHub.log_level = "WARN"
c.JupyterHub.allow_named_servers = True
c.JupyterHub.cleanup_servers = True
c.JupyterHub.concurrent_spawn_limit = 0
c.Authenticator.allow_all = True
c.JupyterHub.services = [{"name": "bench", "api_token": os.environ["BENCH_TOKEN"]}]
c.JupyterHub.load_roles = [{"name": "bench", "services": ["bench"], "scopes": ["admin:users", "admin:servers"]}]
c.JupyterHub.spawner_class = "docker"
c.DockerSpawner.image = os.environ["BENCH_IMAGE"]
c.DockerSpawner.pull_policy = "never"
c.DockerSpawner.network_name = os.environ["BENCH_NETWORK"]
c.DockerSpawner.use_internal_ip = True
c.DockerSpawner.remove = True
c.DockerSpawner.name_template = os.environ["BENCH_PREFIX"] + "-{username}-{servername}"
c.DockerSpawner.extra_create_kwargs = {"labels": json.loads(os.environ["BENCH_LABELS"])}
c.Spawner.start_timeout = 300
c.Spawner.http_timeout = 300
if os.environ.get("BENCH_CHP"):
    c.ConfigurableHTTPProxy.command = [os.environ["BENCH_CHP"]]
    c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{os.environ['BENCH_PROXY_API_PORT']}"
else:
    c.JupyterHub.proxy_class = NoProxy
