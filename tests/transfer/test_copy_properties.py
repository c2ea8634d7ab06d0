"""Copies of any graph of manifests: content is pushed before the manifests that reference it, and each blob once."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ociwire import Descriptor, Request, Response, Transport
from ociwire.transfer import copy
from tests._support.copy_world import NAME, Side, check_complete
from tests._support.examples import example_count

# Each manifest: the blobs of an image or the earlier manifests of an index, and its subject, an earlier manifest.
NODES = st.lists(
    st.tuples(
        st.one_of(st.lists(st.integers(0, 4), max_size=3), st.frozensets(st.integers(0, 7), min_size=1, max_size=4)),
        st.none() | st.integers(0, 7),
    ),
    min_size=1,
    max_size=8,
)


class OrderChecker:
    """Layer that checks that all content that a pushed manifest references was pushed before, and records pushes."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.manifests: list[str] = []
        self.blobs: list[str] = []

    def round_trip(self, request: Request, /) -> Response:
        response = self._inner.round_trip(request)
        if request.method == "PUT" and response.status == 201:
            if "/manifests/" in request.url:
                self._check(json.loads(b"".join(request.body.open())))  # type: ignore[union-attr]
                self.manifests.append(response.headers["docker-content-digest"])
            else:
                self.blobs.append(request.url.partition("digest=")[2])
        return response

    def _check(self, manifest: dict[str, Any]) -> None:
        for descriptor in manifest.get("manifests", ()):
            assert descriptor["digest"] in self.manifests
        for descriptor in [*manifest.get("layers", ()), *([manifest["config"]] if "config" in manifest else [])]:
            assert descriptor["digest"] in self.blobs

    def close(self) -> None:
        self._inner.close()


def build(source: Side, nodes: list[tuple[Any, int | None]]) -> list[Descriptor]:
    descriptors: list[Descriptor] = []
    for number, (content, subject) in enumerate(nodes):
        fields: dict[str, Any] = {"annotations": {"number": str(number)}}
        if subject is not None and descriptors:
            fields["subject"] = descriptors[subject % len(descriptors)].to_dict()
        if isinstance(content, frozenset) and descriptors:
            descriptors.append(source.index(*(descriptors[index % len(descriptors)] for index in content), **fields))
        else:
            descriptors.append(source.image(*(content if isinstance(content, list) else ()), **fields))
    return descriptors


@settings(deadline=None, max_examples=example_count(60))
@given(nodes=NODES, workers=st.integers(1, 3), referrers=st.booleans())
def test_copy_any_graph_pushes_dependencies_first(
    nodes: list[tuple[Any, int | None]], workers: int, referrers: bool
) -> None:
    source, target = Side("source.example", guarded=False), Side("target.example", guarded=False)
    root = build(source, nodes)[-1]
    order = OrderChecker(target.registry)
    copied = copy(
        source.client,
        f"{NAME}@{root.digest}",
        target.through(order),
        f"{NAME}:v1",
        workers=workers,
        referrers=referrers,
    )
    assert copied == root == target.direct.resolve_tag(NAME, "v1")
    copied_digests = check_complete(target.direct, NAME, root.digest)
    assert len(order.blobs) == len(set(order.blobs))
    assert order.manifests[-1] == root.digest
    if referrers:
        for digest in copied_digests & set(order.manifests):
            expected = {descriptor.digest for descriptor in source.direct.referrers(NAME, digest)}
            assert {descriptor.digest for descriptor in target.direct.referrers(NAME, digest)} == expected
