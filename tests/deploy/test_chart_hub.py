"""A real hub with what the chart makes of zero-to-jupyterhub's values."""

from pathlib import Path
from typing import Any

import yaml

from tests.hub.conftest import make_stage
from tests.hub.web import WebSession
from tests.support.helm import render
from tests.support.manifests.objects import find

VALUES: dict[str, Any] = yaml.safe_load(
    """
    hub:
      config:
        JupyterHub: {authenticator_class: dummy}
        DummyAuthenticator: {password: a-shared-secret-password}
        Authenticator: {admin_users: [ada], allowed_users: [bob]}
      namedServerLimitPerUser: 1
      extraConfig:
        mine: |
          c.JupyterHub.services.append({"name": "mine", "api_token": "the-token-of-my-own-service"})
      templateVars: {announcement: Closed on Monday}
    singleuser:
      image: {name: quay.io/jupyter/minimal-notebook, tag: "2025-01-01"}
      defaultUrl: /tree
      memory: {limit: 1G}
      extraEnv: {EDITOR: vim, JUPYTERHUB_SINGLEUSER_APP: jupyter_server.serverapp.ServerApp}
    """
)


async def test_a_hub_runs_with_values_of_zero_to_jupyterhub(tmp_path: Path) -> None:
    objects = render(VALUES)
    profiles = tmp_path / "profiles.yaml"
    profiles.write_text(find(objects, "ConfigMap", "profiles")["data"]["profiles.yaml"])
    for name, text in find(objects, "Secret", "hub-config")["stringData"].items():
        (tmp_path / name).write_text(text)
    environment = {
        "MLHUB_HUB_BACKEND": "kubernetes",
        "MLHUB_PROFILES_FILE": str(profiles),
        "MLHUB_HUB_USER_CONFIG": str(tmp_path / "jupyterhub_user_config.py"),
    }
    async for stage in make_stage(tmp_path / "stage", **environment):
        stranger, ada, bob = (WebSession(stage.hub.url) for _ in range(3))
        assert (await stranger.login("eve", "a-shared-secret-password")).status_code == 403
        assert (await bob.login("bob", "another password")).status_code == 403
        assert (await bob.login("bob", "a-shared-secret-password")).status_code == 302
        assert (await bob.get("admin")).status_code == 403
        assert (await ada.login("ada", "a-shared-secret-password")).status_code == 302
        assert (await ada.get("admin")).status_code == 200
        assert "Closed on Monday" in (await bob.get("home")).text
        assert (await bob.post("new-workspace", name="one")).status_code == 302
        await stage.until_ready("bob", "one")
        assert (await bob.post("new-workspace", name="two")).status_code >= 400
        record, secrets = (await stage.worker.record("ws-bob-test-one"), await stage.bus.secrets.get("ws-bob-test-one"))
        assert record is not None
        assert secrets is not None
        assert (record.spec.image, record.spec.mem_limit) == ("quay.io/jupyter/minimal-notebook:2025-01-01", 1024**3)
        env = secrets.value.env
        assert (env["EDITOR"], env["JUPYTERHUB_DEFAULT_URL"]) == ("vim", "/tree")
        assert env["JUPYTERHUB_SINGLEUSER_APP"] == "jupyter_server.serverapp.ServerApp"
        for session in (stranger, ada, bob):
            await session.close()
