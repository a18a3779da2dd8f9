"""Downloads against a server of our own on this machine: https alone, sha256, a size cap, nothing
half done."""

import hashlib
import http.server
import shutil
import socket
import ssl
import subprocess
import threading

import pytest

from ravine.data.download import hub
from ravine.data.download.cache import cache_root, data_root
from ravine.data.download.download import fetch
from ravine.errors import InputError, RavineError
from ravine.storage.files import atomic

CONTENT = b"0123456789" * 100_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/to-http":
            self.send_response(302)
            self.send_header("Location", "http://localhost:1/file")
            self.end_headers()
            return
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", "https://" + self.path.removeprefix("/to/"))
            self.end_headers()
            return
        if self.path == "/none":
            self.send_error(404)
            return
        self.send_response(200)
        if self.path != "/unannounced":
            said = "ten" if self.path == "/ten" else str(len(CONTENT))
            self.send_header("Content-Length", said)
        self.end_headers()
        self.wfile.write(CONTENT[:5000] if self.path == "/cut" else CONTENT)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """(address, context that trusts it)"""
    if not shutil.which("openssl"):
        pytest.skip("openssl makes the certificate of the test server")
    place = tmp_path_factory.mktemp("server")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key -out cert -days 2 -subj /CN=localhost"
    alternative = ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command.split(), *alternative], cwd=place, check=True, capture_output=True)
    httpd = http.server.ThreadingHTTPServer(("localhost", 0), Handler)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(place / "cert", place / "key")
    httpd.socket = tls.wrap_socket(httpd.socket, server_side=True)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield (
        f"https://localhost:{httpd.server_port}",
        ssl.create_default_context(cafile=place / "cert"),
    )
    httpd.shutdown()


@pytest.fixture
def get(server, tmp_path, monkeypatch):
    """Fetch a path into an empty folder, without the proxy of the machine."""
    address, context = server
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)

    def run(path, *, sha256=SHA256, limit=2_000_000):
        return fetch(
            address + path, tmp_path / "cache" / "file", sha256=sha256, limit=limit, context=context
        )

    return run


@pytest.mark.parametrize("path", ["/file", "/unannounced", "/ten"])
def test_a_file_is_fetched_once(get, path, tmp_path, monkeypatch):
    assert get(path).read_bytes() == CONTENT
    monkeypatch.setattr("urllib.request.build_opener", lambda *_: pytest.fail("fetched twice"))
    assert get(path).read_bytes() == CONTENT
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["file"]


BAD = {
    "another sha256": ("/file", {"sha256": "0" * 64}, "expected 0000"),
    "larger than announced as allowed": ("/file", {"limit": 999_999}, "999,999 bytes"),
    "larger without saying so": ("/unannounced", {"limit": 999_999}, "999,999 bytes"),
    "cut short": ("/cut", {}, "could not be fetched"),
    "not there": ("/none", {}, "Not Found"),
    "sent on to http": ("/to-http", {}, "https://"),
}


@pytest.mark.parametrize("case", BAD)
def test_nothing_is_kept_of_what_is_wrong(case, get, tmp_path):
    path, settings, message = BAD[case]
    with pytest.raises(RavineError, match=message):
        get(path, **settings)
    folder = tmp_path / "cache"
    assert not folder.exists() or not list(folder.iterdir())


PRIVATE = [
    "127.0.0.1",
    "[::1]",
    "10.1.2.3",
    "192.168.0.1",
    "169.254.169.254",
    "[fe80::1]",
    "0.0.0.0",
]
PRIVATE += ["[::ffff:127.0.0.1]", "100.64.0.1", "printer.lan", "LOCALHOST."]


