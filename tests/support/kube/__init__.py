"""A stateful Kubernetes API server with one node, for tests: the rules of a real one, in this process.

    async with FakeCluster.open(namespace="mlhub-workspaces") as cluster:
        path = cluster.kubeconfig(tmp_path / "config", token=cluster.token(rules))   # rules as in a Role; None: all
        cluster.kubelet.script("some-pod", Script(unschedulable="0/1 nodes are available: 1 Insufficient cpu."))
        ...
        cluster.kubelet.release("some-pod")
        assert cluster.get("pods", "some-pod")["status"]["phase"] == "Running"

What a cluster offers:

- `url`, `namespace`, `token(rules, name=…)`, `kubeconfig(path, token)`.
- `objects(plural, namespace="")`, `get(plural, name)`, `create(plural, obj)`, `delete(plural, name)`: past all rights.
  Objects are as stored, without `kind` and `apiVersion`; never change them.
- `writes`, `reads`: Counter by (verb, resource); `requests`: every one with verb, resource, name, user and status.
- `kubelet`: `program`, `images`, `pulled`, `root_images`, `timing`, `script(name or predicate, Script)`,
  `release(name)`, `kill(name, code, signal=…, oom=…)`, `evict(name, message)`, `lose_node()`, `bring_back_node()`,
  `room(cpu=…)`, `scheduler.labels` and `.taints`, `binds_volumes`, `home(name)`.
- `faults`: `cut_watches`, `expire_watches`, `compact`, `silence`, `speak`, `busy`, `broken`, `middle_box`, `quota`,
  `answer`, `away(seconds, forbidden=…)`, `leave`, `come_back`, `delay`, `revoke(verb, resource)`, `grant`, `clear`.
- `quota(pods="1")`, `limit_range(max=…)`, `enforce("restricted")`, `add_namespace`, `remove_namespace`.
- `collector.is_on`, `collector.delay`.

A pod's first container is a real process of this machine (`kubelet.program` stands for every image's entry point, its
own `command` replaces it), at an address of its own in 127/8 that the pod has as its podIP; see sandbox.py for how its
paths, HOME and working directory are mapped. With `processes=False` nothing runs, and pods are as the scripts say.
"""

from tests.support.kube.cluster import FakeCluster
from tests.support.kube.scripts import NO_ANSWER, NOT_FOUND, UNAUTHORIZED, Script, Timing

__all__ = ["NOT_FOUND", "NO_ANSWER", "UNAUTHORIZED", "FakeCluster", "Script", "Timing"]
