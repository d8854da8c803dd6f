"""`client-config`: what a system needs so that its pulls go through the cache."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field, replace
from pathlib import Path

from prefetch.app.logins import credential_of
from prefetch.app.requests import Place
from prefetch.app.runtime import settings_at
from prefetch.clientconfig.files import ConfigFile, read_text
from prefetch.clientconfig.merging import merge
from prefetch.clientconfig.plan import Plan
from prefetch.clientconfig.request import Wishes, plan_of, unused_entries
from prefetch.clientconfig.target import Target
from prefetch.clientconfig.targets import target_named
from prefetch.clientconfig.writing import replace as replace_file
from prefetch.clientconfig.writing import write_tree
from prefetch.config.settings import Settings
from prefetch.credentials.authfile import AuthFile, without_user
from prefetch.credentials.credential import IdentityToken, Login, Secret
from prefetch.errors import CredentialError, UsageError


@dataclass(frozen=True, slots=True)
class LoginOptions:
    """Who the nodes are to the cache. The password comes from a variable or a file."""

    username: str | None = None
    password_env: str | None = None
    password_file: Path | None = None
    identity_token_file: Path | None = None
    auth_file: Path | None = None


@dataclass(frozen=True, slots=True)
class ClientConfigRequest:
    """What `client-config` is to do; `merge` is a file to add to, `out` the tree's directory."""

    place: Place
    target: str
    wishes: Wishes
    login: LoginOptions = field(default_factory=LoginOptions)
    merge: Path | None = None
    out: Path | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """One file: what stands in it, with what permissions, and where it was written, if it was."""

    path: str
    text: str
    mode: int
    place: Path | None = None


@dataclass(frozen=True, slots=True)
class ClientConfigResult:
    """The files, and what has to be known besides."""

    target: Target
    files: tuple[Written, ...]
    notes: tuple[str, ...]


def run_client_config(request: ClientConfigRequest) -> ClientConfigResult:
    """Make the files, and write them where they are wanted.

    Raises UsageError; nothing has been written then.
    """
    try:
        return _run(request)
    except CredentialError as error:
        # Given on the command line: another value there, and it works.
        raise UsageError(error.message, hint=error.hint) from None


def _run(request: ClientConfigRequest) -> ClientConfigResult:
    target = target_named(request.target)
    if request.merge is not None and target.keys is None:
        raise UsageError(f"{target.name}: its files cannot be merged with others")
    if request.merge is not None and request.out is not None:
        raise UsageError("--merge and --out: one of them", hint="--merge FILE --force writes FILE")
    auth_file = _auth_file(request.login.auth_file)
    plan = _plan(request, settings_at(request.place), auth_file)
    output = target.output(plan)
    notes = [*output.notes, *_plain_credentials(plan)]
    if auth_file is not None:
        notes += _left_out(plan, auth_file)
    if request.merge is not None:
        return _merged(request, request.merge, target, output.files, notes)
    files = output.files
    if request.out is None:
        done = [Written(each.path, each.text(), each.mode) for each in files]
    else:
        places = write_tree(files, request.out, force=request.force)
        done = [
            Written(each.path, each.text(), each.mode, place)
            for each, place in zip(files, places, strict=True)
        ]
    return ClientConfigResult(target, tuple(done), tuple(notes))


def _plan(request: ClientConfigRequest, settings: Settings, auth_file: AuthFile | None) -> Plan:
    plan = plan_of(
        request.wishes,
        configured=list(settings.registries),
        any_registry=settings.any_registry is not None,
        login=_login(request.login),
        auth_file=auth_file,
    )
    tree = None if request.out is None else str(request.out.absolute())
    return replace(plan, tree=tree)


def _login(options: LoginOptions) -> Login | None:
    if options.identity_token_file is not None:
        others = (options.username, options.password_env, options.password_file)
        if any(each is not None for each in others):
            raise UsageError("--identity-token-file takes the place of a user and a password")
        text = read_text(options.identity_token_file, pipes=True).strip()
        if not text or not text.isprintable():
            raise UsageError(f"{options.identity_token_file}: expected one line with a token")
        return IdentityToken(Secret(text))
    return credential_of(options.username, options.password_env, options.password_file)


def _auth_file(path: Path | None) -> AuthFile | None:
    return None if path is None else AuthFile.parse(read_text(path, pipes=True).encode(), str(path))


def _merged(
    request: ClientConfigRequest,
    path: Path,
    target: Target,
    files: tuple[ConfigFile, ...],
    notes: list[str],
) -> ClientConfigResult:
    """Only the main file; `--force` writes it back."""
    main, *others = files
    found = merge(main, read_text(path), str(path), target.keys or {})
    there = path.stat()
    # Never for more eyes than before: what else is in it may be secret, too.
    mode = stat.S_IMODE(there.st_mode) & (0o600 if main.secret else 0o777)
    if others:
        names = ", ".join(each.path for each in others)
        notes.append(f"also needed, and written without --merge: {names}")
    notes += [f"{key} had another value" for key in found.replaced]
    notes += target.merged(found.tree)
    place: Path | None = None
    if request.force:
        place = path.resolve()
        try:
            replace_file(place, found.text, mode, there)
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
    return ClientConfigResult(target, (Written(str(path), found.text, mode, place),), tuple(notes))


def _plain_credentials(plan: Plan) -> list[str]:
    return [
        f"{endpoint.url}: credentials go over plain HTTP, for everyone on the way to read"
        for endpoint in plan.hosts()
        if endpoint.host in plan.logins and not endpoint.secure and not endpoint.loopback
    ]


def _left_out(plan: Plan, auth_file: AuthFile) -> list[str]:
    notes = []
    unused = unused_entries(plan, auth_file)
    if unused:
        names = ", ".join(map(without_user, unused))
        notes.append(f"{auth_file.name}: nothing here asks {names}")
    helpers = {*auth_file.helpers.values(), *([auth_file.store] if auth_file.store else [])}
    if helpers:
        notes.append(
            f"{auth_file.name}: what {', '.join(sorted(helpers))} keeps is not in the file, "
            "and not written"
        )
    return notes
