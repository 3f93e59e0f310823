"""What the pages tell operators: where they lead, what they name, and that their commands do what they say."""

import ast
import json
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from tests.support.manifests.objects import K8S, ROOT
from tests.support.postgres import postgres, postgres_folder
from tests.support.service_settings import SERVICES, known

PAGES = ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "k8s/README.md", "k8s/MOVING.md", "k8s/chart/README.md")
OPERATORS = (K8S / "README.md").read_text()
WORKER = ROOT / "services/spawner-worker/src/mlhub_spawner_worker"

OTHERS = {"MLHUB_SECRETS_DIR", "MLHUB_TEST_IMAGE", "MLHUB_TEST_KUBERNETES"}
"""Variables that are no field of a service's settings; those of compose stand in its files."""

KUBECTL = '''#!{python}
"""Does in a folder what it would do in a pod; takes what it is to apply into a file of that folder."""
import subprocess, sys
words, folder = sys.argv[1:], "{folder}"
if "exec" in words:
    command = words[words.index("--") + 1 :]
    there = [word.replace("/tmp/", folder + "/pod-").replace("/data/", folder + "/") for word in command]
    sys.exit(subprocess.run(there).returncode)
if "apply" in words:
    open(folder + "/applied.yaml", "a").write("---\\n" + sys.stdin.read())
elif "json" in words:
    print(open(folder + "/objects.json").read())
elif "get" in words:
    print("ws-ann-mlhub ws-ben-mlhub")
else:
    open(folder + "/calls", "a").write(" ".join(words) + "\\n")
'''

Run = Callable[..., None]


def blocks(page: str, heading: str) -> list[str]:
    """The commands below a heading."""
    section = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)


