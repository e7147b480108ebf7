"""TLS without a proxy: `server.tls_cert` and `server.tls_key`, and their error messages."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidMessage

from tests.helpers import fake_engine, get, running, settings
from wsavatar.serve.tls import TlsError, tls_context


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with cert.pem and key.pem for 127.0.0.1, another key, and a key with password."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed: no certificate to serve")
    directory = tmp_path_factory.mktemp("tls")

    def run(command: str) -> None:
        subprocess.run([openssl, *command.split()], cwd=directory, check=True, capture_output=True)

    key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    name = "-subj /CN=test -addext subjectAltName=IP:127.0.0.1"
    run(f"req -x509 {key} -keyout key.pem -out cert.pem -days 2 {name}")
    run("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:prime256v1 -out other.pem")
    run("pkey -in key.pem -aes256 -passout pass:word -out locked.pem")
    return directory


async def test_one_port_speaks_https_and_wss(files: Path) -> None:
    """With a certificate the same port serves the page and the WebSocket over TLS."""
    chosen = settings(server={"tls_cert": files / "cert.pem", "tls_key": files / "key.pem"})
    trusted = ssl.create_default_context(cafile=str(files / "cert.pem"))
    async with running(fake_engine(), chosen) as server:
        async with connect(f"wss://127.0.0.1:{server.port}/v1/realtime", ssl=trusted) as client:
            assert "session.created" in str(await client.recv())
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=trusted)
        writer.write(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert b" 200 " in (await reader.read())
        writer.close()


async def test_a_plain_client_on_a_tls_port_is_closed(
    files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A plain client on a TLS port is closed at once; the next one is served."""
    chosen = settings(server={"tls_cert": files / "cert.pem", "tls_key": files / "key.pem"})
    trusted = ssl.create_default_context(cafile=str(files / "cert.pem"))
    async with running(fake_engine(), chosen) as server:
        with pytest.raises(InvalidMessage):
            await connect(f"ws://127.0.0.1:{server.port}/v1/realtime")
        async with connect(f"wss://127.0.0.1:{server.port}/v1/realtime", ssl=trusted) as client:
            assert "session.created" in str(await client.recv())
    assert [record for record in caplog.records if record.exc_info] == []


async def test_a_tls_client_on_a_plain_port_fails_at_once() -> None:
    """wss:// to a server without TLS is refused, not left waiting."""
    async with running(fake_engine()) as server:
        with pytest.raises(ssl.SSLError):
            async with asyncio.timeout(30):
                await connect(f"wss://127.0.0.1:{server.port}/v1/realtime")
        assert (await get(server, "/healthz")).status == 200


def test_a_certificate_that_cannot_be_used_is_explained(files: Path, tmp_path: Path) -> None:
    """Each mistake names the setting, the file and what to do; none asks for a password."""
    cert, key = files / "cert.pem", files / "key.pem"
    noise = tmp_path / "noise.pem"
    noise.write_bytes(b"no certificate")
    mistakes = [
        (tmp_path / "none.pem", key, r"server\.tls_cert: .*none\.pem: No such file"),
        (cert, tmp_path / "none.pem", r"server\.tls_key: .*none\.pem: No such file"),
        (cert, files / "other.pem", r"other\.pem is not the key of .*cert\.pem"),
        (cert, files / "locked.pem", r"the key has a password.*openssl pkey"),
        (cert, None, r"cert\.pem \(server\.tls_key is not set\)"),
        (noise, key, r"no certificate and key in PEM form in .*noise\.pem"),
        (None, key, r"tls_key needs server\.tls_cert"),
    ]
    for certificate, its_key, message in mistakes:
        with pytest.raises(TlsError, match=message):
            tls_context(certificate, its_key)
    both = tmp_path / "both.pem"
    both.write_bytes(cert.read_bytes() + key.read_bytes())
    assert tls_context(both, None) is not None
    assert tls_context(None, None) is None
