"""The registry in memory as a client sees it, against a model of a few dicts, with all of its options."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ociwire import Client, Descriptor, Digest, Request, errors
from ociwire.media_types import OCI_INDEX, OCI_MANIFEST
from ociwire.registry.memory import MemoryRegistry
from tests._support.examples import example_count

NAMES = ["b/c", "b-c"]
CONTENTS = [b"", b"x", b"{}", b"some content", bytes(range(256))]
TAGS = ["latest", "B", "a", "b", "1.0", "1.10"]
CONFIGS = ["application/vnd.oci.image.config.v1+json", "application/vnd.example.config"]
ALGORITHMS = ["sha256", "sha256", "sha512"]

names = st.sampled_from(NAMES)
contents = st.sampled_from(CONTENTS)
tag_names = st.sampled_from(TAGS)
algorithms = st.sampled_from(ALGORITHMS)
options = st.fixed_dictionaries(
    {},
    optional={
        "deletes": st.booleans(),
        "referrers_api": st.booleans(),
        "mounts": st.booleans(),
        "digest_header": st.booleans(),
        "min_chunk_length": st.integers(1, 8),
        "page_size": st.integers(1, 4),
    },
)


@dataclass
class Repository:
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


def image(config: bytes, kind: str, artifact_type: str | None, subject: str | None, note: int) -> bytes:
    """Generate one of few images, so that they are found again. The subject need not exist."""
    content: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": Descriptor.of(config, kind).to_dict(),
        "layers": [],
        "annotations": {"note": str(note)},
    }
    if artifact_type:
        content["artifactType"] = artifact_type
    if subject:
        content["subject"] = {"mediaType": OCI_MANIFEST, "digest": subject, "size": 1}
    return json.dumps(content).encode()


SUBJECTS = [Digest.of(image(CONTENTS[2], CONFIGS[0], None, None, note)) for note in range(2)]
images = st.builds(
    image,
    st.sampled_from(CONTENTS[1:3]),
    st.sampled_from(CONFIGS),
    st.sampled_from([None, None, "application/vnd.example.sbom"]),
    st.sampled_from([None, *SUBJECTS]),
    st.integers(0, 1),
)
KNOWN_IMAGES = [image(CONTENTS[2], CONFIGS[0], None, None, note) for note in range(2)]
manifests = images | st.sampled_from(KNOWN_IMAGES)


def referrer(content: bytes) -> Descriptor:
    parsed = json.loads(content)
    return Descriptor.of(content, OCI_MANIFEST).replace(
        artifact_type=parsed.get("artifactType", parsed["config"]["mediaType"]), annotations=parsed["annotations"]
    )


def in_order(found: list[str]) -> list[str]:
    return sorted(found, key=lambda name: (name.lower(), name))


class RegistryMachine(RuleBasedStateMachine):
    @initialize(options=options)
    def begin(self, options: dict[str, Any]) -> None:
        self.registry = MemoryRegistry(**options)
        self.client = Client("registry.example", self.registry)
        self.deletes = options.get("deletes", True)
        self.mounts = options.get("mounts", True)
        self.referrers_api = options.get("referrers_api", True)
        self.smallest = options.get("min_chunk_length", 1)
        self.model: dict[str, Repository] = {}
        self.left_open = 0

    def of(self, name: str) -> Repository:
        """Return the model of a repository, without creating it."""
        return self.model.get(name, Repository())

    def make(self, name: str) -> Repository:
        return self.model.setdefault(name, Repository())

    def raises(self, kind: type[Exception], call: Callable[[], Any]) -> None:
        with pytest.raises(kind) as caught:
            call()
        assert type(caught.value) is kind

    def check_deleted(self, there: bool, missing: type[Exception], call: Callable[[], Any]) -> bool:
        if self.deletes and there:
            call()
        else:
            self.raises(missing if self.deletes else errors.Unsupported, call)
        return self.deletes and there

    # Blobs

    @rule(name=names, content=contents, algorithm=algorithms, single_use=st.booleans(), wrong=st.booleans())
    def push_blob(self, name: str, content: bytes, algorithm: str, single_use: bool, wrong: bool) -> None:
        descriptor = Descriptor.of(content, algorithm=algorithm)
        given = content + b"!" if wrong else content
        if wrong:
            descriptor = descriptor.replace(size=len(given))
        body = iter([given]) if single_use else given
        if wrong:
            self.raises(errors.DigestInvalid, lambda: self.client.push_blob(name, descriptor, body))
            self.left_open += 1  # so that another PUT can complete it
            return
        assert self.client.push_blob(name, descriptor, body) == descriptor
        self.make(name).blobs[descriptor.digest] = content

    @rule(name=names, pieces=st.lists(st.binary(max_size=12), max_size=5), chunk=st.integers(1, 10), ends=st.booleans())
    def push_chunks(self, name: str, pieces: list[bytes], chunk: int, ends: bool) -> None:
        writer = self.client.push_blob_chunked(name, chunk)
        assert writer.chunk_size == max(chunk, self.smallest)
        for piece in pieces:
            writer.write(piece)
        whole = b"".join(pieces)
        if not ends:
            writer.cancel()
            self.raises(errors.BlobUploadUnknown, lambda: self.client.push_blob_chunked_resume(name, writer.id))
            return
        if len(whole) % 2:  # resumed in another process, without a chunk below the minimum length
            writer = self.client.push_blob_chunked_resume(name, writer.id, None, chunk)
            writer.write(whole[writer.size :])
        assert writer.commit(Digest.of(whole)).digest == Digest.of(whole)
        self.make(name).blobs[Digest.of(whole)] = whole

    @rule(source=names, to=names, content=contents, algorithm=algorithms)
    def mount_blob(self, source: str, to: str, content: bytes, algorithm: str) -> None:
        digest = Digest.of(content, algorithm)
        if self.mounts and digest in self.of(source).blobs:
            assert self.client.mount_blob(source, to, digest) == Descriptor.of(content, algorithm=algorithm)
            self.make(to).blobs[digest] = content
        else:
            self.raises(errors.Unsupported, lambda: self.client.mount_blob(source, to, digest))

    @rule(name=names, content=contents, algorithm=algorithms)
    def delete_blob(self, name: str, content: bytes, algorithm: str) -> None:
        digest, blobs = Digest.of(content, algorithm), self.of(name).blobs
        if self.check_deleted(digest in blobs, errors.BlobUnknown, lambda: self.client.delete_blob(name, digest)):
            del blobs[digest]

    @rule(name=names, content=contents, algorithm=algorithms)
    def get_blob(self, name: str, content: bytes, algorithm: str) -> None:
        descriptor = Descriptor.of(content, algorithm=algorithm)
        digest = descriptor.digest
        if digest in self.of(name).blobs:
            assert self.client.resolve_blob(name, digest) == descriptor
            with self.client.get_blob(name, digest) as reader:
                assert reader.read() == content
                assert reader.verify() is None
        else:
            self.raises(errors.BlobUnknown, lambda: self.client.resolve_blob(name, digest))
            self.raises(errors.BlobUnknown, lambda: self.client.get_blob(name, digest))

    @rule(name=names, content=contents, start=st.integers(0, 300), stop=st.none() | st.integers(0, 300))
    def get_a_part(self, name: str, content: bytes, start: int, stop: int | None) -> None:
        digest = Digest.of(content)
        stop = None if stop is None else max(start, stop)
        if start == stop:
            return
        if digest not in self.of(name).blobs:
            self.raises(errors.BlobUnknown, lambda: self.client.get_blob_range(name, digest, start, stop))
        elif start >= len(content) and not (start == 0 and stop is None):
            self.raises(errors.RangeInvalid, lambda: self.client.get_blob_range(name, digest, start, stop))
        else:
            assert self.client.get_blob_range(name, digest, start, stop).read() == content[start:stop]

    # Manifests

    @rule(
        name=names,
        content=manifests,
        tags=st.lists(tag_names, max_size=3),
        algorithm=algorithms,
        complete=st.sampled_from([True, True, False]),
    )
    def push_manifest(self, name: str, content: bytes, tags: list[str], algorithm: str, complete: bool) -> None:
        if complete:
            for config in CONTENTS[1:3]:
                self.push_blob(name=name, content=config, algorithm="sha256", single_use=False, wrong=False)
        by_tag = len(set(tags)) == 1
        digest = Digest.of(content, "sha256" if by_tag else algorithm)
        pushed = lambda: self.client.push_manifest(name, content, OCI_MANIFEST, digest=digest, tags=tags)  # noqa: E731
        if json.loads(content)["config"]["digest"] not in self.of(name).blobs:
            self.raises(errors.ManifestBlobUnknown, pushed)
            return
        assert pushed() == Descriptor(OCI_MANIFEST, digest, len(content))
        repository = self.make(name)
        repository.manifests.setdefault(digest, content)
        repository.tags.update(dict.fromkeys(tags, digest))

    @rule(name=names, content=manifests, tag=tag_names)
    def get_manifest(self, name: str, content: bytes, tag: str) -> None:
        repository, digest = self.of(name), Digest.of(content)
        if digest in repository.manifests:
            assert self.client.resolve_manifest(name, digest) == Descriptor.of(content, OCI_MANIFEST)
            assert self.client.get_manifest(name, digest).read() == content
        else:
            self.raises(errors.ManifestUnknown, lambda: self.client.resolve_manifest(name, digest))
            self.raises(errors.ManifestUnknown, lambda: self.client.get_manifest(name, digest))
        if tag in repository.tags:
            found = self.client.get_tag(name, tag)
            assert found.read() == repository.manifests[repository.tags[tag]]
            assert self.client.resolve_tag(name, tag) == found.descriptor
        else:
            self.raises(errors.ManifestUnknown, lambda: self.client.resolve_tag(name, tag))
            self.raises(errors.ManifestUnknown, lambda: self.client.get_tag(name, tag))

    @rule(name=names, content=manifests)
    def delete_manifest(self, name: str, content: bytes) -> None:
        repository, digest = self.of(name), Digest.of(content)
        there = digest in repository.manifests
        if self.check_deleted(there, errors.ManifestUnknown, lambda: self.client.delete_manifest(name, digest)):
            del repository.manifests[digest]
            repository.tags = {tag: named for tag, named in repository.tags.items() if named != digest}

    @rule(name=names, tag=tag_names)
    def delete_tag(self, name: str, tag: str) -> None:
        tags = self.of(name).tags
        if self.check_deleted(tag in tags, errors.ManifestUnknown, lambda: self.client.delete_tag(name, tag)):
            del tags[tag]

    @rule(name=names, content=images)
    def push_an_index(self, name: str, content: bytes) -> None:
        entry = Descriptor.of(content, OCI_MANIFEST)
        index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry.to_dict()]}).encode()
        if entry.digest in self.of(name).manifests:
            self.client.push_manifest(name, index, OCI_INDEX)
            assert self.client.get_manifest(name, Digest.of(index)).read() == index
        else:
            self.raises(errors.ManifestBlobUnknown, lambda: self.client.push_manifest(name, index, OCI_INDEX))

    # Lists

    @rule(name=names, after=st.none() | tag_names, limit=st.none() | st.integers(0, 7))
    def tags(self, name: str, after: str | None, limit: int | None) -> None:
        listed = lambda: list(self.client.tags(name, start_after=after, limit=limit))  # noqa: E731
        if name not in self.model and limit != 0:
            self.raises(errors.NameUnknown, listed)
            return
        expected = in_order(list(self.of(name).tags))
        if after is not None:
            expected = [tag for tag in expected if (tag.lower(), tag) > (after.lower(), after)]
        if self.referrers_api:
            assert listed() == expected[:limit]
            return
        # tags of the client's fallback for the referrers API, sorted between the other tags
        found = [tag for tag in listed() if not tag.startswith("sha256-")]
        assert found == expected[: len(found)]
        assert limit is not None or found == expected

    @rule(after=st.none() | names, limit=st.none() | st.integers(0, 4))
    def repositories(self, after: str | None, limit: int | None) -> None:
        expected = [name for name in in_order(list(self.model)) if after is None or name > after]
        assert list(self.client.repositories(start_after=after, limit=limit)) == expected[:limit]

    @rule(
        name=names,
        subject=st.sampled_from(SUBJECTS),
        wanted=st.sampled_from([None, *CONFIGS, "application/vnd.example.sbom"]),
    )
    def referrers(self, name: str, subject: str, wanted: str | None) -> None:
        referring = [
            referrer(content).replace(digest=digest)
            for digest, content in self.of(name).manifests.items()
            if json.loads(content).get("subject", {}).get("digest") == subject
        ]
        found = list(self.client.referrers(name, subject, artifact_type=wanted))
        assert found == [one for one in referring if wanted in (None, one.artifact_type)]

    @invariant()
    def each_blob_is_kept_once_and_no_upload_is_forgotten(self) -> None:
        if hasattr(self, "registry"):
            kept = {digest: len(content) for one in self.model.values() for digest, content in one.blobs.items()}
            assert self.registry.stored_bytes == sum(kept.values())
            assert self.registry.open_uploads == self.left_open

    def teardown(self) -> None:
        """Check that the registry has everything that is in the model, and nothing else."""
        for name in NAMES if hasattr(self, "model") else ():
            for content in CONTENTS:
                for algorithm in set(ALGORITHMS):
                    self.get_blob(name=name, content=content, algorithm=algorithm)
                self.get_a_part(name=name, content=content, start=1, stop=3)
            for content in KNOWN_IMAGES:
                for tag in TAGS:
                    self.get_manifest(name=name, content=content, tag=tag)
            for subject in SUBJECTS:
                self.referrers(name=name, subject=subject, wanted=None)
            self.tags(name=name, after=None, limit=None)
            self.tags(name=name, after="b", limit=2)


RegistryMachine.TestCase.settings = settings(max_examples=example_count(60), stateful_step_count=30, deadline=None)
TestRegistry = RegistryMachine.TestCase


PIECES = ["v2", "_catalog", "a", "A", "blobs", "uploads", "manifests", "tags", "list", "referrers", "latest", ""]
REFERENCES = ["00000000-0000-4000-8000-000000000001", SUBJECTS[0], "sha256:12", "md5:12", "-", "%", "%ff"]
pieces = st.sampled_from([*PIECES, *REFERENCES])
queries = st.lists(
    st.tuples(
        st.sampled_from(["digest", "mount", "from", "tag", "n", "last", "artifactType", "digest-algorithm"]),
        st.sampled_from(["", "a", "0", "-1", "2", SUBJECTS[0], "md5:12", "%00", "%ff", "a/b"]),
    ),
    max_size=3,
)
headers = st.dictionaries(
    st.sampled_from(["Range", "Content-Range", "Content-Type", "If-Match", "If-None-Match", "Accept"]),
    st.sampled_from(["", "*", "bytes=0-", "0-1", "x", OCI_MANIFEST, '"', ","]) | st.text("0123456789-=bytes,/;"),
    max_size=3,
)
bodies = st.sampled_from(
    [None, b"", b"ab", b"{}", b"[", b'{"schemaVersion": 2, "config": 1, "layers": 2}', CONTENTS[4]]
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "X"]),
            st.lists(pieces, max_size=6),
            queries,
            headers,
            bodies,
        ),
        max_size=5,
    )
)
@settings(deadline=None)
def test_round_trip_any_request_gets_response_of_specification(requests: list[Any]) -> None:
    registry = MemoryRegistry(page_size=1)
    registry.round_trip(Request("POST", "https://registry.example/v2/a/blobs/uploads/"))
    for method, path, query, fields, body in requests:
        url = f"https://registry.example/v2/{'/'.join(path)}?{'&'.join(f'{name}={value}' for name, value in query)}"
        response = registry.round_trip(Request(method, url, fields, body))
        assert 200 <= response.status < 500
        content = response.read()
        if method == "HEAD" or response.status in (204, 304):
            assert content == b""
        if content and response.status >= 400 and response.headers["content-type"] == "application/json":
            (error,) = json.loads(content)["errors"]
            assert set(error) == {"code", "message"}
