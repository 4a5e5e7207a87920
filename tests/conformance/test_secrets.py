"""Whatever fails, no secret is shown: not in errors, logs, records or on the command line."""

import contextlib
import dataclasses
import logging
import pickle
import random
import re
import shutil
import traceback

import pytest
from click.testing import CliRunner
from google.oauth2.credentials import Credentials

from holdfast import open_store
from holdfast.backends import translating
from holdfast.cli import main
from holdfast.errors import StorageError
from tests import share
from tests.conformance import faults, troubles
from tests.conformance.line import Line

CANARY = "canary-8a1f60b2c4"
#: Faults that are drawn for one place; a run tries each second.
CASES = 25


def options_of(place) -> dict[str, object]:
    """What the place is opened with, so that every secret in it is one to look for."""
    if place.name == "moto":
        return {**place.given("owner"), "secret": CANARY, "token": f"{CANARY}-session"}
    return place.given("pruner" if place.name == "gcs" else "owner")


def secrets_of(options) -> list[str]:
    """Every text in the options that nobody may see."""
    found = [options.get("secret"), options.get("token")]
    if isinstance(given := options.get("credentials"), Credentials):
        found += [given.token, given.client_secret, given.refresh_token]
    return [each for each in found if each]


@pytest.mark.parametrize("place", ["moto", "gcs", "drive"], indirect=True)
def test_no_fault_shows_a_secret(place, proxy, home, caplog, monkeypatch) -> None:
    options = options_of(place)
    monkeypatch.setattr(place, "given", lambda role: options)
    scene = next(each for each in faults.operations() if each.may_add)
    caplog.set_level(logging.DEBUG, logger="holdfast")
    line = Line(place, proxy)
    play = faults.Play(scene, place, line, home / "secrets")
    count = play.requests()
    cases = [(trouble, at) for trouble in troubles.TROUBLES for at in range(1, count + 1)]

    told = []
    first, every = share.turn(2)
    for trouble, at in random.Random(0).sample(cases, CASES)[first - 1 :: every]:
        outcome = play.strike(trouble, at)
        told.append(outcome.told if outcome else "")
    backend = place.backend()
    told += [repr(backend), str(backend), repr(scene.open), caplog.text, place.url]
    with contextlib.suppress(Exception):
        told.append(repr(pickle.dumps(backend)))
    told += [data.decode("latin-1") for _, data in place.objects()]
    shutil.rmtree(home / "secrets")

    assert any("Traceback" in each for each in told), "nothing has failed, so nothing was shown"
    assert secrets_of(options)
    shown = [secret for secret in secrets_of(options) if any(secret in each for each in told)]
    assert not shown


@pytest.mark.parametrize("place", ["moto"], indirect=True)
@pytest.mark.parametrize("trouble", ["503 for good", "expired for good", "refused"])
def test_the_command_line_shows_no_secret_of_the_environment(
    trouble, place, proxy, monkeypatch
) -> None:
    variables = place.variables(endpoint=proxy.endpoint) | {"AWS_SECRET_ACCESS_KEY": CANARY}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    wanted = next(each for each in troubles.TROUBLES if each.name == trouble)
    monkeypatch.setattr("holdfast.backends.retrying._FIRST_PAUSE_S", 0.0)
    proxy.plan(wanted.at(1, place))

    ran = CliRunner().invoke(main, ["ls", place.url, "--json"])

    assert proxy.struck
    assert ran.exit_code != 0 or trouble == "refused"
    assert CANARY not in ran.output + ran.stderr + repr(ran.exception)


@pytest.mark.parametrize("place", ["moto"], indirect=True)
@pytest.mark.parametrize("trouble", ["forbidden for good", "expired for good", "redirected"])
def test_neither_doctor_nor_a_preflight_shows_a_secret(
    trouble, place, proxy, monkeypatch, caplog, tmp_path
) -> None:
    caplog.set_level(logging.DEBUG, logger="holdfast")
    for name, value in place.variables(endpoint=proxy.endpoint).items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, f"{CANARY}-{name}")
    monkeypatch.setattr("holdfast.backends.retrying._FIRST_PAUSE_S", 0.0)
    away = f"{proxy.endpoint}/?X-Amz-Security-Token={CANARY}&X-Amz-Signature={CANARY}"
    wanted = [*troubles.TROUBLES, troubles.elsewhere(away)]
    fault = next(each for each in wanted if each.name == trouble).at(1, place)
    proxy.plan(dataclasses.replace(fault, lasting=True))

    ran = CliRunner().invoke(main, ["doctor", place.url, "--workspace", str(tmp_path / "w")])
    with pytest.raises(StorageError) as caught:
        open_store(place.url, workspace=tmp_path / "workspace").preflight()

    assert proxy.struck
    assert ran.exit_code != 0
    assert CANARY not in ran.output + ran.stderr + repr(ran.exception) + caplog.text
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert CANARY not in repr(pickle.loads(pickle.dumps(caught.value)))


#: What clients and servers say when they fail, with a secret in it that no option holds.
SAID = [
    f"403 for https://bucket.s3.amazonaws.com/key?X-Amz-Credential=AKIA&X-Amz-Signature={CANARY}",
    f"cannot connect to sftp://trainer:{CANARY}@host/runs",
    f"refused: Authorization: Bearer {CANARY}",
    f"invalid_grant for 1//0{CANARY}, client GOCSPX-{CANARY}",
    f"the token ya29.{CANARY} has expired",
    f"AWS_SESSION_TOKEN={CANARY} is not valid",
    f"{{'private_key': '-----BEGIN PRIVATE KEY-----\\n{CANARY}\\n-----END PRIVATE KEY-----'}}",
    f'{{"client_secret": "{CANARY}", "type": "authorized_user"}}',
    f"eyJhbGciOiJSUzI1NiJ9.{CANARY}.c2lnbmF0dXJl is no assertion",
    f"login failed: password={CANARY}",
]


@pytest.mark.parametrize("said", SAID)
def test_what_a_client_says_is_told_without_the_secret_in_it(said) -> None:
    failed = OSError(f"while reading: {said}")
    failed.__cause__ = RuntimeError(said)

    with (
        pytest.raises(StorageError) as caught,
        translating.storage_errors("read", "s3://bucket/run", {}),
    ):
        raise failed

    shown = "".join(traceback.format_exception(caught.value))
    assert CANARY not in shown
    assert CANARY not in repr(pickle.loads(pickle.dumps(caught.value)))


def test_a_redactor_that_is_off_is_caught(monkeypatch) -> None:
    monkeypatch.setattr(translating, "_SECRETS", re.compile(r"(?!)"))

    for said in SAID:
        with pytest.raises(AssertionError):
            test_what_a_client_says_is_told_without_the_secret_in_it(said)
