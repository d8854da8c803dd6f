"""Options that several commands share, and how each is read from the environment."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from prefetch.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])

# Kubernetes gives every pod variables of each service: PREFETCH_PORT=tcp://10.0.0.7:5000.
_SERVICE_VARIABLE = re.compile(r"(tcp|udp|sctp)://")

# What click takes for true, and for false.
_OPPOSITE = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "on"), "0"),
    **dict.fromkeys(("0", "false", "f", "no", "n", "off"), "1"),
}

LOG_LEVELS = ("debug", "info", "warning", "error")


class FilePath(click.Path):
    """A path; an empty one, which would be the current directory, is refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As click does."""
        if value == "":
            name = param.opts[0] if param is not None and param.opts else "path"
            raise UsageError(f"{name}: an empty path names nothing")
        return super().convert(value, param, ctx)


class Option(click.Option):
    """An option that is also read from PREFETCH_COMMAND_OPTION, then PREFETCH_OPTION.

    One that has an opposite (`--no-fallback`) is read from that one's variables, too.
    """

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """The environment's value; what Kubernetes put there for a service is no value."""
        opposites = self._named(ctx, self.secondary_opts) if self.secondary_opts else ()
        for names in itertools.zip_longest(self.variables(ctx), opposites):
            for name, turned in zip(names, (False, True), strict=True):
                value = os.environ.get(name or "")
                if value and not _SERVICE_VARIABLE.match(value):
                    return _OPPOSITE.get(value.lower(), value) if turned else value
        return None

    def variables(self, ctx: click.Context) -> Sequence[str]:
        """The variables' names, the command's own first."""
        return self._named(ctx, self.opts)

    def _named(self, ctx: click.Context, opts: Sequence[str]) -> Sequence[str]:
        long = next((name for name in opts if name.startswith("--")), self.name or "")
        option = long.lstrip("-").upper().replace("-", "_")
        words: list[str] = []
        while ctx.parent is not None:  # the program itself may be `python -m prefetch`
            words.insert(0, ctx.info_name or "")
            ctx = ctx.parent
        command = "_".join(words).upper().replace("-", "_")
        return (
            [f"PREFETCH_{command}_{option}", f"PREFETCH_{option}"]
            if command
            else [f"PREFETCH_{option}"]
        )


def option(*names: str, **settings: Any) -> Callable[[F], F]:
    """`click.option` with the environment's names."""
    return click.option(*names, cls=Option, **settings)


@dataclass(slots=True)
class Globals:
    """What stands on either side of COMMAND."""

    config: Path | None = None
    data_dir: Path | None = None
    log_level: str | None = None
    log_format: str = "text"
    verbose: int = 0
    quiet: bool = False

    @property
    def level(self) -> str:
        """The log level that --log-level, or else -v, asks for."""
        if self.log_level:
            return self.log_level
        return ("warning", "info", "debug")[min(self.verbose, 2)]

    @property
    def server_level(self) -> str:
        """The same for what runs until it is stopped: `info`, unless told otherwise."""
        if self.log_level or self.verbose:
            return self.level
        return "warning" if self.quiet else "info"


_GLOBAL: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (
        ("--config",),
        {
            "type": FilePath(path_type=Path),
            "metavar": "FILE",
            "help": "Configuration; else ./prefetch.yaml, the user's or /etc/prefetch/'s.",
        },
    ),
    (
        ("--data-dir",),
        {
            "type": FilePath(file_okay=False, path_type=Path),
            "metavar": "DIR",
            "help": "Where the cache and its state live.",
        },
    ),
    (
        ("--log-level",),
        {"type": click.Choice(LOG_LEVELS), "help": "What is logged to stderr."},
    ),
    (
        ("--log-format",),
        {"type": click.Choice(("text", "json")), "help": "How it is logged."},
    ),
    (("-v", "--verbose"), {"count": True, "help": "Log more; twice: everything."}),
    (
        ("-q", "--quiet"),
        {"is_flag": True, "help": "Print only what failed or was deferred."},
    ),
)


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    found = ctx.ensure_object(Globals)
    source = ctx.get_parameter_source(param.name or "")
    if source not in (ParameterSource.DEFAULT, None):
        setattr(found, param.name or "", value)


