"""TLS of csrm.serve: a process that speaks HTTPS only, and certificates renewed while it serves."""

from __future__ import annotations

import signal
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from serve_client import (
    CHAT,
    WAIT_S,
    RunningApp,
    config_text,
    httpx,
    options_for,
    serve_artifact,
    wait_for,
    write_configs,
)
from test_serve_process import Process

from csrm.errors import BadArgument
from csrm.serve.tls import Certificate

trustme = pytest.importorskip("trustme", reason="NO TLS TESTED: pip install trustme")
fixtures = (serve_artifact,)  # made known to pytest here


@dataclass
class Pair:
    """Files of a certificate for 127.0.0.1, and a client's context that trusts its issuer."""

    cert: Path
    key: Path

    def issue(self) -> ssl.SSLContext:
        """Writes a new certificate of a new issuer into the files."""
        issuer = trustme.CA()
        issued = issuer.issue_cert("127.0.0.1")
        for part, path in (
            (issued.cert_chain_pems[0], self.cert),
            (issued.private_key_pem, self.key),
        ):
            part.write_to_path(str(path.with_suffix(".new")))
            path.with_suffix(".new").replace(path)
        context = ssl.create_default_context()
        issuer.configure_trust(context)
        return context


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path / "tls.crt", tmp_path / "tls.key")


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(config_text("policy", 0.0))
    return path


@pytest.fixture
def trust(pair: Pair) -> ssl.SSLContext:
    return pair.issue()


@pytest.fixture
def server(
    serve_artifact: Path, policy: Path, pair: Pair, trust: ssl.SSLContext
) -> Iterator[Process]:
    given = ("--poll-s", "0", "--tls-cert", str(pair.cert), "--tls-key", str(pair.key))
    started = Process(serve_artifact, policy, *given)
    try:
        wait_for(lambda: any(line["event"] == "loaded" for line in started.lines()))
        port = next(line["port"] for line in started.lines() if line["event"] == "listening")
        started.url = f"https://127.0.0.1:{port}"
        yield started
    finally:
        started.process.kill()
        started.process.wait(WAIT_S)


def accepts(url: str, trust: ssl.SSLContext) -> bool:
    """Whether a new connection's certificate is one that `trust` accepts."""
    try:
        return httpx.get(f"{url}/readyz", verify=trust).status_code == 200
    except httpx.ConnectError:
        return False


def test_tls_server_answers_https_and_nothing_else(server: Process, trust: ssl.SSLContext) -> None:
    answer = httpx.post(f"{server.url}/v1/score", json={"messages": CHAT}, verify=trust)
    assert answer.json()["verdict"] == "compliant"
    assert not accepts(server.url, ssl.create_default_context())
    with pytest.raises(httpx.TransportError):
        httpx.get(server.url.replace("https", "http") + "/readyz")
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    port = int(server.url.rpartition(":")[2])
    with (
        socket.create_connection(("127.0.0.1", port), WAIT_S) as plain,
        pytest.raises(ssl.SSLError),
    ):
        old.wrap_socket(plain)
    assert server.stop() == 0


def test_tls_renewed_certificate_serves_new_connections_and_old_ones_stay(
    server: Process, pair: Pair, trust: ssl.SSLContext
) -> None:
    with httpx.Client(base_url=server.url, verify=trust) as standing:
        assert standing.get("/readyz").status_code == 200
        renewed = pair.issue()
        assert not accepts(server.url, renewed)
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: accepts(server.url, renewed))
        assert not accepts(server.url, trust)
        assert standing.get("/readyz").status_code == 200  # its connection stands
    assert server.stop() == 0


def test_tls_bad_renewal_keeps_the_old_certificate_and_is_counted(
    server: Process, pair: Pair, trust: ssl.SSLContext
) -> None:
    pair.key.write_text("no key")
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: any(line["event"] == "reloaded" for line in server.lines()))
    assert [line["error"] for line in server.lines() if line["event"] == "certificate_failed"]
    assert accepts(server.url, trust)
    metrics = httpx.get(f"{server.url}/metrics", verify=trust).text
    assert 'csrm_reloads_total{result="failed"} 1.0' in metrics
    assert server.stop() == 0


def test_tls_bad_config_does_not_keep_an_old_certificate(
    server: Process, pair: Pair, policy: Path
) -> None:
    renewed = pair.issue()
    policy.write_text("rules: [")
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: any(line["event"] == "reload_failed" for line in server.lines()))
    assert accepts(server.url, renewed)


def test_tls_changed_file_is_renewed_by_itself(
    serve_artifact: Path, tmp_path: Path, pair: Pair, trust: ssl.SSLContext
) -> None:
    configs = write_configs(tmp_path / "c")
    given = {"tls_cert": pair.cert, "tls_key": pair.key, "poll_s": 0.02}
    with RunningApp(options_for(serve_artifact, configs, **given)).ready() as app:
        before = app.service.certificate._current
        pair.issue()
        wait_for(lambda: app.service.certificate._current is not before)


@pytest.mark.parametrize("damage", ["other key", "no PEM", "absent", "encrypted"])
def test_tls_unusable_files_are_typed(pair: Pair, trust: ssl.SSLContext, damage: str) -> None:
    if damage == "other key":
        kept = pair.cert.read_bytes()
        pair.issue()
        pair.cert.write_bytes(kept)
    elif damage == "no PEM":
        pair.cert.write_text("secret-text")
    elif damage == "absent":
        pair.key.unlink()
    else:
        from cryptography.hazmat.primitives import serialization

        key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
        locked = serialization.BestAvailableEncryption(b"secret-text")
        form = serialization.PrivateFormat.PKCS8
        pair.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, locked))
    with pytest.raises(BadArgument) as caught:
        Certificate(pair.cert, pair.key)
    assert "secret-text" not in str(caught.value)


def test_tls_certificate_without_key_is_refused(serve_artifact: Path, pair: Pair) -> None:
    with pytest.raises(BadArgument):
        options_for(serve_artifact, Path("c"), tls_cert=pair.cert)