@pytest.mark.parametrize("host", PRIVATE)
@pytest.mark.parametrize("proxy", [False, True])
def test_nobody_is_sent_on_to_a_private_address(host, proxy, get, monkeypatch, tmp_path):
    """No connection is begun there; whatever a name is said to mean."""
    addresses, begun = socket.getaddrinfo, []

    def named(name, *rest, **more):
        name = "172.16.0.9" if name == "printer.lan" else name
        return addresses(name, *rest, **more)

    connect = socket.create_connection

    def connected(address, *rest, **more):
        begun.append(address[0])
        return connect(address, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", named)
    monkeypatch.setattr(socket, "create_connection", connected)
    if proxy:  # it would look the name up: only what is plainly private can be refused here
        if host == "printer.lan":
            pytest.skip("the proxy knows what it means")
        monkeypatch.setenv("https_proxy", "http://192.0.2.1:9")
        monkeypatch.setenv("no_proxy", "localhost")
    with pytest.raises(RavineError, match="an address of this machine or its network"):
        get(f"/to/{host}:9/file")
    assert begun == ["localhost"]
    assert not list(tmp_path.glob("cache/*"))


def test_the_host_that_was_named_may_send_on_to_itself(server, get):
    port = server[0].rpartition(":")[2]
    assert get(f"/to/localhost:{port}/file").read_bytes() == CONTENT


def test_a_public_address_is_connected_to_by_what_was_looked_up(get, monkeypatch):
    """A name that means something else at the second look-up gains nothing."""
    found = [[(2, 1, 6, "", ("93.184.215.14", 9))], [(2, 1, 6, "", ("127.0.0.1", 9))]]
    addresses, begun, connect = socket.getaddrinfo, [], socket.create_connection
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda name, *a, **k: found.pop(0) if name == "a.example" else addresses(name, *a, **k)
    )  # fmt: skip

    def connected(address, *rest, **more):
        begun.append(address[0])
        if address[0] != "localhost":
            raise OSError("no network here")
        return connect(address, *rest, **more)

    monkeypatch.setattr(socket, "create_connection", connected)
    with pytest.raises(RavineError, match="no network here"):
        get("/to/a.example:9/file")
    assert begun == ["localhost", "93.184.215.14"]


def test_a_server_that_is_not_trusted(server, tmp_path):
    with pytest.raises(RavineError, match="certificate"):
        fetch(f"{server[0]}/file", tmp_path / "file", sha256=SHA256, limit=2_000_000)


def test_no_network(tmp_path):
    with pytest.raises(RavineError, match="RAVINE_DATA"):
        fetch("https://localhost:1/file", tmp_path / "file", sha256=SHA256, limit=10)


@pytest.mark.parametrize(
    "address", ["http://localhost/file", "file:///etc/hostname", "ftp://localhost/file"]
)
def test_https_alone(address, tmp_path):
    with pytest.raises(InputError, match="https://"):
        fetch(address, tmp_path / "file", sha256=SHA256, limit=10)


def test_a_file_takes_its_place_whole_or_not_at_all(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic(tmp_path / "file") as partial:  # noqa: PT012
        partial.write_text("half")
        raise KeyboardInterrupt
    assert [f.read_text() for f in tmp_path.iterdir()] == ["old"]
    with atomic(tmp_path / "file") as partial:
        partial.write_text("new")
    assert [f.read_text() for f in tmp_path.iterdir()] == ["new"]


def test_roots(monkeypatch, tmp_path):
    monkeypatch.setenv("RAVINE_DATA", str(tmp_path))
    assert data_root() == tmp_path
    assert cache_root() != tmp_path  # nothing is ever written to RAVINE_DATA
    monkeypatch.delenv("RAVINE_DATA")
    assert data_root() == cache_root()


# --- weights on the hub ---------------------------------------------------------------------------


@pytest.fixture
def hub_server(server, tmp_path, monkeypatch):
    address, context = server
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setattr(hub, "cache_root", lambda: tmp_path / "cache" / "data")
    return context


def test_weights_are_fetched_once_and_their_sha256_is_kept(hub_server, monkeypatch):
    path = hub.weights("hf:owner/net", hub_server)
    assert path.read_bytes() == CONTENT
    assert path.with_name("model.safetensors.sha256").read_text().strip() == SHA256
    assert hub.weights("hf:owner/net@v2/other.safetensors", hub_server).name == "other.safetensors"
    monkeypatch.setattr("urllib.request.build_opener", lambda *_: pytest.fail("fetched twice"))
    assert hub.weights("hf:owner/net", hub_server) == path
    path.write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(RavineError, match="not the one that was fetched"):
        hub.weights("hf:owner/net", hub_server)


def test_weights_are_capped_in_size(hub_server, monkeypatch):
    monkeypatch.setattr(hub, "LIMIT", 1000)
    with pytest.raises(RavineError, match="more than the 1,000 bytes"):
        hub.weights("hf:owner/net", hub_server)


@pytest.mark.parametrize("name", ["hf:net", "hf:a/b/../../c.safetensors", "hf:a/b/x.bin", "hf:/x"])
def test_names_of_another_form_are_refused(name):
    with pytest.raises(InputError, match="hf:OWNER/NAME"):
        hub.weights(name)