def global_options(function: F) -> F:
    """The global options, on the group itself."""
    for names, settings in reversed(_GLOBAL):
        function = option(*names, expose_value=False, callback=_keep, **settings)(function)
    return function


def repeated_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same after COMMAND, where help does not repeat them and the environment is not read."""
    for names, settings in reversed(_GLOBAL):
        function = click.option(
            *names, expose_value=False, callback=_keep, hidden=True, **settings
        )(function)
    return function


def command_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`repeated_options`, with the Globals as the decorated function's first argument."""
    return repeated_options(click.pass_obj(function))


def output_option(*formats: str) -> Callable[[F], F]:
    """`-o/--output`; JSON goes to stdout alone, one document."""
    return option(
        "-o",
        "--output",
        type=click.Choice(formats or ("text", "json")),
        default="text",
        show_default=True,
        help="How the result is printed.",
    )


def image_options(function: F) -> F:
    """SOURCE…, images by name, a cluster's, and platforms: which images a command is about."""
    function = cluster_options(function)
    for decorate in reversed(
        (
            click.argument("sources", nargs=-1, metavar="[SOURCE]..."),
            option(
                "--image",
                "images",
                multiple=True,
                metavar="REF",
                help="An image by name; repeatable.",
            ),
            option(
                "--cluster",
                is_flag=True,
                help="What a live cluster runs, for the platforms of its nodes.",
            ),
            option(
                "--platform",
                "platforms",
                multiple=True,
                metavar="P",
                help="linux/arm64, or all; repeatable. [default: linux on this host's "
                "architecture]",
            ),
        )
    ):
        function = decorate(function)
    return function


def cluster_options(function: F) -> F:
    """Which cluster, and what of it."""
    for decorate in reversed(
        (
            option(
                "--kubeconfig",
                type=FilePath(dir_okay=False, path_type=Path),
                metavar="FILE",
                help="How to reach it. [default: the pod's own, $KUBECONFIG, ~/.kube/config]",
            ),
            option("--context", metavar="NAME", help="A context of the kubeconfig."),
            option(
                "--namespace",
                "namespaces",
                multiple=True,
                metavar="NAME",
                help="Only this namespace; repeatable. [default: all]",
            ),
            option("--selector", default="", metavar="LABELS", help="Only what has these labels."),
            option(
                "--running-digests/--no-running-digests",
                default=None,
                help="What pods run now by digest, too.",
            ),
            option(
                "--node-images/--no-node-images",
                default=None,
                help="What nodes hold and no pod names, too.",
            ),
            option(
                "--use-pull-secrets/--no-use-pull-secrets",
                default=None,
                help="Show registries what the pods show them, for the pods' own repositories.",
            ),
        )
    ):
        function = decorate(function)
    return function


def budget_options(function: F) -> F:
    """`image_options`, and what they may cost."""
    reserve = option(
        "--reserve",
        metavar="N|N%",
        help="Pulls that are left to others, or a share of the limit. [default: 20%]",
    )
    return image_options(reserve(function))


def source_options(function: F) -> F:
    """`budget_options`, and how fast it may be spent."""
    pace = option(
        "--pace",
        type=click.Choice(["smooth", "burst"]),
        help="Spread the pulls until the budget is back, or spend them at once. [default: burst]",
    )
    return budget_options(pace(function))


_FILE = FilePath(dir_okay=False, path_type=Path)


def cache_options(function: F) -> F:
    """How a running cache is asked: who asks, whom to trust, how long to wait."""
    for decorate in reversed(
        (
            option("--username", metavar="USER", help="Who asks, where the cache wants to know."),
            option("--password-env", metavar="VAR", help="The variable that has the password."),
            option("--password-file", type=_FILE, metavar="FILE", help="The file that has it."),
            option(
                "--ca-file",
                type=_FILE,
                metavar="FILE",
                help="Authorities to trust besides the system's.",
            ),
            option("--cert-file", type=_FILE, metavar="FILE", help="A client certificate to show."),
            option("--key-file", type=_FILE, metavar="FILE", help="Its key."),
            option(
                "--insecure-skip-verify",
                is_flag=True,
                help="Do not check the cache's certificate.",
            ),
            option(
                "--timeout",
                default="10s",
                show_default=True,
                metavar="DURATION",
                help="How long a request may take.",
            ),
        )
    ):
        function = decorate(function)
    return function
