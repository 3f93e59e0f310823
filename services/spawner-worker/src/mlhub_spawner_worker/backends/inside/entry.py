"""The way into a workspace by what its engine runs in it."""

from mlhub_spawner_worker.backends.inside import script
from mlhub_spawner_worker.backends.inside.agent import AgentForward
from mlhub_spawner_worker.backends.inside.child import InsideChild
from mlhub_spawner_worker.backends.inside.loopback import InsideLoopback
from mlhub_spawner_worker.backends.inside.place import Place
from mlhub_spawner_worker.entry import Child, Client, EntryError, Loopback, Order


class InsideEntry:
    """How to enter a workspace; the engine is asked nothing before something is run."""

    def __init__(self, place: Place, *, home: str | None, loopback: Loopback | None = None) -> None:
        """Programs start in `home`, if it is there; None: where the image says.

        Without a `loopback` its ports are all carried by programs inside.
        """
        self._place, self._home = place, home
        self._loopback = loopback or InsideLoopback(place)

    @property
    def loopback(self) -> Loopback:
        """The workspace's own."""
        return self._loopback

    async def run(self, order: Order, client: Client) -> Child:
        """Run a program as the workspace's user; EntryError if that can't be."""
        environment = dict(order.environment)
        if order.terminal is not None:
            environment["TERM"] = order.terminal.type
        agent = await self._forward_agent(order, client)
        if agent is not None:
            environment["SSH_AUTH_SOCK"] = agent.path
        try:
            child = await InsideChild.open(
                self._place,
                script.program(order, self._home),
                client,
                environment=environment,
                has_terminal=order.terminal is not None,
            )
        except BaseException:
            if agent is not None:
                agent.close()
            raise
        child.agent = agent
        return child

    async def _forward_agent(self, order: Order, client: Client) -> AgentForward | None:
        if order.agent is None:
            return None
        try:
            return await AgentForward.open(self._place, order.agent)
        except EntryError as error:
            client.write(f"the SSH agent can't be forwarded: {error}\r\n".encode(), is_error=True)
            return None
