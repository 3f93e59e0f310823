"""What an auditor says of the gateway's port."""

import json
import sys
from pathlib import Path
from typing import Any

from tests.ssh_gateway.place import Place
from tests.support.openssh import execute

QUANTUM = ["does not provide protection against post-quantum attacks"]
"""What clients as old as OpenSSH 9.2 cost: they know no other exchange of keys that we have."""


async def test_an_auditor_finds_nothing_but_what_older_clients_need(place: Place) -> None:
    auditor = Path(sys.executable).with_name("ssh-audit")
    ran = await execute(str(auditor), "--json", "-p", str(place.settings.listen_port), "127.0.0.1")
    found: dict[str, Any] = json.loads(ran.stdout)
    notes = {entry["algorithm"]: entry["notes"] for kind in ("kex", "key", "enc", "mac") for entry in found[kind]}
    assert not [name for name, note in notes.items() if "fail" in note]
    assert {name: note["warn"] for name, note in notes.items() if "warn" in note} == {
        "curve25519-sha256": QUANTUM,
        "curve25519-sha256@libssh.org": QUANTUM,
    }
    assert found["cves"] == []
    # Among them: that one address may have many connections in no time.
    assert found["additional_notes"] == []
