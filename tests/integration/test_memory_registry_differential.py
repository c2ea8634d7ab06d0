"""The registry in memory beside Debian's docker-registry: the same operations, and a client must see the same.

`DIFFERENCES` names what it does not see the same, with the reason; the machine goes round these.
"""

from __future__ import annotations

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
    described = Descriptor.of(config, CONFIG_TYPE).to_dict()
    return json.dumps(
        {"schemaVersion": 2, "mediaType": media_type, "config": described, "layers": [], **fields}
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


def seen(call: Callable[[], Any]) -> Any:
    """What a client sees of an operation: what it returns, or the class of what it raises."""
    try:
        return call()
    except OciwireError as error:
        return type(error).__name__


def read(reader: Any) -> tuple[bytes, Descriptor]:
    with reader:
        return reader.read(), reader.descriptor


@pytest.fixture
def clients(registry_host: str) -> Iterator[tuple[Client, Client]]:
    """One of the registry in memory, one of the real one."""
    wire = UrllibTransport()
    yield Client("registry.example", MemoryRegistry()), Client(registry_host, wire, insecure=True)
    wire.close()


class DifferentialMachine(RuleBasedStateMachine):
    def __init__(self, real: Client) -> None:
        super().__init__()
        self.clients = (Client("registry.example", MemoryRegistry()), real)
        self.prefix = f"differential{next(_PREFIXES)}/"

    def same(self, operation: Callable[[Client], Any]) -> Any:
        in_memory, real = (seen(lambda client=client: operation(client)) for client in self.clients)
        assert in_memory == real
        return in_memory

    def name(self, name: str) -> str:
        return self.prefix + name

    # Blobs

    @rule(name=names, content=contents, single_use=st.booleans())
    def push_blob(self, name: str, content: bytes, single_use: bool) -> None:
        described = Descriptor.of(content)
        self.same(lambda c: c.push_blob(self.name(name), described, iter([content]) if single_use else content))

    @rule(name=names, content=contents)
    def push_a_blob_of_another_digest(self, name: str, content: bytes) -> None:
        described = Descriptor.of(content[::-1] + b"!").replace(size=len(content))
        assert self.same(lambda c: c.push_blob(self.name(name), described, content)) == "DigestInvalid"

    @rule(name=names, pieces=st.lists(st.binary(max_size=12), max_size=4), chunk=st.integers(1, 10))
    def push_chunks(self, name: str, pieces: list[bytes], chunk: int) -> None:
        def push(client: Client) -> Descriptor:
            with client.push_blob_chunked(self.name(name), chunk) as writer:
                for piece in pieces:
                    writer.write(piece)
            return writer.commit()

        self.same(push)
        digest = Digest.of(b"".join(pieces))
        assert self.same(lambda c: read(c.get_blob(self.name(name), digest)))[0] == b"".join(pieces)

    @rule(name=names, pieces=st.lists(st.binary(min_size=2, max_size=12), min_size=1, max_size=4))
    def resume_and_cancel(self, name: str, pieces: list[bytes]) -> None:
        def push(client: Client) -> list[Any]:
            found: list[Any] = []
            writer = client.push_blob_chunked(self.name(name))
            for piece in pieces:
                with writer:
                    writer.write(piece)
                writer = client.push_blob_chunked_resume(self.name(name), writer.id)
                found.append(writer.size)
            writer.cancel()
            return [*found, seen(lambda: client.push_blob_chunked_resume(self.name(name), writer.id))]

        assert self.same(push)[-1] == "BlobUploadUnknown"

    @rule(source=names, to=names, content=contents)
    def mount_blob(self, source: str, to: str, content: bytes) -> None:
        self.same(lambda c: c.mount_blob(self.name(source), self.name(to), Digest.of(content)))

    @rule(name=names, content=contents)
    def delete_blob(self, name: str, content: bytes) -> None:
        self.same(lambda c: c.delete_blob(self.name(name), Digest.of(content)))

    @rule(name=names, content=contents)
    def get_blob(self, name: str, content: bytes) -> None:
        self.same(lambda c: read(c.get_blob(self.name(name), Digest.of(content))))
        self.same(lambda c: c.resolve_blob(self.name(name), Digest.of(content)))

    @rule(
        name=names,
        content=contents,
        start=st.integers(0, 300),
        size=st.none() | st.integers(0, 300),
    )
    def get_a_part(self, name: str, content: bytes, start: int, size: int | None) -> None:
        stop = None if size is None else start + size
        self.same(lambda c: read(c.get_blob_range(self.name(name), Digest.of(content), start, stop)))

    # Manifests

    @rule(name=names, content=images, tags=some_tags, complete=st.booleans())
    def push_manifest(self, name: str, content: bytes, tags: list[str], complete: bool) -> None:
        if complete:
            self.push_blob(name=name, content=CONFIG, single_use=False)
        self.same(lambda c: c.push_manifest(self.name(name), content, OCI_MANIFEST, tags=tags))

    @rule(name=names, content=images, tags=some_tags)
    def push_an_index(self, name: str, content: bytes, tags: list[str]) -> None:
        entry = Descriptor.of(content, OCI_MANIFEST)
        index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry.to_dict()]}).encode()
        self.same(lambda c: c.push_manifest(self.name(name), index, OCI_INDEX, tags=tags))

    @rule(name=names, content=images, tag=st.sampled_from(TAGS))
    def get_manifest(self, name: str, content: bytes, tag: str) -> None:
        self.same(lambda c: read(c.get_manifest(self.name(name), Digest.of(content))))
        self.same(lambda c: c.resolve_manifest(self.name(name), Digest.of(content)))
        self.same(lambda c: read(c.get_tag(self.name(name), tag)))
        self.same(lambda c: c.resolve_tag(self.name(name), tag))

    @rule(name=names, content=images)
    def delete_manifest(self, name: str, content: bytes) -> None:
        self.same(lambda c: c.delete_manifest(self.name(name), Digest.of(content)))

    # Lists

    @rule(name=names)
    def tags(self, name: str) -> None:
        def listed(client: Client) -> list[str]:
            try:
                found = sorted(client.tags(self.name(name)))
            except errors.NameUnknown:
                found = []  # see DIFFERENCES
            # so it is with the tags that stand in for the referrers API
            return found if client is self.clients[0] else [tag for tag in found if not tag.startswith("sha256-")]

        self.same(listed)

    @rule()
    def repositories(self) -> None:
        self.same(lambda c: sorted(name for name in c.repositories() if name.startswith(self.prefix)))

    @rule(name=names, wanted=st.sampled_from([None, CONFIG_TYPE, SBOM]))
    def referrers(self, name: str, wanted: str | None) -> None:
        self.same(lambda c: list(c.referrers(self.name(name), Digest.of(SUBJECT), artifact_type=wanted)))

    def teardown(self) -> None:
        """In the end, all of it is the same."""
        for name in NAMES:
            for content in CONTENTS:
                self.get_blob(name=name, content=content)
                self.get_a_part(name=name, content=content, start=1, size=2)
            for content, tag in itertools.zip_longest(IMAGES, TAGS, fillvalue=TAGS[0]):
                self.get_manifest(name=name, content=content, tag=tag)
            self.tags(name=name)
            self.referrers(name=name, wanted=None)


