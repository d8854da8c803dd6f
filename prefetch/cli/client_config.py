"""`prefetch client-config`: what to write on the nodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prefetch.cli.options import FilePath, Globals, command_options, option, output_option

if TYPE_CHECKING:
    from prefetch.app.clientconfig import ClientConfigResult

_FILE = FilePath(dir_okay=False, path_type=Path)


def _no_password(_: click.Context, __: click.Parameter, value: str | None) -> None:
    if value is not None:
        raise click.BadParameter(
            "a password on the command line is seen by every user of this machine; use "
            "--password-env or --password-file"
        )


def _complete(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    from prefetch.clientconfig.targets import TARGETS

    return [target.name for target in TARGETS if target.name.startswith(begun)]


@click.command("client-config", no_args_is_help=True)
@click.argument("target", required=False, shell_complete=_complete)
@click.option(
    "--list",
    "listed",
    is_flag=True,
    help="The targets, the files that each reads, and what makes it read them.",
)
@option(
    "--cache-url",
    "cache_urls",
    multiple=True,
    metavar="URL",
    help="A prefetch cache, as the nodes reach it; repeatable, in order.",
)
@option(
    "--registry",
    "registries",
    multiple=True,
    metavar="REGISTRY",
    help="Pull this registry's images through the cache; repeatable. [default: "
    "the configured ones]",
)
@option(
    "--mirror",
    "mirrors",
    multiple=True,
    metavar="REGISTRY=URL",
    help="Another mirror for a registry, in place of --cache-url; repeatable, in order.",
)
@option(
    "--fallback/--no-fallback",
    default=True,
    show_default=True,
    help="Whether the registry itself is asked for what the cache cannot give, which "
    "spends the node's own pulls.",
)
@option("--username", metavar="NAME", help="Who the nodes are to the cache.")
@option("--password-env", metavar="VARIABLE", help="The variable that has the password.")
@option("--password-file", type=_FILE, metavar="FILE", help="The file that has it.")
@click.option("--password", hidden=True, expose_value=False, callback=_no_password)
@option(
    "--identity-token-file",
    type=_FILE,
    metavar="FILE",
    help="A token in place of a user and a password.",
)
@option(
    "--auth-file",
    type=_FILE,
    metavar="FILE",
    help="A Docker config with entries for caches, mirrors and registries.",
)
@option(
    "--ca-file",
    "ca_files",
    multiple=True,
    metavar="[HOST=]PATH",
    help="The authority that signed the cache's certificate; a path on the node, read here "
    "where its content is needed (docker, podman, crio, rke, talos, kind, minikube).",
)
@option(
    "--cert-file",
    "cert_files",
    multiple=True,
    metavar="[HOST=]PATH",
    help="The node's own certificate for the cache.",
)
@option("--key-file", "key_files", multiple=True, metavar="[HOST=]PATH", help="Its key.")
@option("--insecure-skip-verify", is_flag=True, help="Do not check the cache's certificate.")
@option(
    "--rewrite",
    "rewrites",
    multiple=True,
    metavar="REGEX=REPLACEMENT",
    help="Ask mirrors for other repositories (k3s, rke2); repeatable.",
)
@option(
    "--out",
    type=FilePath(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write the files below DIR, at the paths that they have on a node.",
)
@option(
    "--merge",
    type=FilePath(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Add to FILE, and keep what else is in it; --force writes it back.",
)
@option("--force", is_flag=True, help="Overwrite files.")
@output_option()
@command_options
def client_config(
    common: Globals, *, target: str | None, listed: bool, output: str, **options: Any
) -> None:
    """Write what a system needs to pull through the cache.

    TARGET is one of k3s, rke2, rke, rke-terraform, containerd, docker, podman, crio,
    talos, kind, minikube, buildkit and nerdctl. Files go to stdout unless --out is
    given; what has to be known besides goes to stderr.

    \b
    Examples:
      prefetch client-config k3s --cache-url https://cache.example:5000 \\
        --ca-file /etc/ssl/corp.pem |
        sudo install -D -m 600 /dev/stdin /etc/rancher/k3s/registries.yaml
      prefetch client-config containerd --cache-url http://10.0.0.7:5000 \\
        --no-fallback --out ./node
      prefetch client-config docker --cache-url http://10.0.0.7:5000 \\
        --merge /etc/docker/daemon.json --force
      prefetch client-config rke2 --mirror docker.io=https://mirror.example \\
        --auth-file ~/.docker/config.json
    """
    from prefetch.app.clientconfig import (
        ClientConfigRequest,
        LoginOptions,
        run_client_config,
    )
    from prefetch.cli.request import place
    from prefetch.clientconfig.request import Wishes

    if listed:
        _print_targets(output)
        return
    if target is None:
        raise click.UsageError("Missing argument 'TARGET' (see --list).")
    login = {name: options.pop(name) for name in LoginOptions.__dataclass_fields__}
    wishes = {
        "fallback": options.pop("fallback"),
        "skip_verify": options.pop("insecure_skip_verify"),
        **{
            name: tuple(options.pop(name))
            for name in (
                *("cache_urls", "registries", "mirrors", "ca_files", "cert_files", "key_files"),
                "rewrites",
            )
        },
    }
    result = run_client_config(
        ClientConfigRequest(
            place(common), target, Wishes(**wishes), LoginOptions(**login), **options
        )
    )
    if output == "json":
        click.echo(json.dumps(_document(result), indent=2))
    else:
        _print(result, quiet=common.quiet)


def _print_targets(output: str) -> None:
    from prefetch.clientconfig.targets import TARGETS

    if output == "json":
        rows = [
            {"target": t.name, "title": t.title, "files": list(t.paths), "restart": t.restart}
            for t in TARGETS
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    for target in TARGETS:
        click.echo(f"{target.name:<15}{target.title}")
        for path in target.paths:
            click.echo(f"{'':<15}{path}")
        click.echo(f"{'':<15}restart: {target.restart}")


def _print(result: ClientConfigResult, *, quiet: bool) -> None:
    several = len(result.files) > 1
    for number, file in enumerate(result.files):
        if file.place is not None:
            click.echo(str(file.place))
            continue
        if several:
            click.echo(("\n" if number else "") + f"### {file.path}")
        click.echo(file.text, nl=False)
    if quiet:
        return
    for note in result.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(f"restart: {result.target.restart}", err=True)


def _document(result: ClientConfigResult) -> dict[str, Any]:
    return {
        "target": result.target.name,
        "files": [
            {
                "path": file.path,
                "mode": f"{file.mode:04o}",
                "content": file.text,
                "written_to": None if file.place is None else str(file.place),
            }
            for file in result.files
        ],
        "restart": result.target.restart,
        "notes": list(result.notes),
    }
