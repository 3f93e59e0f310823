"""The command line: `mlhub up | down | status | logs | doctor | move-in`."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from mlhub_standalone.data_dir import DataDir
from mlhub_standalone.logs import NAMES
from mlhub_standalone.options import AUTO, DOCKER, PROCESS, Asked
from mlhub_standalone.ports import PUBLIC, SSH


@dataclass(frozen=True)
class Defaults:
    """What holds where the command line says nothing."""

    data_dir: str = ".mlhub"
    host: str = "127.0.0.1"
    in_container: bool = False


IN_CONTAINER = Defaults(data_dir="/data", host="0.0.0.0", in_container=True)  # noqa: S104
"""Who may come in is said where its ports are published."""


def parse(arguments: list[str], defaults: Defaults) -> argparse.Namespace:
    """Read the command line; leaves the program where it is no good."""
    parser = argparse.ArgumentParser(
        prog="mlhub", description="ML Hub on this machine: workspaces for a team, in the browser and over SSH."
    )
    parser.set_defaults(in_container=defaults.in_container)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = _command(commands, "up", "start everything and stay with it; Ctrl-C ends it")
    _add_instance(up, defaults)
    _add_start(up)
    _add_keep(_command(commands, "down", "end what `mlhub up` started elsewhere"))
    status = _command(
        commands, "status", "show what runs where; exit code 0: all is well, 1: it is not, 3: nothing runs"
    )
    status.add_argument("--json", action="store_true", help="for programs")
    _add_logs(_command(commands, "logs", "show what the services log"))
    _add_instance(_command(commands, "doctor", "tell whether ML Hub can run here, and what is missing"), defaults)
    move_in = _command(commands, "move-in", "take over users and workspaces of the first ML Hub, while neither runs")
    move_in.add_argument("path", type=Path, help="its folder of data, or its jupyterhub.sqlite; not written to")
    _add_hub_name(move_in)
    _add_backend(move_in)
    for command in commands.choices.values():
        command.add_argument(
            "--data-dir",
            default=defaults.data_dir,
            help=f"where the instance keeps all it has (default: {defaults.data_dir})",
        )
    if not arguments and defaults.in_container:
        arguments = ["up"]
    return parser.parse_args(arguments)


def data_dir(options: argparse.Namespace) -> DataDir:
    """The instance that is meant."""
    return DataDir(Path(options.data_dir).expanduser().resolve())


def asked(options: argparse.Namespace) -> Asked:
    """What `up` shall start."""
    return Asked(
        port=getattr(options, "port", None),
        ssh_port=getattr(options, "ssh_port", None),
        tls=getattr(options, "tls", None),
        host=getattr(options, "host", "127.0.0.1"),
        hub_name=options.hub_name,
        backend=getattr(options, "backend", AUTO),
        capacity=getattr(options, "capacity", None),
        keep_workspaces=getattr(options, "keep_workspaces", False),
        in_container=options.in_container,
    )


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, text: str
) -> argparse.ArgumentParser:
    return commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")


def _add_instance(parser: argparse.ArgumentParser, defaults: Defaults) -> None:
    who = "everybody" if defaults.in_container else "this machine alone"
    parser.add_argument("--host", default=defaults.host, help=f"address to listen on (default: {defaults.host}, {who})")
    parser.add_argument("--port", type=_port, help=f"of the web pages (default: the last one used, else {PUBLIC})")
    parser.add_argument(
        "--ssh-port",
        type=_port_or_off,
        metavar="PORT|off",
        help=f"of SSH alone, which the web's port takes too (default: the last one used, else {SSH})",
    )
    parser.add_argument(
        "--tls",
        action=argparse.BooleanOptionalAction,
        help="HTTPS, by a certificate of its own until it is given another (default: as the last time, else no)",
    )
    _add_hub_name(parser)


def _add_hub_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--hub-name", help="begins every workspace's name (default: the last one used, else mlhub)")


def _add_start(parser: argparse.ArgumentParser) -> None:
    _add_backend(parser)
    parser.add_argument("--capacity", type=_positive, help="workspaces at once; more wait in line (default: no limit)")
    _add_keep(parser)


def _add_backend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backend",
        choices=(AUTO, PROCESS, DOCKER),
        default=AUTO,
        help="what runs workspaces: containers, local processes, or (auto, the default) containers where a Docker "
        "engine answers and has the default image, else processes",
    )


def _add_logs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("service", nargs="?", choices=NAMES, help="one of them (default: all)")
    parser.add_argument("-n", "--lines", type=_positive, default=40, help="how many of the last lines (default: 40)")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes")


def _add_keep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keep-workspaces", action="store_true", help="leave workspaces running at the end")


def _port(text: str) -> int:
    number = _positive(text)
    if number > 65535:
        raise argparse.ArgumentTypeError("a port is at most 65535")
    return number


def _port_or_off(text: str) -> int:
    return 0 if text == "off" else _port(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)
