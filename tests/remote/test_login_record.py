"""How long a refused login is left alone."""

from __future__ import annotations

import pytest

from prefetch.credentials.credential import Credential, Secret
from prefetch.errors import Unauthorized
from prefetch.remote.logins import LoginRecord
from support.clock import ManualClock

ALICE = Credential("alice", Secret("a-password"))


def test_a_refused_login_is_tried_again_after_a_quarter_of_an_hour(clock: ManualClock) -> None:
    record = LoginRecord("docker.io", ALICE, clock)
    with pytest.raises(Unauthorized, match="refuses the login of 'alice'"):
        record.refused(Unauthorized("no", status=401))
    clock.advance(899)
    with pytest.raises(Unauthorized):
        record.check()
    clock.advance(1)
    record.check()
    record.check()


def test_doubts_begin_anew_then(clock: ManualClock) -> None:
    record = LoginRecord("docker.io", ALICE, clock)
    for _ in range(3):
        record.doubted()
    with pytest.raises(Unauthorized):
        record.check()
    clock.advance(900)
    record.check()
    for _ in range(2):
        record.doubted()
    record.check()
    record.doubted()
    with pytest.raises(Unauthorized):
        record.check()