def anchors(page: str) -> set[str]:
    """Of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page, flags=re.DOTALL), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def sentences(folder: Path) -> Iterator[str]:
    """Whatever text stands in these modules, with `…` for what is filled in."""
    for file in folder.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text())
    broken = []
    for link in links:
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        if link.startswith("http"):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES)
def test_every_variable_is_one_that_somebody_reads(page: str) -> None:
    compose = "".join(
        (ROOT / file).read_text() for file in ("compose.yaml", "compose/hosts.yaml", "compose/worker.yaml")
    )
    read = {name for settings in SERVICES.values() for name in known(settings)} | OTHERS
    told = set(re.findall(r"MLHUB_[A-Z_]*[A-Z]", (ROOT / page).read_text()))
    assert {name for name in told - read if not re.search(rf"\b{name}\b", compose)} == set()


def test_the_readme_tells_every_variable_that_the_overlays_set() -> None:
    files = ("base/settings.env", "overlays/production/settings.env")
    given = {name for file in files for name in re.findall(r"^(\w+)=", (K8S / file).read_text(), re.MULTILINE)}
    told = set(re.findall(r"\w+", (ROOT / "README.md").read_text()))
    of_the_cluster = {
        "KUBECONFIG",
        "SERVICES_NAMESPACE",
        "UNREACHABLE_TIMEOUT",
        "OPEN_TO",
        "DNS",
        "CLOSED_TO",
        "REPLICA",
        "NODE",
    }
    given |= {f"MLHUB_SPAWNER_WORKER_{name}" for name in of_the_cluster} | {"MLHUB_HUB_COOKIE_SECRET"}
    assert given - told == set()


def test_it_is_sized_by_the_profile_that_is_there_at_first() -> None:
    (profile,) = yaml.safe_load((K8S / "base/profiles.yaml").read_text())["profiles"]
    kept, most = profile["kubernetes"], (profile["default_cpu"], profile["default_mem"].replace("G", " GB"))
    told = f"keeps {kept['cpu_request']} core and {kept['mem_request'].replace('M', ' MB')} free for each"
    assert told in OPERATORS
    assert "of the {} core and {} that it may use".format(*most) in OPERATORS


def test_every_message_is_one_that_people_are_shown() -> None:
    table = OPERATORS.partition("| message | what to do |\n")[2].partition("\n\n")[0]
    told = [text for row in table.splitlines()[1:] for text in re.findall(r"`([^`]+)`", row.split(" | ")[0])]
    shown = list(sentences(WORKER / "backends/kubernetes"))
    # What comes after a colon is the cluster's own.
    patterns = [".*".join(map(re.escape, text.partition(": …")[0].split("…"))) for text in told]
    assert len(patterns) > 15
    assert [wanted for wanted in patterns if not any(re.search(wanted, text, re.DOTALL) for text in shown)] == []


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Commands of the page, in a folder with a `kubectl` that stands for a cluster."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/kubectl"
    program.write_text(KUBECTL.format(python=sys.executable, folder=tmp_path))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    path = os.pathsep.join([str(tmp_path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])

    def run(script: str, **more: str) -> None:
        env = {**os.environ, **more, "PATH": path}
        subprocess.run(["bash", "-euc", script], cwd=tmp_path, env=env, timeout=60, check=True)

    return run


def backup(words: str) -> list[str]:
    return [block for block in blocks(OPERATORS, "Backup and restore") if words in block]


def test_sqlite_comes_back_as_it_was(tmp_path: Path, run: Run) -> None:
    save, restore = backup("hub.sqlite")
    with closing(sqlite3.connect(tmp_path / "jupyterhub.sqlite")) as database:
        database.execute("pragma journal_mode=wal")
        database.execute("create table people (name)")
        database.execute("insert into people values ('ann')")
        database.commit()
        run(save)
        database.execute("delete from people")
        database.commit()
        run(restore)
        assert database.execute("select name from people").fetchall() == [("ann",)]
    assert "rollout restart deployment/hub" in (tmp_path / "calls").read_text()


@pytest.mark.skipif(postgres_folder() is None, reason="needs PostgreSQL's server (Debian: postgresql)")
async def test_postgresql_comes_back_as_it_was(tmp_path: Path, run: Run) -> None:
    save, restore = backup("hub.dump")
    programs = postgres_folder()
    assert programs is not None
    async with postgres(programs) as server:
        await server.rows("CREATE TABLE people AS SELECT 'ann' AS name")
        run(save, DATABASE_URL=server.url)
        await server.rows("DELETE FROM people")
        await server.rows("CREATE TABLE later (name text)")
        run(restore, DATABASE_URL=server.url)
        assert await server.rows("SELECT name FROM people") == [("ann",)]


def test_snapshots_are_of_each_claim(tmp_path: Path, run: Run) -> None:
    (script,) = backup("VolumeSnapshot")
    run(script)
    made = list(filter(None, yaml.safe_load_all((tmp_path / "applied.yaml").read_text())))
    assert [one["spec"]["source"]["persistentVolumeClaimName"] for one in made] == ["ws-ann-mlhub", "ws-ben-mlhub"]
    assert len({one["metadata"]["name"] for one in made}) == 2


@pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq")
def test_what_is_kept_of_objects_can_be_applied_anew(tmp_path: Path, run: Run) -> None:
    (script,) = backup("secrets.json")
    kept = {"name": "a", "namespace": "b", "labels": {"mlhub.origin": "mlhub"}, "annotations": {"mlhub.user": "ann"}}
    bound = {"uid": "1", "resourceVersion": "2", "creationTimestamp": "x", "managedFields": [], "ownerReferences": []}
    # One that says this, and has no volume, is lost to Kubernetes.
    noted = kept | bound | {"annotations": {"mlhub.user": "ann", "pv.kubernetes.io/bind-completed": "yes"}}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    there = claim | {
        "metadata": noted,
        "spec": spec | {"volumeName": "pvc-0"},
        "status": {"phase": "Bound"},
        "data": {},
    }
    (tmp_path / "objects.json").write_text(json.dumps({"items": [there]}))
    run(script)
    (claimed,) = json.loads((tmp_path / "claims.json").read_text())["items"]
    assert claimed == claim | {"metadata": kept, "spec": spec}
    (secret,) = json.loads((tmp_path / "secrets.json").read_text())["items"]
    del kept["annotations"]
    assert secret == there | {"metadata": kept}
