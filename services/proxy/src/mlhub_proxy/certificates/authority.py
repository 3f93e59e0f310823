"""Asks a certificate authority by ACME; the one place that knows its library, which blocks."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import requests
from acme import challenges, crypto_util, errors, messages
from acme.client import ClientNetwork, ClientV2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from josepy.errors import Error as JoseError
from josepy.jwa import ES256
from josepy.jwk import JWK, JWKEC

from mlhub_shared.errors import Temporary

T = TypeVar("T")

Publish = Callable[[Mapping[str, str]], Awaitable[None]]
"""Makes every replica answer so at these paths."""

_REQUEST = 10
"""Seconds for one request."""
_POLL = timedelta(seconds=5)
"""For one round of polls; a thread that polls can't be stopped sooner."""
_ORDER = 120.0
"""Seconds for all of an order."""


@dataclass(frozen=True)
class Authority:
    """A certificate authority, by its directory."""

    directory: str
    ca_file: Path | None
    email: str | None

    async def order(self, domains: Sequence[str], account_key: str, publish: Publish) -> str:
        """Key and certificates for these names, as PEM; Temporary if the authority gives none."""
        try:
            async with asyncio.timeout(_ORDER):
                return await self._order(domains, account_key, publish)
        except TimeoutError as error:
            raise Temporary(f"{self.directory} did not come to an end in time") from error
        except (errors.Error, JoseError, messages.Error, requests.RequestException, ValueError) as error:
            raise Temporary(f"{self.directory}: {error or type(error).__name__}") from error

    async def _order(self, domains: Sequence[str], account_key: str, publish: Publish) -> str:
        client, key = await asyncio.to_thread(self._log_in, account_key)
        server_key = new_key()
        request = crypto_util.make_csr(server_key.encode(), list(domains))
        order = await asyncio.to_thread(client.new_order, request)
        asked = _challenges(order)
        answers = {challenge: challenge.chall.response_and_validation(key) for challenge in asked}
        await publish({challenge.chall.path: text for challenge, (_, text) in answers.items()})
        for challenge, (response, _) in answers.items():
            await asyncio.to_thread(client.answer_challenge, challenge, response)
        order = await _poll(lambda until: client.poll_authorizations(order, until))
        order = await asyncio.to_thread(client.begin_finalization, order)
        order = await _poll(lambda until: client.poll_finalization(order, until))
        return server_key + order.fullchain_pem

    def _log_in(self, account_key: str) -> tuple[ClientV2, JWK]:
        key = JWKEC(key=load_pem_private_key(account_key.encode(), None))
        trusted = str(self.ca_file) if self.ca_file else True
        net = ClientNetwork(
            key,
            alg=ES256,
            user_agent="ML Hub",
            verify_ssl=trusted,  # type: ignore[arg-type]  # handed to requests, which takes a path as well
            timeout=_REQUEST,
        )
        client = ClientV2(ClientV2.get_directory(self.directory, net), net)
        account = messages.NewRegistration.from_data(email=self.email, terms_of_service_agreed=True)
        try:
            client.new_account(account)
        except errors.ConflictError as known:
            net.account = messages.RegistrationResource(uri=known.location, body=messages.Registration())
        return client, key


def new_key() -> str:
    """A private key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _challenges(order: messages.OrderResource) -> list[messages.ChallengeBody]:
    """Those to be answered over HTTP; an authority remembers names that it has asked us for not long ago."""
    found = []
    for authorization in order.authorizations:
        if authorization.body.status == messages.STATUS_VALID:
            continue
        over_http = [each for each in authorization.body.challenges if isinstance(each.chall, challenges.HTTP01)]
        if not over_http:
            raise Temporary(
                f"the authority asks for {authorization.body.identifier.value} in no way that we can answer"
            )
        found.append(over_http[0])
    return found


async def _poll(ask: Callable[[datetime], T]) -> T:
    while True:
        # The library compares with the clock on the wall, without a zone.
        until = datetime.now() + _POLL  # noqa: DTZ005
        try:
            return await asyncio.to_thread(ask, until)
        except errors.TimeoutError:
            continue
