"""What the chart's pages show, held against the chart and against what a worker takes for its own."""

import re
import shlex
import subprocess
import sys

import pytest
import yaml

from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_spawner_worker.backends.kubernetes import marks
from mlhub_spawner_worker.backends.restoring import workspace_of
from tests.support.helm import CHART, deploy
from tests.support.manifests.objects import K8S, Obj
from tests.support.manifests.schemas import VERSIONS, invalid

MOVING = (K8S / "MOVING.md").read_text()
README = (CHART / "README.md").read_text()


def blocks(page: str, language: str) -> list[str]:
    """The page's examples in that language."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", page, flags=re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


@pytest.fixture
def claim() -> Obj:
    """A volume that somebody has moved."""
    (text,) = blocks(MOVING, "yaml")
    made: Obj = yaml.safe_load(text)
    return made


def test_a_volume_moved_by_the_page_is_the_workspaces_own(claim: Obj) -> None:
    assert [problem for version in VERSIONS for problem in invalid([claim], version)] == []
    alice = WorkspaceId(hub="mlhub", user="alice", server="")
    assert claim["metadata"]["name"] == alice.name
    assert workspace_of(marks.carried(claim), "mlhub") == alice
    # As it is for a name that no label can have.
    del claim["metadata"]["labels"]["mlhub.user"]
    assert workspace_of(marks.carried(claim), "mlhub") == alice


@pytest.mark.parametrize("mark", ["mlhub.origin", "mlhub.workspace"])
def test_without_its_labels_it_is_a_strangers(claim: Obj, mark: str) -> None:
    del claim["metadata"]["labels"][mark]
    assert marks.carried(claim) == {}


def test_the_page_tells_the_name_of_a_workspace(claim: Obj) -> None:
    (block,) = [block for block in blocks(MOVING, "sh") if "WorkspaceId" in block]
    words = shlex.split(block.replace("\\\n", ""))
    command = [sys.executable, *words[words.index("python") + 1 :]]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == claim["metadata"]["name"]


def test_the_readmes_values_are_taken() -> None:
    (text,) = blocks(README, "yaml")
    assert [problem for version in VERSIONS for problem in invalid(deploy(yaml.safe_load(text)), version)] == []
