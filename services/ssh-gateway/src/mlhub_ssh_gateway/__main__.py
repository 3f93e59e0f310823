"""`python -m mlhub_ssh_gateway`."""

from functools import partial

from mlhub_shared.runtime import configuration
from mlhub_shared.runtime.service import main
from mlhub_ssh_gateway.service import build
from mlhub_ssh_gateway.settings import SshGatewaySettings

if __name__ == "__main__":
    settings = configuration.load(SshGatewaySettings)
    main("ssh-gateway", settings, partial(build, settings=settings))
