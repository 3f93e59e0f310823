"""A registry of images that a Docker engine really pulls from; it can be slow, refuse, or not know an image.

On 127.0.0.1, where every engine trusts a registry without TLS.
"""

import asyncio
import base64
import contextlib
import gzip
import hashlib
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from tests.support.docker_engine import server_program

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CHUNK = 64 * 1024


class Registry:
    """Images by name; each push makes new ones of the tests' server, with layers that no engine has yet."""

    def __init__(self) -> None:
        self.address = ""
        self.refusal: int | None = None
        """Answer everything about images with this status: 401, 403."""
        self.login: str | None = None
        """`user:password` that everybody must know; None: nobody is asked."""
        self.pause = 0.0
        """Seconds before each piece of a layer."""
        self.open = asyncio.Event()
        """While it is clear, no piece of a layer is sent."""
        self.open.set()
        self.asked: Counter[str] = Counter()
        """How often each layer or manifest was asked for, by digest or `name:tag`."""
        self._blobs: dict[str, bytes] = {}
        self._manifests: dict[str, bytes] = {}

    def push(self, name: str = "server", *, tag: str = "latest", size: int = 200_000, **config: Any) -> str:
        """Have an image with two layers, the one of about `size` bytes; returns its full name."""
        files = [("server", server_program(), 0o755), ("ballast", os.urandom(size), 0o644)]
        layers = [_layer(*file) for file in files]
        settings = {"Cmd": ["/server"], "Env": ["PATH=/"]} | config
        described = {
            "architecture": "amd64",
            "os": "linux",
            "config": settings,
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer) for layer in layers]},
        }
        packed = [gzip.compress(layer, 1) for layer in layers]
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": self._keep(json.dumps(described).encode(), "application/vnd.docker.container.image.v1+json"),
            "layers": [self._keep(blob, "application/vnd.docker.image.rootfs.diff.tar.gzip") for blob in packed],
        }
        self._manifests[f"{name}:{tag}"] = json.dumps(manifest).encode()
        return f"{self.address}/{name}:{tag}"

    @property
    def layers_sent(self) -> int:
        """The most often that any layer was sent."""
        return max((count for what, count in self.asked.items() if what.startswith("sha256:")), default=0)

    def _keep(self, blob: bytes, kind: str) -> dict[str, Any]:
        self._blobs[_digest(blob)] = blob
        return {"mediaType": kind, "size": len(blob), "digest": _digest(blob)}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One request of an engine."""
        path = request.path.removeprefix("/v2/")
        if self.login is not None and request.headers.get("Authorization") != f"Basic {_base64(self.login)}":
            challenge = {"WWW-Authenticate": 'Basic realm="test"'}
            return web.json_response({"errors": [{"code": "UNAUTHORIZED"}]}, status=401, headers=challenge)
        if not path:
            return web.json_response({})
        if self.refusal is not None:
            code = {401: "UNAUTHORIZED", 403: "DENIED"}[self.refusal]
            body = {"errors": [{"code": code, "message": "requested access to the resource is denied"}]}
            return web.json_response(body, status=self.refusal)
        name, kind, reference = path.rsplit("/", 2)
        if kind == "manifests":
            return self._manifest(f"{name}:{reference}", reference)
        return await self._blob(request, reference)

    def _manifest(self, name: str, reference: str) -> web.Response:
        self.asked[name] += 1
        found = self._manifests.get(name) or next(
            (one for one in self._manifests.values() if _digest(one) == reference), None
        )
        if found is None:
            errors = [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]
            return web.json_response({"errors": errors}, status=404)
        return web.Response(body=found, content_type=_MANIFEST, headers={"Docker-Content-Digest": _digest(found)})

    async def _blob(self, request: web.Request, digest: str) -> web.StreamResponse:
        blob = self._blobs.get(digest)
        if blob is None:
            return web.json_response({"errors": [{"code": "BLOB_UNKNOWN", "message": "blob unknown"}]}, status=404)
        if request.method == "GET":
            self.asked[digest] += 1
        response = web.StreamResponse(headers={"Content-Length": str(len(blob))})
        await response.prepare(request)
        if request.method == "GET":
            for at in range(0, len(blob), _CHUNK):
                await asyncio.sleep(self.pause)
                await self.open.wait()
                await response.write(blob[at : at + _CHUNK])
        return response


@contextlib.asynccontextmanager
async def registry() -> AsyncIterator[Registry]:
    """A registry at work."""
    images = Registry()
    app = web.Application()
    app.router.add_route("*", "/v2/{path:.*}", images.answer)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert runner.addresses
    images.address = f"127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield images
    finally:
        await runner.cleanup()


def _layer(path: str, content: bytes, mode: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(path)
        entry.size, entry.mode = len(content), mode
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"