# What a client does not see the same, and why: docker-registry is 2.8, older than the specification's 1.1.


def push(client: Client, name: str, content: bytes = SUBJECT, media_type: str = OCI_MANIFEST, **options: Any) -> str:
    client.push_blob(name, Descriptor.of(CONFIG, CONFIG_TYPE), CONFIG)
    client.push_manifest(name, content, media_type, **options)
    return "pushed"


def ask(client: Client, method: str, url: str, body: bytes | None = None, **headers: str) -> int:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    with client.do(Request(method, url, fields, body)) as response:
        return response.status


def upload(client: Client, name: str) -> str:
    with client.push_blob_chunked(name) as writer:
        return writer.id


def tags_of_a_repository_without_any(client: Client, name: str) -> Any:
    """2.8 knows a repository by its tags."""
    client.push_blob(name, Descriptor.of(CONFIG), CONFIG)
    return list(client.tags(name))


def the_order_of_tags(client: Client, name: str) -> Any:
    """2.8 has them in the order in which they were pushed, or in that of a directory: sorted, it is the same list."""
    push(client, name, tags=["b", "a", "B", "A"])
    found = list(client.tags(name))
    return sorted(found), found == ["A", "a", "B", "b"]


def tags_after_another(client: Client, name: str) -> Any:
    """2.8 has no pages of tags: neither `n` nor `last`."""
    push(client, name, tags=["a", "b", "c"])
    return len(list(client.tags(name, start_after="b")))


