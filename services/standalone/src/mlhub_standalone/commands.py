"""What each command does. Each loads only what it needs: `status` is asked often, and the bus takes long to import."""

import argparse
import sys
from dataclasses import replace

from mlhub_standalone import cli
from mlhub_standalone.console import plural, say, write_json
from mlhub_standalone.errors import LauncherError
from mlhub_standalone.options import AUTO


def run(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = cli.parse(sys.argv[1:] if arguments is None else arguments, _defaults())
    try:
        return _COMMANDS[options.command](options)
    except LauncherError as error:
        print(f"mlhub: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _defaults() -> cli.Defaults:
    from mlhub_shared.runtime import configuration
    from mlhub_standalone.settings import StandaloneSettings

    settings = configuration.load(StandaloneSettings)
    defaults = cli.IN_CONTAINER if settings.in_container else cli.Defaults()
    return replace(defaults, data_dir=str(settings.data_dir)) if settings.data_dir else defaults


def _up(options: argparse.Namespace) -> int:
    import asyncio

    from mlhub_shared.runtime import configuration
    from mlhub_standalone import earlier, leftovers
    from mlhub_standalone.instance import plan
    from mlhub_standalone.launcher import Launcher
    from mlhub_standalone.lock import InstanceLock
    from mlhub_standalone.move_in import at_first_start
    from mlhub_standalone.settings import StandaloneSettings, user_environment

    if options.in_container:
        write_json()
    data, asked, environment = cli.data_dir(options), cli.asked(options), user_environment()
    settings = configuration.load(StandaloneSettings)
    old = earlier.answer(environment)
    if asked.backend == AUTO and old.backend:
        asked = replace(asked, backend=old.backend)
    data.create()
    lock = InstanceLock(data)
    lock.acquire()
    try:
        say(f"ML Hub in {data.root}")
        # Before the plan: what an earlier launcher left still holds the ports that workspaces know.
        if ended := leftovers.take_over(data):
            say(f"Ended {plural(ended, 'process')} that an earlier run had left behind.")
        for remark in old.remarks:
            say(f"  {remark}")
        instance = plan(data, asked, environment)
        at_first_start(instance, environment)
        asyncio.run(Launcher(instance, settings, environment).run())
    finally:
        lock.release()
    return 0


def _move_in(options: argparse.Namespace) -> int:
    from mlhub_standalone.instance import plan
    from mlhub_standalone.lock import InstanceLock
    from mlhub_standalone.move_in import move_in, show
    from mlhub_standalone.settings import user_environment

    data, environment = cli.data_dir(options), user_environment()
    data.create()
    lock = InstanceLock(data)
    lock.acquire()
    try:
        show(move_in(plan(data, cli.asked(options), environment), options.path, environment))
    finally:
        lock.release()
    return 0


def _down(options: argparse.Namespace) -> int:
    from mlhub_standalone.down import down

    down(cli.data_dir(options), keep_workspaces=options.keep_workspaces)
    return 0


def _status(options: argparse.Namespace) -> int:
    from mlhub_standalone.status import status

    return status(cli.data_dir(options), as_json=options.json)


def _logs(options: argparse.Namespace) -> int:
    from mlhub_standalone.logs import show

    show(cli.data_dir(options), options.service, lines=options.lines, follow=options.follow)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from mlhub_standalone.doctor import doctor
    from mlhub_standalone.settings import user_environment

    return 0 if doctor(cli.data_dir(options), cli.asked(options), user_environment()) else 1


_COMMANDS = {"up": _up, "move-in": _move_in, "down": _down, "status": _status, "logs": _logs, "doctor": _doctor}
