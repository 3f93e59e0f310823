"""What comes before the frontend of people: nothing, or what tells TLS, plain HTTP and SSH apart on one port."""

from collections.abc import Iterable, Mapping

from mlhub_proxy.neighbours import MOST_GATEWAYS
from mlhub_proxy.settings import ProxySettings
from mlhub_proxy.templates import filled, listen, networks, server

CERTIFICATE = "tls.pem"
"""The file with key and certificates that HAProxy starts with."""
CHALLENGES = "challenges.map"
"""Path and answer of what certificate authorities ask for."""

_FOR_OTHERS = 0.1
"""Share of all connections that people can't take: the frontends within the deployment have it for themselves."""
_UNFINISHED = 0.25
"""Share of all clients that one address may be with handshakes it has begun and not finished."""


def entrance(settings: ProxySettings, connections: int) -> Mapping[str, str]:
    """The values of the configuration's places that depend on TLS and SSH."""
    refused = settings.refused_networks
    values = {
        "public": listen(settings.public_host, settings.public_port),
        "guard": f"tcp-request connection reject if {{ src {networks(refused)} }}" if refused else "",
    }
    beside = {
        "scheme": "https" if settings.tls else "http",
        "trusted": _lines(_trusted(settings)),
        "gateway": _gateway(settings),
        "use_gateway": "",
    }
    if settings.tls:
        return {"entrance": filled("entrance-tls.cfg", {**values, **_tls(settings, connections)}), **beside}
    if settings.ssh_gateway is None:
        return {"entrance": filled("entrance-http.cfg", values), **beside}
    entrance = filled("entrance-http-ssh.cfg", values)
    return {"entrance": entrance, **beside, "use_gateway": "use_backend gateway unless HTTP"}


def _tls(settings: ProxySettings, connections: int) -> Mapping[str, str]:
    clients = int(connections * (1 - _FOR_OTHERS)) // 2
    has_ssh, hsts = settings.ssh_gateway is not None, settings.hsts_seconds
    return {
        "certificate": CERTIFICATE,
        "challenges": CHALLENGES,
        "clients": str(clients),
        "unfinished": str(max(10, int(clients * _UNFINISHED))),
        "accept_gateway": "tcp-request content accept unless tls" if has_ssh else "",
        "use_gateway": "use_backend gateway unless tls" if has_ssh else "",
        "hsts": f"http-after-response set-header Strict-Transport-Security max-age={hsts}" if hsts else "",
    }


def _trusted(settings: ProxySettings) -> Iterable[str]:
    if settings.trusted_proxies:
        address, scheme = "req.hdr_ip(X-Forwarded-For,-1)", "req.hdr(X-Forwarded-Proto,-1)"
        yield f"acl trusted src {networks(settings.trusted_proxies)}"
        yield f"http-request set-var(txn.client) {address} if trusted {{ {address} -m found }}"
        yield f"http-request set-var(txn.scheme) {scheme},lower if trusted {{ {scheme} -m str -i http https }}"


def _gateway(settings: ProxySettings) -> str:
    if settings.ssh_gateway is None:
        return ""
    host, port = settings.ssh_gateway
    return filled("gateway.cfg", {"servers": server("gateway", host, port, most=MOST_GATEWAYS)})


def _lines(lines: Iterable[str]) -> str:
    return "\n  ".join(lines)
