"""Fast servers: nginx for downloads, and a sink for uploads."""

from __future__ import annotations

import getpass
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SINK = textwrap.dedent(
    """
    import socket, sys, threading
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    def answer_all(connection):
        buffer = bytearray(1024 * 1024)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, connection.makefile("rb") as stream:
            while line := stream.readline():
                length, expects = 0, False
                method = line.split()[0]
                while (line := stream.readline()) not in (b"\\r\\n", b""):
                    name, _, value = line.partition(b":")
                    if name.lower() == b"content-length":
                        length = int(value)
                    expects = expects or name.lower() == b"expect"
                if method == b"HEAD":
                    answer = b"404 Not Found"
                elif method == b"POST":
                    answer = b"202 Accepted\\r\\nLocation: /v2/bench/blobs/uploads/1"
                else:
                    if expects:
                        connection.sendall(b"HTTP/1.1 100 Continue\\r\\n\\r\\n")
                    while length:
                        length -= stream.readinto(memoryview(buffer)[:length])
                    answer = b"201 Created"
                connection.sendall(b"HTTP/1.1 " + answer + b"\\r\\nContent-Length: 0\\r\\n\\r\\n")
    while True:
        threading.Thread(target=answer_all, args=(listener.accept()[0],), daemon=True).start()
    """
)


@contextmanager
def sink() -> Iterator[str]:
    """Serve a registry that accepts and discards every blob. Yields ``HOST:PORT``."""
    with subprocess.Popen([sys.executable, "-c", _SINK], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


@contextmanager
def nginx(folder: Path, limit_rate: str = "0") -> Iterator[str]:
    """Serve a folder with nginx. Yields ``HOST:PORT``.

    Args:
        folder: Folder that is served, and in which nginx stores its own files.
        limit_rate: Bytes per second and connection, in nginx's syntax. Defaults to 0, no limit.
    """
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/sbin")
    if binary is None:
        sys.exit("nginx is missing: apt-get install nginx-light")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;\n"
        f"user {getpass.getuser()};\n"
        "events {}\n"
        "http { access_log off; sendfile off; output_buffers 8 128k; keepalive_requests 1000000;\n"
        f"  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};\n"
        f"  uwsgi_temp_path {folder}; scgi_temp_path {folder}; limit_rate {limit_rate};\n"
        f"  server {{ listen 127.0.0.1:{port}; root {folder}; location = /v2/ {{ return 200; }}\n"
        "    location ~ /manifests/ { default_type application/vnd.oci.image.manifest.v1+json; } } }\n"
    )
    with subprocess.Popen([binary, "-p", str(folder), "-c", str(config)]) as process:
        try:
            _wait_for(port, process)
            yield f"127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            continue
        return
    sys.exit("nginx did not start")
