"""The command: output and exit status."""

from __future__ import annotations

import inspect
import json
import re
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme

import ociwire.errors
from ociwire import FunctionTransport, Headers, Response, Unauthorized, __version__
from ociwire._cli.hints import get_hint
from ociwire._cli.main import main
from ociwire._cli.render import Style
from ociwire.errors import OciwireError
from ociwire.testing import AuthGuard, MemoryRegistry, serve

DIGEST = "sha256:" + "0" * 64
LAYERS = ["RetryTransport", "RedirectTransport", "HeadersTransport", "AuthTransport", "UrllibTransport"]
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def layer_names(text: str) -> list[str]:
    return re.findall(r"^    +(\w+(?:Transport|Client)|Client) ", text, re.MULTILINE)


def test_main_without_arguments_pushes_and_pulls_artifact(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    output = capsys.readouterr().out
    assert "\x1b" not in output  # stdout is not a terminal
    for method, status in (("POST", "202 Accepted"), ("PUT", "201 Created"), ("HEAD", "200 OK"), ("GET", "200 OK")):
        tree = re.search(rf"^  {method} http://127\.0\.0\.1:\d+/v2/\S+\n((?:    .*\n)+)", output, re.MULTILINE)
        assert tree, output
        assert list(dict.fromkeys(layer_names(tree[1]))) == ["Client", *LAYERS]
        assert re.search(rf"^    RetryTransport +{status} +\d+\.\d ms", tree[1], re.MULTILINE)
    assert "\nPulled and verified 3145728 bytes with the digest sha256:" in output


def test_main_without_arguments_shows_work_of_every_layer(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    output = capsys.readouterr().out
    for part in (
        "+ User-Agent: ociwire/",
        "Expect: 100-continue",
        "requires Bearer for repository:demonstration:pull,push",
        "with a password, for repository:demonstration:pull,push",
        "grants a token, for 300",
        "+ Authorization: Bearer ***",
        "sent 3.0 MiB, first byte after ",
        "503 Service Unavailable",
        "sent 2 times",
        "followed 1 redirect, without credentials to another origin",
    ):
        assert part in output
    summed = output.partition("what each layer did\n")[2]
    assert re.findall(r"^  (\w+Transport) +\d+ +\d+ +\d+\.\d ms", summed, re.MULTILINE) == LAYERS
    assert "s3cret" not in output
    assert not re.search(r"token-\d|Basic \w", output)


def test_demo_body_is_read_after_100_continue(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    match = re.search(r"sent 3.0 MiB, first byte after (\d+\.\d) ms", capsys.readouterr().out)
    assert match
    assert float(match[1]) > 0


def test_main_on_terminal_uses_colours(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    main([])
    assert "\x1b[32m200 OK" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    main([])
    assert "\x1b" not in capsys.readouterr().out


@pytest.fixture
def docker_config(monkeypatch: pytest.MonkeyPatch) -> Any:
    def write(host: str, username: str, password: str) -> None:
        entry = {"username": username, "password": password}
        monkeypatch.setenv("DOCKER_AUTH_CONFIG", json.dumps({"auths": {host: entry}}))

    return write


def test_explain_existing_reference_prints_descriptor(capsys: pytest.CaptureFixture[str], docker_config: Any) -> None:
    registry = AuthGuard(FunctionTransport(lambda request: response), users={"me": "s3cret"}, realm="/token")
    response = Response(200, {"Docker-Content-Digest": DIGEST, "Content-Length": "7", "Content-Type": MANIFEST})
    with serve(registry) as url:
        docker_config(url.host, "me", "s3cret")
        assert main(["explain", "--insecure", f"{url.host}/team/app:v1"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert f"credentials for {url.host}: user 'me', password, from $DOCKER_AUTH_CONFIG, auths[" in output.out
    assert "requires Bearer for repository:team/app:pull" in output.out
    assert "grants a token" in output.out
    assert f"  {DIGEST}\n  {MANIFEST}, 7 bytes\n" in output.out
    assert "s3cret" not in output.out


def test_explain_failure_prints_step_and_hint(capsys: pytest.CaptureFixture[str], docker_config: Any) -> None:
    with serve(AuthGuard(MemoryRegistry(), users={"me": "s3cret"}, realm="/token")) as url:
        docker_config(url.host, "me", "wr0ng")
        assert main(["explain", "--insecure", f"{url.host}/team/app:v1"]) == 1
        refused = capsys.readouterr()
        docker_config(url.host, "me", "s3cret")
        assert main(["explain", "--insecure", f"{url.host}/team/app@{DIGEST}"]) == 1
        missing = capsys.readouterr()
    assert "refused the credentials of user 'me' from $DOCKER_AUTH_CONFIG, auths[" in refused.err
    assert "Step: the token. Log in (docker login)" in refused.err
    assert "CredentialsRejected" in refused.out
    assert "wr0ng" not in refused.out + refused.err
    assert f"team/app has no manifest {DIGEST}" in missing.err  # from the GET, as a HEAD has no body
    assert "Step: the registry. Not found." in missing.err


def test_explain_connection_refused_prints_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--insecure", "127.0.0.1:1/app"]) == 1
    output = capsys.readouterr()
    assert "ConnectError" in output.out
    assert "cannot connect to http://127.0.0.1:1" in output.err
    assert "Step: the connection." in output.err


def test_explain_jwt_prints_granted_scope(capsys: pytest.CaptureFixture[str], docker_config: Any) -> None:
    claims = "eyJhY2Nlc3MiOiBbeyJ0eXBlIjogInJlcG9zaXRvcnkiLCAibmFtZSI6ICJhcHAiLCAiYWN0aW9ucyI6IFsicHVsbCJdfV19"

    def answer(request: Any) -> Response:
        if "/token" in request.url:
            return Response(200, (), json.dumps({"token": f"e30.{claims}.sig", "expires_in": 60}).encode())
        if "authorization" in request.headers:
            return Response(403)
        realm = request.url.partition("/v2/")[0]
        return Response(401, {"WWW-Authenticate": f'Bearer realm="{realm}/token",scope="repository:app:pull"'})

    with serve(FunctionTransport(answer)) as url:
        assert main(["explain", "--insecure", f"{url.host}/app"]) == 1
    output = capsys.readouterr()
    assert "grants repository:app:pull, for 60 s" in output.out
    assert claims not in output.out
    assert ", anonymous, for" in output.out
    assert "Step: the registry. Access is denied." in output.err


@pytest.mark.parametrize("reference", ["", "Upper:case:twice", "app@sha256:short"])
def test_explain_invalid_reference_exits_with_2(reference: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", reference]) == 2
    assert "ociwire: invalid " in capsys.readouterr().err


def test_hint_exists_for_every_error() -> None:
    kinds = [kind for kind in vars(ociwire.errors).values() if inspect.isclass(kind) and issubclass(kind, OciwireError)]
    assert all(get_hint(kind("x")).startswith("Step: ") for kind in kinds)
    assert not Style(colours=False).paint("red", "x").startswith("\x1b")


def test_module_is_runnable() -> None:
    output = subprocess.run([sys.executable, "-m", "ociwire", "--version"], capture_output=True, text=True, check=True)
    assert output.stdout == f"ociwire {__version__}\n"


def test_main_broken_pipe_exits_quietly() -> None:
    process = subprocess.Popen([sys.executable, "-u", "-m", "ociwire"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, output = process.communicate(timeout=30)
    assert output == b""
    assert process.returncode == 1


def test_explain_ca_option_trusts_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    ca, file = trustme.CA(), tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(file))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("localhost").configure_cert(context)
    response = Response(200, {"Docker-Content-Digest": DIGEST, "Content-Length": "7", "Content-Type": MANIFEST})
    with serve(FunctionTransport(lambda request: response), tls=context) as url:
        reference = f"localhost:{url.host.rpartition(':')[2]}/team/app:v1"
        assert main(["explain", reference]) == 1
        assert "(--ca)" in capsys.readouterr().err
        assert main(["explain", "--ca", str(file), reference]) == 0
    assert main(["explain", "--ca", str(tmp_path / "none.pem"), reference]) == 2
    assert "none.pem" in capsys.readouterr().err


def test_explain_proxy_option_uses_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--proxy", "http://me:s3cret@127.0.0.1:1", "registry.example/app"]) == 1
    output = capsys.readouterr()
    assert "proxy http://127.0.0.1:1" in output.err
    assert "s3cret" not in output.out + output.err
    assert main(["explain", "--proxy", "socks5://127.0.0.1:1", "registry.example/app"]) == 2
    assert "invalid proxy URL" in capsys.readouterr().err


def test_hint_insufficient_scope_does_not_suggest_login() -> None:
    challenge = {"WWW-Authenticate": 'Bearer realm="https://a.example/token",error="insufficient_scope"'}
    assert "Access is denied." in get_hint(Unauthorized(status=401, headers=Headers(challenge)))
    assert "docker login" in get_hint(Unauthorized(status=401))


def test_explain_refused_head_prints_message_of_get(capsys: pytest.CaptureFixture[str]) -> None:
    words = b'{"errors": [{"code": "UNAUTHORIZED", "message": "your trial has ended"}]}'
    with serve(FunctionTransport(lambda request: Response(401, (), words))) as url:
        assert main(["explain", "--insecure", f"{url.host}/app"]) == 1
    assert "your trial has ended" in capsys.readouterr().err
