"""The group of commands: loaded when asked for, errors told in one line."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

import click

from prefetch.errors import PrefetchError

EXIT_INTERNAL = 70  # EX_SOFTWARE


class CommandGroup(click.Group):
    """Imports a command's module only when that command (or the help) is wanted.

    `commands_at` maps a command's name to `module:attribute`.
    """

    def __init__(self, *args: Any, commands_at: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._commands_at = commands_at

    def list_commands(self, _: click.Context) -> list[str]:
        """The commands, in the order in which a newcomer meets them."""
        return list(self._commands_at)

    def get_command(self, _: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now."""
        if cmd_name not in self._commands_at:
            return None
        module, attribute = self._commands_at[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """As click does; Ctrl+C where no run watches for it has the signal's status, too."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run, and exit with the status that the contract gives to what happened."""
        try:
            super().main(*args, **kwargs)
        except PrefetchError as error:
            fail(str(error), error.exit_code)
        except BrokenPipeError:
            # Whoever read our output has gone: nothing is left to say to them.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except (OSError, MemoryError) as error:
            fail(str(error) or type(error).__name__, 1)
        except Exception as error:
            if "PREFETCH_TRACEBACK" in os.environ:
                raise
            fail(
                f"internal error: {type(error).__name__}: {error} "
                "(set PREFETCH_TRACEBACK=1 to see where, and please report it)",
                EXIT_INTERNAL,
            )
        sys.exit(0)


def fail(message: str, status: int) -> NoReturn:
    """One line on standard error, then exit."""
    click.echo(f"prefetch: {' '.join(message.split())}", err=True)
    sys.exit(status)
