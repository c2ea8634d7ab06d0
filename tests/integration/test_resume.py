"""Resume an upload in another process by its ID."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ociwire
from ociwire import Client, Descriptor, Digest
from ociwire.errors import BlobUploadUnknown

REPOSITORY = "real/resumed"
CHUNK = 64 * 1024
PATIENCE = 20.0

CONTENT = "content = b''.join(number.to_bytes(4, 'big') for number in range(100_000))"
START_UPLOAD = f"""
import sys
from ociwire import Client
{CONTENT}
with Client(sys.argv[1], insecure=True) as client:
    with client.push_blob_chunked({REPOSITORY!r}, {CHUNK}) as writer:
        writer.write(content[:250_001])
    print(writer.id)
"""
RESUME_UPLOAD = f"""
import sys
from ociwire import Client, Digest
{CONTENT}
with Client(sys.argv[1], insecure=True) as client:
    writer = client.push_blob_chunked_resume({REPOSITORY!r}, sys.argv[2])
    print(writer.size)
    writer.write(content[writer.size:])
    print(writer.commit(Digest.of(content)).digest)
"""
WRITE_UNTIL_KILLED = f"""
import sys
from ociwire import Client
{CONTENT}
client = Client(sys.argv[1], insecure=True)
writer = client.push_blob_chunked({REPOSITORY!r}, {CHUNK})
writer.write(content[:250_001])
print(writer.id, writer.flushed, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def client(registry_host: str) -> Iterator[Client]:
    with Client(registry_host, insecure=True) as client:
        yield client


@pytest.fixture
def content() -> bytes:
    names: dict[str, bytes] = {}
    exec(CONTENT, names)
    return names["content"]


def command(program: str, *arguments: str) -> list[str]:
    """Return the command that runs a program with the same ociwire. Warnings are errors."""
    setup = f"import sys; sys.path.insert(0, {str(Path(ociwire.__file__).parent.parent)!r})"
    return [sys.executable, "-W", "error", "-c", f"{setup}\n{program}", *arguments]


def run(program: str, *arguments: str) -> list[str]:
    done = subprocess.run(command(program, *arguments), capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_resume_upload_in_another_process(registry_host: str, client: Client, content: bytes) -> None:
    (id_,) = run(START_UPLOAD, registry_host)
    size, digest = run(RESUME_UPLOAD, registry_host, id_)
    assert (size, digest) == ("250001", Digest.of(content))
    assert client.get_blob(REPOSITORY, digest).read() == content
    with pytest.raises(BlobUploadUnknown):
        client.push_blob_chunked_resume(REPOSITORY, id_)


def test_resume_upload_of_killed_process_in_another_process(registry_host: str, client: Client, content: bytes) -> None:
    with subprocess.Popen(
        command(WRITE_UNTIL_KILLED, registry_host), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        id_, flushed = process.stdout.readline().split()
        process.kill()
        assert process.wait(PATIENCE) == -9
    # buffered bytes are lost, acknowledged ones are not
    assert int(flushed) == 250_001 // CHUNK * CHUNK
    size, digest = run(RESUME_UPLOAD, registry_host, id_)
    assert (size, digest) == (flushed, Digest.of(content))
    assert client.get_blob(REPOSITORY, digest).read() == content


def test_resume_upload_of_another_process(registry_host: str, client: Client, content: bytes) -> None:
    (id_,) = run(START_UPLOAD, registry_host)
    with client.push_blob_chunked_resume(REPOSITORY, id_, 250_001) as writer:
        writer.write(content[250_001:])
    assert writer.commit(Digest.of(content)) == Descriptor("application/octet-stream", Digest.of(content), len(content))
    assert client.get_blob(REPOSITORY, Digest.of(content)).read() == content
