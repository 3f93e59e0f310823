"""Puts a worker together; the one place that knows concrete backends."""

import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

from mlhub_shared.runtime.service import Runtime
from mlhub_spawner_worker.attach import AttachServer
from mlhub_spawner_worker.backends.base import Backend
from mlhub_spawner_worker.ports import WorkspacePorts
from mlhub_spawner_worker.probe import HttpProbe, Probe
from mlhub_spawner_worker.relays import ProxyAddresses, Relays
from mlhub_spawner_worker.settings import SpawnerWorkerSettings, own_environment
from mlhub_spawner_worker.worker import Worker


def make_backend(settings: SpawnerWorkerSettings) -> Backend:
    """The backend that the settings name, not open yet; the client libraries of the others are never loaded."""
    match settings.backend:
        case "docker":
            return _docker(settings)
        case "kubernetes":
            return _kubernetes(settings)
        case _:
            return _process(settings)


def _process(settings: SpawnerWorkerSettings) -> Backend:
    from mlhub_spawner_worker.backends.process import ProcessBackend, ProcessSettings

    return ProcessBackend(
        ProcessSettings(
            data_dir=settings.data_dir,
            command=settings.arguments(),
            environment=own_environment(),
            passed=settings.passed_names(),
            max_log_bytes=settings.max_log_bytes,
        )
    )


def _docker(settings: SpawnerWorkerSettings) -> Backend:
    from mlhub_spawner_worker.backends.docker import DockerBackend, DockerSettings, ReachSettings

    return DockerBackend(
        DockerSettings(
            hub=settings.hub_name,
            data_dir=settings.data_dir,
            engine_url=settings.docker_url,
            cert_dir=settings.docker_cert_path,
            profiles=settings.policy(images_allowed=True, gpus_allowed=True).profiles,
            pull=settings.pull,
            registry_logins=settings.registry_logins,
            engine_calls=settings.engine_calls,
            gpus=settings.gpus,
            keep_volumes=timedelta(days=settings.keep_volumes_days),
            max_log_bytes=settings.max_log_bytes,
            reach=ReachSettings(
                reach=settings.reach,
                network_pool=settings.network_pool,
                network_size=settings.network_size,
                firewall=settings.firewall,
                firewall_image=settings.firewall_image,
                api_port=settings.api_port,
                publish_address=settings.publish_address,
                publish_to=_parts(settings.publish_to),
                proxy_address=settings.proxy_address,
                closed_to=_parts(settings.closed_to),
            ),
        )
    )


def _kubernetes(settings: SpawnerWorkerSettings) -> Backend:
    from mlhub_spawner_worker.backends.kubernetes import KubernetesBackend, KubernetesSettings

    policy = settings.policy(images_allowed=True, gpus_allowed=True, gpus_counted=True)
    return KubernetesBackend(
        KubernetesSettings(
            hub=settings.hub_name,
            profiles=policy.profiles,
            kubeconfig=settings.kubeconfig,
            namespace=settings.namespace,
            services_namespace=settings.services_namespace,
            api_port=settings.api_port,
            pull=settings.pull,
            stop_grace=settings.stop_grace,
            prepare_timeout=settings.prepare_timeout,
            unreachable=settings.unreachable_timeout,
            keep_volumes=timedelta(days=settings.keep_volumes_days),
            open_to=_parts(settings.open_to),
            closed_to=_parts(settings.closed_to),
            dns=_parts(settings.dns),
        )
    )


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


@contextlib.asynccontextmanager
async def running_worker(
    runtime: Runtime,
    settings: SpawnerWorkerSettings,
    *,
    backend: Backend | None = None,
    probe: Probe | None = None,
) -> AsyncIterator[Worker]:
    """A worker at work; backend and probe are those of the settings unless others are given."""
    backend = backend or make_backend(settings)
    async with contextlib.AsyncExitStack() as stack:
        await backend.open()
        stack.push_async_callback(backend.aclose)
        attach = await stack.enter_async_context(_attach_server(settings, backend))
        if probe is None:
            probe = await stack.enter_async_context(HttpProbe.open(settings.probe_url))
        ports = WorkspacePorts(backend, _relays(settings, backend))
        stack.push_async_callback(ports.aclose)
        worker = Worker(runtime, settings, backend, probe=probe, ports=ports, attach=attach.address)
        stack.push_async_callback(worker.aclose)
        await worker.start()
        yield worker


def _relays(settings: SpawnerWorkerSettings, backend: Backend) -> Relays:
    proxy = ProxyAddresses(settings.probe_url, _parts(settings.publish_to))
    return Relays(settings.attach_host, proxy, backend.wait)


def _attach_server(settings: SpawnerWorkerSettings, backend: Backend) -> AttachServer:
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    return AttachServer(
        host=settings.attach_host,
        port=settings.attach_port,
        host_key_file=settings.attach_host_key_file or settings.data_dir / "attach_host_key",
        gateway_public_key=settings.gateway_public_key,
        enter=backend.session,
    )