def no_tags_at_all(client: Client, name: str) -> Any:
    """2.8 has no `n`, so that `n=0` is nothing special."""
    push(client, name, tags=["a", "b"])
    with client.do(Request("GET", f"/v2/{name}/tags/list?n=0")) as response:
        return len(response.json()["tags"])


def deleting_a_tag(client: Client, name: str) -> Any:
    """2.8 deletes by digest alone."""
    push(client, name, tags=["a", "b"])
    client.delete_tag(name, "a")
    return list(client.tags(name))


def a_manifest_of_another_algorithm(client: Client, name: str) -> Any:
    """2.8 keeps manifests under their sha256."""
    return push(client, name, digest=Digest.of(SUBJECT, "sha512"))


def a_manifest_of_an_unknown_type(client: Client, name: str) -> Any:
    """2.8 takes the types that it knows."""
    return push(client, name, image("application/vnd.example+json"), "application/vnd.example+json")


def a_manifest_over_the_limit(client: Client, name: str) -> Any:
    """413 is newer than 2.8."""
    return push(client, name, SUBJECT + b" " * (4 << 20))


def a_manifest_with_a_missing_blob(client: Client, name: str) -> Any:
    """The status is 404 in the specification's table of endpoints, and 400 in 2.8; the code is the same."""
    return ask(client, "PUT", f"/v2/{name}/manifests/a", IMAGES[3], Content_Type=OCI_MANIFEST)


def several_tags_at_once(client: Client, name: str) -> Any:
    """`tag=` is newer than 2.8: the client tags one by one."""
    push(client, name)
    url = f"/v2/{name}/manifests/{Digest.of(SUBJECT)}?tag=a&tag=b"
    with client.do(Request("PUT", url, {"Content-Type": OCI_MANIFEST}, SUBJECT)) as response:
        return response.headers.get_all("oci-tag")


def the_referrers_api(client: Client, name: str) -> Any:
    """It is newer than 2.8: the client reads and writes the referrers tag."""
    return ask(client, "GET", f"/v2/{name}/referrers/{Digest.of(SUBJECT)}")


def a_condition(client: Client, name: str) -> Any:
    """2.8 has ETags for those who read, and not for those who write."""
    push(client, name, tags=["a"])
    return ask(client, "PUT", f"/v2/{name}/manifests/a", SUBJECT, Content_Type=OCI_MANIFEST, If_None_Match="*")


def a_chunk_out_of_order(client: Client, name: str) -> Any:
    """2.8 does not look at Content-Range: it appends what comes."""
    return ask(client, "PATCH", upload(client, name), b"abcd", Content_Range="5-8")


def a_single_post(client: Client, name: str) -> Any:
    """2.8 wants a PUT: 202 says that an upload was opened."""
    return ask(client, "POST", f"/v2/{name}/blobs/uploads/?digest={Digest.of(b'x')}", b"x")


def a_mount_without_from(client: Client, name: str) -> Any:
    """To find the blob without being told where is newer than 2.8."""
    push(client, name)
    return ask(client, "POST", f"/v2/{name}/to/blobs/uploads/?mount={Digest.of(CONFIG)}")


