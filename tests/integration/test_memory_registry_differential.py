"""Operations on MemoryRegistry and on docker-registry of Debian must have the same results.

`DIFFERENCES` lists the known differences and their reasons; the state machine avoids them.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from ociwire import Client, Descriptor, Digest, OciwireError, Request, UrllibTransport, errors
from ociwire._client.repository import add_query
from ociwire.media_types import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from ociwire.registry.memory import MemoryRegistry

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
SBOM = "application/vnd.example.sbom"
CONTENTS = [b"", b"x", b"{}", b"some content", bytes(range(256)) * 300]
CONFIG = CONTENTS[2]
NAMES = ["a", "b/c"]
TAGS = ["latest", "B", "a", "1.0"]
_PREFIXES = itertools.count()

names = st.sampled_from(NAMES)
contents = st.sampled_from(CONTENTS)
some_tags = st.lists(st.sampled_from(TAGS), max_size=3)


def image(media_type: str = OCI_MANIFEST, config: bytes = CONFIG, **fields: Any) -> bytes:
    descriptor = Descriptor.of(config, CONFIG_TYPE).to_dict()
    return json.dumps(
        {"schemaVersion": 2, "mediaType": media_type, "config": descriptor, "layers": [], **fields}
    ).encode()


SUBJECT = image(annotations={"note": "subject"})
_REFERS = {"subject": Descriptor.of(SUBJECT, OCI_MANIFEST).to_dict()}
IMAGES = [
    SUBJECT,
    image(annotations={"note": "1"}, **_REFERS),
    image(annotations={"note": "2"}, artifactType=SBOM, **_REFERS),
    image(config=b"never pushed"),
    image(layers=[Descriptor.of(content).to_dict() for content in CONTENTS]),
]
images = st.sampled_from(IMAGES)


def result_of(call: Callable[[], Any]) -> Any:
    """Return the result of a call, or the name of the class of its exception."""
    try:
        return call()
    except OciwireError as error:
        return type(error).__name__


def read(reader: Any) -> tuple[bytes, Descriptor]:
    with reader:
        return reader.read(), reader.descriptor


@pytest.fixture
def clients(registry_host: str) -> Iterator[tuple[Client, Client]]:
    """Yield a client of `MemoryRegistry` and one of docker-registry."""
    with contextlib.closing(UrllibTransport()) as transport:
        yield Client("registry.example", MemoryRegistry()), Client(registry_host, transport, insecure=True)


class DifferentialMachine(RuleBasedStateMachine):
    def __init__(self, real: Client) -> None:
        super().__init__()
        self.clients = (Client("registry.example", MemoryRegistry()), real)
        self.prefix = f"differential{next(_PREFIXES)}/"

    def assert_same(self, operation: Callable[[Client], Any]) -> Any:
        in_memory, real = (result_of(lambda client=client: operation(client)) for client in self.clients)
        assert in_memory == real
        return in_memory

    def name(self, name: str) -> str:
        return self.prefix + name

    # Blobs

    @rule(name=names, content=contents, single_use=st.booleans())
    def push_blob(self, name: str, content: bytes, single_use: bool) -> None:
        descriptor = Descriptor.of(content)
        self.assert_same(lambda c: c.push_blob(self.name(name), descriptor, iter([content]) if single_use else content))

    @rule(name=names, content=contents)
    def push_blob_of_other_digest(self, name: str, content: bytes) -> None:
        descriptor = Descriptor.of(content[::-1] + b"!").replace(size=len(content))
        assert self.assert_same(lambda c: c.push_blob(self.name(name), descriptor, content)) == "DigestInvalid"

    @rule(name=names, pieces=st.lists(st.binary(max_size=12), max_size=4), chunk=st.integers(1, 10))
    def push_chunks(self, name: str, pieces: list[bytes], chunk: int) -> None:
        def push(client: Client) -> Descriptor:
            with client.push_blob_chunked(self.name(name), chunk) as writer:
                for piece in pieces:
                    writer.write(piece)
            return writer.commit()

        self.assert_same(push)
        digest = Digest.of(b"".join(pieces))
        assert self.assert_same(lambda c: read(c.get_blob(self.name(name), digest)))[0] == b"".join(pieces)

    @rule(name=names, pieces=st.lists(st.binary(min_size=2, max_size=12), min_size=1, max_size=4))
    def resume_and_cancel(self, name: str, pieces: list[bytes]) -> None:
        def push(client: Client) -> list[Any]:
            sizes: list[Any] = []
            writer = client.push_blob_chunked(self.name(name))
            for piece in pieces:
                with writer:
                    writer.write(piece)
                writer = client.push_blob_chunked_resume(self.name(name), writer.id)
                sizes.append(writer.size)
            writer.cancel()
            return [*sizes, result_of(lambda: client.push_blob_chunked_resume(self.name(name), writer.id))]

        assert self.assert_same(push)[-1] == "BlobUploadUnknown"

    @rule(source=names, to=names, content=contents)
    def mount_blob(self, source: str, to: str, content: bytes) -> None:
        self.assert_same(lambda c: c.mount_blob(self.name(source), self.name(to), Digest.of(content)))

    @rule(name=names, content=contents)
    def delete_blob(self, name: str, content: bytes) -> None:
        self.assert_same(lambda c: c.delete_blob(self.name(name), Digest.of(content)))

    @rule(name=names, content=contents)
    def get_blob(self, name: str, content: bytes) -> None:
        self.assert_same(lambda c: read(c.get_blob(self.name(name), Digest.of(content))))
        self.assert_same(lambda c: c.resolve_blob(self.name(name), Digest.of(content)))

    @rule(
        name=names,
        content=contents,
        start=st.integers(0, 300),
        size=st.none() | st.integers(0, 300),
    )
    def get_blob_range(self, name: str, content: bytes, start: int, size: int | None) -> None:
        stop = None if size is None else start + size
        self.assert_same(lambda c: read(c.get_blob_range(self.name(name), Digest.of(content), start, stop)))

    # Manifests

    @rule(name=names, content=images, tags=some_tags, complete=st.booleans())
    def push_manifest(self, name: str, content: bytes, tags: list[str], complete: bool) -> None:
        if complete:
            self.push_blob(name=name, content=CONFIG, single_use=False)
        self.assert_same(lambda c: c.push_manifest(self.name(name), content, OCI_MANIFEST, tags=tags))

    @rule(name=names, content=images, tags=some_tags)
    def push_index(self, name: str, content: bytes, tags: list[str]) -> None:
        entry = Descriptor.of(content, OCI_MANIFEST)
        index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry.to_dict()]}).encode()
        self.assert_same(lambda c: c.push_manifest(self.name(name), index, OCI_INDEX, tags=tags))

    @rule(name=names, content=images, tag=st.sampled_from(TAGS))
    def get_manifest(self, name: str, content: bytes, tag: str) -> None:
        self.assert_same(lambda c: read(c.get_manifest(self.name(name), Digest.of(content))))
        self.assert_same(lambda c: c.resolve_manifest(self.name(name), Digest.of(content)))
        self.assert_same(lambda c: read(c.get_tag(self.name(name), tag)))
        self.assert_same(lambda c: c.resolve_tag(self.name(name), tag))

    @rule(name=names, content=images)
    def delete_manifest(self, name: str, content: bytes) -> None:
        self.assert_same(lambda c: c.delete_manifest(self.name(name), Digest.of(content)))

    # Lists

    @rule(name=names)
    def tags(self, name: str) -> None:
        def list_tags(client: Client) -> list[str]:
            try:
                tags = sorted(client.tags(self.name(name)))
            except errors.NameUnknown:
                tags = []  # see DIFFERENCES
            # docker-registry has no referrers API: the client uses the referrers tag
            return tags if client is self.clients[0] else [tag for tag in tags if not tag.startswith("sha256-")]

        self.assert_same(list_tags)

    @rule()
    def repositories(self) -> None:
        self.assert_same(lambda c: sorted(name for name in c.repositories() if name.startswith(self.prefix)))

    @rule(name=names, artifact_type=st.sampled_from([None, CONFIG_TYPE, SBOM]))
    def referrers(self, name: str, artifact_type: str | None) -> None:
        self.assert_same(lambda c: list(c.referrers(self.name(name), Digest.of(SUBJECT), artifact_type=artifact_type)))

    def teardown(self) -> None:
        """Check that both registries have the same content."""
        for name in NAMES:
            for content in CONTENTS:
                self.get_blob(name=name, content=content)
                self.get_blob_range(name=name, content=content, start=1, size=2)
            for content, tag in itertools.zip_longest(IMAGES, TAGS, fillvalue=TAGS[0]):
                self.get_manifest(name=name, content=content, tag=tag)
            self.tags(name=name)
            self.referrers(name=name, artifact_type=None)


# Differences and their reasons. docker-registry 2.8 is older than version 1.1 of the distribution specification.


def push(client: Client, name: str, content: bytes = SUBJECT, media_type: str = OCI_MANIFEST, **options: Any) -> str:
    client.push_blob(name, Descriptor.of(CONFIG, CONFIG_TYPE), CONFIG)
    client.push_manifest(name, content, media_type, **options)
    return "pushed"


def request_status(client: Client, method: str, url: str, body: bytes | None = None, **headers: str) -> int:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    with client.do(Request(method, url, fields, body)) as response:
        return response.status


def open_upload(client: Client, name: str) -> str:
    with client.push_blob_chunked(name) as writer:
        return writer.id


def tags_of_repository_without_tags(client: Client, name: str) -> Any:
    """docker-registry 2.8 lists no tags of a repository without tags: it answers NAME_UNKNOWN."""
    client.push_blob(name, Descriptor.of(CONFIG), CONFIG)
    return list(client.tags(name))


def order_of_tags(client: Client, name: str) -> Any:
    """docker-registry 2.8 does not sort tags. The sorted lists are the same."""
    push(client, name, tags=["b", "a", "B", "A"])
    tags = list(client.tags(name))
    return sorted(tags), tags == ["A", "a", "B", "b"]


def tags_start_after(client: Client, name: str) -> Any:
    """docker-registry 2.8 does not support `n` and `last` for tags."""
    push(client, name, tags=["a", "b", "c"])
    return len(list(client.tags(name, start_after="b")))


def tags_limit_of_0(client: Client, name: str) -> Any:
    """docker-registry 2.8 ignores `n`, also `n=0`."""
    push(client, name, tags=["a", "b"])
    with client.do(Request("GET", f"/v2/{name}/tags/list?n=0")) as response:
        return len(response.json()["tags"])


def delete_tag(client: Client, name: str) -> Any:
    """docker-registry 2.8 deletes manifests by digest only."""
    push(client, name, tags=["a", "b"])
    client.delete_tag(name, "a")
    return list(client.tags(name))


def push_manifest_of_other_algorithm(client: Client, name: str) -> Any:
    """docker-registry 2.8 stores manifests by sha256 only."""
    return push(client, name, digest=Digest.of(SUBJECT, "sha512"))


def push_manifest_of_unknown_type(client: Client, name: str) -> Any:
    """docker-registry 2.8 accepts only the media types that it knows."""
    return push(client, name, image("application/vnd.example+json"), "application/vnd.example+json")


def push_manifest_over_limit(client: Client, name: str) -> Any:
    """docker-registry 2.8 does not answer 413."""
    return push(client, name, SUBJECT + b" " * (4 << 20))


def push_manifest_with_missing_blob(client: Client, name: str) -> Any:
    """The status is 404 in the table of endpoints of the specification, and 400 in 2.8. The code is the same."""
    return request_status(client, "PUT", f"/v2/{name}/manifests/a", IMAGES[3], Content_Type=OCI_MANIFEST)


def push_manifest_with_several_tags(client: Client, name: str) -> Any:
    """docker-registry 2.8 ignores `tag=`. The client then pushes each tag."""
    push(client, name)
    url = f"/v2/{name}/manifests/{Digest.of(SUBJECT)}?tag=a&tag=b"
    with client.do(Request("PUT", url, {"Content-Type": OCI_MANIFEST}, SUBJECT)) as response:
        return response.headers.get_all("oci-tag")


def referrers_api(client: Client, name: str) -> Any:
    """docker-registry 2.8 has no referrers API. The client uses the referrers tag."""
    return request_status(client, "GET", f"/v2/{name}/referrers/{Digest.of(SUBJECT)}")


def push_manifest_with_if_none_match(client: Client, name: str) -> Any:
    """docker-registry 2.8 sends ETags, and ignores conditions in requests that write."""
    push(client, name, tags=["a"])
    return request_status(
        client, "PUT", f"/v2/{name}/manifests/a", SUBJECT, Content_Type=OCI_MANIFEST, If_None_Match="*"
    )


def patch_out_of_order(client: Client, name: str) -> Any:
    """docker-registry 2.8 ignores Content-Range and appends the chunk."""
    return request_status(client, "PATCH", open_upload(client, name), b"abcd", Content_Range="5-8")


def push_blob_by_single_post(client: Client, name: str) -> Any:
    """docker-registry 2.8 opens an upload (202), which needs a PUT."""
    return request_status(client, "POST", f"/v2/{name}/blobs/uploads/?digest={Digest.of(b'x')}", b"x")


def mount_blob_without_from(client: Client, name: str) -> Any:
    """docker-registry 2.8 does not mount a blob without a source repository."""
    push(client, name)
    return request_status(client, "POST", f"/v2/{name}/to/blobs/uploads/?mount={Digest.of(CONFIG)}")


def commit_again_after_wrong_digest(client: Client, name: str) -> Any:
    """docker-registry 2.8 deletes an upload after a wrong digest. The specification does not define this case."""
    writer = client.push_blob_chunked(name, 2)
    writer.write(b"abcd")
    first = result_of(lambda: writer.commit(Digest.of(b"x")))
    return first, result_of(lambda: writer.commit(Digest.of(b"abcd")).size)


def tags_of_invalid_name(client: Client, name: str) -> Any:
    """docker-registry 2.8 has no route for invalid names, and so does not answer NAME_INVALID."""
    return request_status(client, "GET", f"/v2/{name.upper()}/tags/list")


def get_blob_several_ranges(client: Client, name: str) -> Any:
    """A server may ignore several ranges. 2.8 answers with a multipart body, as net/http of Go does."""
    push(client, name)
    return request_status(client, "GET", f"/v2/{name}/blobs/{Digest.of(CONFIG)}", Range="bytes=0-0,1-1")


DIFFERENCES: list[tuple[Callable[[Client, str], Any], Any, Any]] = [
    (tags_of_repository_without_tags, [], "NameUnknown"),
    (order_of_tags, (["A", "B", "a", "b"], True), (["A", "B", "a", "b"], False)),
    (tags_start_after, 1, 3),
    (tags_limit_of_0, 0, 2),
    (delete_tag, ["b"], "DigestInvalid"),
    (push_manifest_of_other_algorithm, "pushed", "DigestInvalid"),
    (push_manifest_of_unknown_type, "pushed", "ManifestInvalid"),
    (push_manifest_over_limit, "SizeInvalid", "ManifestInvalid"),
    (push_manifest_with_missing_blob, 404, 400),
    (push_manifest_with_several_tags, ("a", "b"), ()),
    (referrers_api, 200, 404),
    (push_manifest_with_if_none_match, 412, 201),
    (patch_out_of_order, 416, 202),
    (push_blob_by_single_post, 201, 202),
    (mount_blob_without_from, 201, 202),
    (commit_again_after_wrong_digest, ("DigestInvalid", 4), ("DigestInvalid", "BlobUploadInvalid")),
    (tags_of_invalid_name, 400, 404),
    (get_blob_several_ranges, 200, 206),
]


@pytest.mark.parametrize(
    ("operation", "in_memory", "real"), DIFFERENCES, ids=[operation.__name__ for operation, *_ in DIFFERENCES]
)
def test_memory_registry_known_difference_still_exists(
    clients: tuple[Client, Client], operation: Callable[[Client, str], Any], in_memory: Any, real: Any
) -> None:
    name = f"differential/{operation.__name__}"
    assert [result_of(lambda client=client: operation(client, name)) for client in clients] == [in_memory, real]


AGREEMENTS: list[Callable[[Client, str], Any]] = [
    lambda client, name: push(client, name, image(DOCKER_MANIFEST), DOCKER_MANIFEST, tags=["a"]),
    lambda client, name: push(client, name, b"{"),
    lambda client, name: request_status(client, "GET", "/v2/"),
    lambda client, name: request_status(client, "GET", f"/v2/{name}/blobs/sha256:12"),
    lambda client, name: request_status(client, "GET", f"/v2/{name}/manifests/-a"),
    lambda client, name: request_status(client, "GET", open_upload(client, name)),
    lambda client, name: request_status(client, "DELETE", open_upload(client, name)),
    lambda client, name: request_status(client, "PUT", add_query(open_upload(client, name), {"digest": "x"})),
    lambda client, name: request_status(client, "POST", f"/v2/{name}/blobs/uploads/?mount={Digest.of(b'')}&from=X"),
    lambda client, name: request_status(
        client, "PUT", f"/v2/{name}/manifests/{Digest.of(b'')}", SUBJECT, Content_Type=OCI_MANIFEST
    ),
]


@pytest.mark.parametrize("number", range(len(AGREEMENTS)))
def test_memory_registry_single_operations_match_docker_registry(clients: tuple[Client, Client], number: int) -> None:
    name = f"differential/agreement{number}"
    in_memory, real = (result_of(lambda client=client: AGREEMENTS[number](client, name)) for client in clients)
    assert in_memory == real


def test_memory_registry_any_operations_match_docker_registry(clients: tuple[Client, Client]) -> None:
    run_state_machine_as_test(
        lambda: DifferentialMachine(clients[1]),
        settings=settings(
            max_examples=8,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
            phases=[Phase.generate],
        ),
    )
