"""Downloads against a server of our own on this machine: https alone, sha256, a size cap, nothing
half done."""

import gzip
import hashlib
import http.server
import shutil
import socket
import ssl
import subprocess
import threading
import time

import pytest

from ravine.data.download import download, hub
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
        if self.path in HOSTILE:
            status, headers, body = HOSTILE[self.path]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.sent(body() if callable(body) else body)
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

    def sent(self, parts):
        """Parts until the other side has gone; a test that waits for the last of them hangs."""
        try:
            for part in parts:
                self.wfile.write(part)
        except OSError:
            pass

    def log_message(self, *_):
        pass


def slowly(data):
    for byte in data:
        time.sleep(0.01)
        yield bytes([byte])


def endless():
    while True:
        yield bytes(1 << 20)


SIZE = {"Content-Length": str(len(CONTENT))}
HOSTILE = {  # status, headers, body
    "/part": (206, SIZE, [CONTENT]),
    "/empty": (204, {}, []),
    "/gzip": (200, {**SIZE, "Content-Encoding": "gzip"}, [CONTENT]),
    "/bomb": (
        200,
        {"Content-Encoding": "gzip"},
        [gzip.compress(bytes(1 << 24)), *[b"\0" * 99] * 9],
    ),
    "/login": (200, {**SIZE, "Content-Type": "text/html; charset=utf-8"}, [CONTENT]),
    "/no-length": (200, {}, [CONTENT]),
    "/below-zero": (200, {"Content-Length": "-5"}, [CONTENT]),
    "/too-short": (200, {"Content-Length": str(len(CONTENT) - 1)}, [CONTENT]),
    "/endless": (200, {}, endless),
    "/slow": (200, SIZE, lambda: slowly(CONTENT)),
    "/slow-chunks": (200, {"Transfer-Encoding": "chunked"}, lambda: slowly(CONTENT)),
    "/to-endless": (302, {"Location": "/none"}, endless),
    "/to-itself": (302, {"Location": "/to-itself"}, []),
    "/to-half": (302, {"Location": "https://[::1/file"}, []),
    "/to-dots": (302, {"Location": "https://a..b/file"}, []),
    "/to-port": (302, {"Location": "https://a.example:99999999/file"}, []),
    "/to-file": (302, {"Location": "file:///etc/hostname"}, []),
    "/to-letters": (302, {"Location": "https://\u00fc.example:x/file"}, []),
    "/named": (200, {**SIZE, "Content-Disposition": "attachment; filename=../../x"}, [CONTENT]),
}


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        """Whoever is refused hangs up."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """(address, context that trusts it)"""
    if not shutil.which("openssl"):
        pytest.skip("openssl makes the certificate of the test server")
    place = tmp_path_factory.mktemp("server")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key -out cert -days 2 -subj /CN=localhost"
    alternative = ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command.split(), *alternative], cwd=place, check=True, capture_output=True)
    httpd = Server(("localhost", 0), Handler)
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


NOT_THE_FILE = {  # with a sha256 that is known, and without
    "/part": ("answers 206", "answers 206"),
    "/empty": ("answers 204", "answers 204"),
    "/gzip": ("packed", "packed"),
    "/bomb": ("packed", "packed"),
    "/login": ("", "a web page"),
    "/no-length": ("", "how long"),
    "/below-zero": ("", "how long"),
    "/too-short": ("expected", ""),
    "/endless": ("2,000,000 bytes", "how long"),
    "/to-endless": ("Not Found", "Not Found"),
    "/to-itself": ("infinite loop", "infinite loop"),
    "/to-half": ("could not be fetched", "could not be fetched"),
    "/to-dots": ("could not be fetched", "could not be fetched"),
    "/to-port": ("could not be fetched", "could not be fetched"),
    "/to-file": ("could not be fetched", "could not be fetched"),
    "/to-letters": ("could not be fetched", "could not be fetched"),
    "/named": ("", ""),
}


@pytest.mark.parametrize("path", NOT_THE_FILE)
@pytest.mark.parametrize("known", [True, False])
def test_an_answer_that_need_not_be_the_file_is_refused(path, known, get, tmp_path):
    """One line, nothing kept; where nothing is wrong the file is that of the right name."""
    message = NOT_THE_FILE[path][not known]
    if message:
        with pytest.raises(RavineError, match=message) as met:
            get(path, **({} if known else {"sha256": None}))
        assert "\n" not in str(met.value)
    else:
        get(path, **({} if known else {"sha256": None}))
    assert [f.name for f in tmp_path.glob("**/*") if f.is_file()] == ([] if message else ["file"])


@pytest.mark.parametrize("path", ["/slow", "/slow-chunks"])
def test_a_server_that_sends_byte_by_byte_is_left(path, get, monkeypatch, tmp_path):
    monkeypatch.setattr(download, "PATIENCE", 0.3)
    began = time.monotonic()
    with pytest.raises(RavineError, match="too slowly"):
        get(path)
    assert time.monotonic() - began < 10  # not the three hours that it would take
    assert not list(tmp_path.glob("cache/*"))


PRIVATE = [
    "127.0.0.1",
    "[::1]",
    "10.1.2.3",
    "192.168.0.1",
    "169.254.169.254",
    "[fe80::1]",
    "0.0.0.0",
]
PRIVATE += ["[::ffff:127.0.0.1]", "100.64.0.1", "printer.lan", "LOCALHOST.", "127.1", "2130706433"]
PRIVATE += ["0x7f.1", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "224.0.0.1", "intranet.localhost"]


@pytest.mark.parametrize("host", PRIVATE)
@pytest.mark.parametrize("proxy", [False, True])
def test_nobody_is_sent_on_to_a_private_address(host, proxy, get, monkeypatch, tmp_path):
    """No connection is begun there; whatever a name is said to mean."""
    addresses, begun = socket.getaddrinfo, []

    def named(name, *rest, **more):
        name = "172.16.0.9" if name in ("printer.lan", "intranet.localhost") else name
        return addresses(name, *rest, **more)

    connect = socket.create_connection

    def connected(address, *rest, **more):
        begun.append(address[0])
        return connect(address, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", named)
    monkeypatch.setattr(socket, "create_connection", connected)
    if proxy:  # it would look the name up: only what is plainly private can be refused here
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


def test_weights_that_are_another_file_are_not_kept(hub_server, monkeypatch, tmp_path):
    """What is fetched has no sha256 that is known before: a page that asks to log in would be kept."""
    monkeypatch.setitem(HOSTILE, "/owner/net/resolve/main/model.safetensors", HOSTILE["/login"])
    with pytest.raises(RavineError, match="a web page"):
        hub.weights("hf:owner/net", hub_server)
    assert not [f for f in tmp_path.glob("**/*") if f.is_file()]


OTHER_NAMES = [
    "hf:net",
    "hf:a/b/../../c.safetensors",
    "hf:a/b/x.bin",
    "hf:/x",
    "hf:a/b//x.safetensors",
]
OTHER_NAMES += [
    "hf:a/b//etc/x.safetensors",
    "hf:./b",
    "hf:a/..",
    "hf:a/b@../x.safetensors",
    "hf:a/b@",
]
OTHER_NAMES += [
    "hf:\u00e4/b",
    "hf:a/b/.x.safetensors",
    "hf:a/" + "b" * 300,
    "hf:a/b\n",
    "hf:a/b?x=1",
]


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_names_of_another_form_are_refused(name, monkeypatch):
    """A path that begins at the root would lead out of the cache, and its neighbour be deleted."""
    monkeypatch.setattr(hub, "fetch", lambda *_, **__: pytest.fail("fetched"))
    with pytest.raises(InputError, match="hf:OWNER/NAME"):
        hub.weights(name)