def a_digest_put_right(client: Client, name: str) -> Any:
    """2.8 gives an upload up whose digest was wrong; the specification does not say."""
    writer = client.push_blob_chunked(name, 2)
    writer.write(b"abcd")
    first = seen(lambda: writer.commit(Digest.of(b"x")))
    return first, seen(lambda: writer.commit(Digest.of(b"abcd")).size)


def a_name_that_is_none(client: Client, name: str) -> Any:
    """2.8 has no route to it, and so no NAME_INVALID."""
    return ask(client, "GET", f"/v2/{name.upper()}/tags/list")


def several_ranges(client: Client, name: str) -> Any:
    """A server may ignore them; 2.8, which is written in Go, sends a multipart."""
    push(client, name)
    return ask(client, "GET", f"/v2/{name}/blobs/{Digest.of(CONFIG)}", Range="bytes=0-0,1-1")


DIFFERENCES: list[tuple[Callable[[Client, str], Any], Any, Any]] = [
    (tags_of_a_repository_without_any, [], "NameUnknown"),
    (the_order_of_tags, (["A", "B", "a", "b"], True), (["A", "B", "a", "b"], False)),
    (tags_after_another, 1, 3),
    (no_tags_at_all, 0, 2),
    (deleting_a_tag, ["b"], "DigestInvalid"),
    (a_manifest_of_another_algorithm, "pushed", "DigestInvalid"),
    (a_manifest_of_an_unknown_type, "pushed", "ManifestInvalid"),
    (a_manifest_over_the_limit, "SizeInvalid", "ManifestInvalid"),
    (a_manifest_with_a_missing_blob, 404, 400),
    (several_tags_at_once, ("a", "b"), ()),
    (the_referrers_api, 200, 404),
    (a_condition, 412, 201),
    (a_chunk_out_of_order, 416, 202),
    (a_single_post, 201, 202),
    (a_mount_without_from, 201, 202),
    (a_digest_put_right, ("DigestInvalid", 4), ("DigestInvalid", "BlobUploadInvalid")),
    (a_name_that_is_none, 400, 404),
    (several_ranges, 200, 206),
]


@pytest.mark.parametrize(
    ("operation", "in_memory", "real"), DIFFERENCES, ids=[operation.__name__ for operation, *_ in DIFFERENCES]
)
def test_memory_registry_known_difference_still_exists(
    clients: tuple[Client, Client], operation: Callable[[Client, str], Any], in_memory: Any, real: Any
) -> None:
    name = f"differential/{operation.__name__}"
    assert [seen(lambda client=client: operation(client, name)) for client in clients] == [in_memory, real]


AGREEMENTS: list[Callable[[Client, str], Any]] = [
    lambda client, name: push(client, name, image(DOCKER_MANIFEST), DOCKER_MANIFEST, tags=["a"]),
    lambda client, name: push(client, name, b"{"),
    lambda client, name: ask(client, "GET", "/v2/"),
    lambda client, name: ask(client, "GET", f"/v2/{name}/blobs/sha256:12"),
    lambda client, name: ask(client, "GET", f"/v2/{name}/manifests/-a"),
    lambda client, name: ask(client, "GET", upload(client, name)),
    lambda client, name: ask(client, "DELETE", upload(client, name)),
    lambda client, name: ask(client, "PUT", add_query(upload(client, name), {"digest": "x"})),
    lambda client, name: ask(client, "POST", f"/v2/{name}/blobs/uploads/?mount={Digest.of(b'')}&from=X"),
    lambda client, name: ask(
        client, "PUT", f"/v2/{name}/manifests/{Digest.of(b'')}", SUBJECT, Content_Type=OCI_MANIFEST
    ),
]


@pytest.mark.parametrize("number", range(len(AGREEMENTS)))
def test_memory_registry_single_operations_match_docker_registry(clients: tuple[Client, Client], number: int) -> None:
    name = f"differential/agreement{number}"
    in_memory, real = (seen(lambda client=client: AGREEMENTS[number](client, name)) for client in clients)
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
