"""`prefetch probe`: does a running cache work, for each kind of client."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from prefetch.cli.options import (
    Globals,
    cache_options,
    command_options,
    option,
    output_option,
)

if TYPE_CHECKING:
    from prefetch.sync.probe import Check, ClientResult, ProbeReport, Pulled

_WIDTH = 80
_UNCUT = 10_000  # registries' names are short, and looked for
_LONG_DIGEST = re.compile(r"(sha(?:256|512):[0-9a-f]{12})[0-9a-f]{52,}")


@click.command(epilog="Exit status: 0 all of it works; 1 something does not; 2 usage.")
@click.argument("references", nargs=-1, metavar="[REFERENCE]...")
@option(
    "--cache-url",
    "cache_urls",
    required=True,
    multiple=True,
    metavar="URL",
    help="The cache: http(s)://HOST[:PORT]; with --target, repeatable.",
)
@cache_options
@option(
    "--any-registry",
    is_flag=True,
    help="Ask also what is not `prefetch serve`, where it may cost pulls.",
)
@option(
    "--target",
    metavar="T",
    help="Read --config FILE as a node of this kind does (see client-config --list), "
    "and ask nobody.",
)
@option(
    "--registry",
    "registries",
    multiple=True,
    metavar="REGISTRY",
    help="With --target: fail unless it goes through the cache; repeatable.",
)
@output_option()
@command_options
def probe(
    common: Globals,
    *,
    references: tuple[str, ...],
    cache_urls: tuple[str, ...],
    any_registry: bool,
    target: str | None,
    registries: tuple[str, ...],
    output: str,
    **options: Any,
) -> None:
    """Ask a running cache as each kind of client does, and say what works.

    First the connection: address, certificate, credentials, whether it is ready.
    Then each image, or up to 5 of those that the cache lists, as it is pulled by
    containerd (K3s, RKE2, nerdctl, BuildKit), podman (CRI-O, skopeo, RKE), docker
    (docker.io alone) and path (docker, given an address with a path). Manifests and
    configs are verified, layers looked into.

    No pull is spent: each request says only-if-cached, and what does not show that
    it heeds that is asked for no image.

    With --target the file that a node reads is judged instead: which registries go
    through the cache, which fall back to the registry, and which bypass it.

    \b
    Examples:
      prefetch probe --cache-url http://127.0.0.1:5000
      prefetch probe --cache-url https://cache:5000 --ca-file ca.pem nginx:1.27
      prefetch probe --cache-url https://cache:5000 -o json
      prefetch probe --cache-url https://cache:5000 --target k3s \\
        --config /etc/rancher/k3s/registries.yaml
    """
    if target is not None:
        _probe_node(common, target, cache_urls, registries, output)
        return
    if len(cache_urls) > 1:
        raise click.UsageError("one --cache-url at a time, unless there is a --target")
    if registries:
        raise click.UsageError("--registry goes with --target")
    from prefetch.app.probe import ProbeRequest, run_probe
    from prefetch.cli.report import print_json
    from prefetch.cli.request import cache_of

    report = run_probe(ProbeRequest(cache_of(cache_urls[0], options), references, any_registry))
    if output == "json":
        print_json(report.document())
    else:
        for line in _lines(report, verbose=common.verbose > 0, quiet=common.quiet):
            click.echo(line)
    sys.exit(0 if report.ok else 1)


def _probe_node(
    common: Globals,
    target: str,
    cache_urls: tuple[str, ...],
    registries: tuple[str, ...],
    output: str,
) -> None:
    from prefetch.app.nodeconfig import run_node_probe
    from prefetch.cli.report import print_json
    from prefetch.cli.text import table

    if common.config is None:
        raise click.UsageError("--target goes with --config FILE, the file that a node reads")
    report = run_node_probe(target, common.config, cache_urls, registries)
    if output == "json":
        print_json(report.document())
    else:
        click.echo(
            table(
                ("REGISTRY", "PULLS", "FROM"),
                [(r.registry, report.verdict(r), r.described()) for r in report.routes],
                width=_UNCUT,
            )
        )
        for route in report.routes:
            for note in report.notes(route):
                click.echo(f"{route.registry}: {note}")
    sys.exit(0 if report.ok else 1)


def _lines(report: ProbeReport, *, verbose: bool, quiet: bool) -> Iterator[str]:
    """The report for people: a line a group, below it what failed, a summary."""
    if not (quiet and report.connected):
        yield _head("connection", report.connected, _notable(report))
    for step in report.connection:
        if verbose or not step.ok:
            yield from _detail(_word(step.ok) if verbose else "", step.step, step.message)
    for client in report.clients:
        if not (quiet and client.ok):
            yield _head(client.client, client.ok, _counted(client))
        for pulled in client.pulled:
            yield from _pulled(pulled, verbose=verbose)
    for error in report.errors:
        yield from _detail("", error.reference or "error", error.message)
    if not (quiet and report.ok):
        yield _summary(report)


def _head(name: str, ok: bool, note: str) -> str:
    word = click.style(_word(ok).ljust(6), fg="green" if ok else "red")
    return f"{name.ljust(10)}  {word}  {note}".rstrip()


def _word(ok: bool) -> str:
    return "ok" if ok else "failed"


def _notable(report: ProbeReport) -> str:
    """What is worth knowing of a connection that works: how long its certificate is valid."""
    return next((each.message for each in report.connection if each.step == "tls" and each.ok), "")


def _counted(client: ClientResult) -> str:
    from prefetch.cli.text import plural

    count, good = len(client.pulled), sum(each.ok for each in client.pulled)
    if not count:
        return "no image of docker.io is among them"
    return plural(count, "image") if good == count else f"{good} of {plural(count, 'image')}"


def _pulled(pulled: Pulled, *, verbose: bool) -> Iterator[str]:
    shown = [check for check in pulled.checks if verbose or not check.ok]
    if shown:
        yield f"  {pulled.reference}"
    for check in shown:
        yield from _check(check, verbose=verbose)


def _check(check: Check, *, verbose: bool) -> Iterator[str]:
    asked = f"{check.method} {check.path}: " if verbose and check.method else ""
    status = "" if check.status is None else f"{check.status}, "
    mark = f"{_word(check.ok)} " if verbose else ""
    yield from _wrapped(f"{mark}{check.step}: {asked}{status}{check.message}", "    ")


def _detail(mark: str, name: str, message: str) -> Iterator[str]:
    yield from _wrapped(f"{mark} {name}: {message}".lstrip(), "  ")


def _wrapped(text: str, indent: str) -> Sequence[str]:
    """Lines as wide as the terminal; digests as short as they can be told apart."""
    import shutil
    import textwrap

    return textwrap.wrap(
        _LONG_DIGEST.sub(r"\1…", text),
        shutil.get_terminal_size((_WIDTH, 24)).columns,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _summary(report: ProbeReport) -> str:
    from prefetch.cli.text import plural

    if not report.clients:
        if not report.connected:
            what = "no image was asked for"
        elif report.errors:
            what = "the connection works, no image was asked for"
        else:
            what = "the connection works, the cache lists no image"
        return f"{report.cache_url}: {what}"
    works: dict[str, bool] = {}
    for client in report.clients:
        for pulled in client.pulled:
            works[pulled.reference] = works.get(pulled.reference, True) and pulled.ok
    good = sum(works.values())
    all_of = plural(len(works), "image")
    return f"{report.cache_url}: {good} of {all_of} can be pulled by every kind of client"
