"""Endpoints that list tags, repositories and referrers.

Implements the OCI distribution specification 1.1, "Listing Tags" and "Listing Referrers", and the catalog of the
distribution project, which the specification does not define. Every page except the last has a Link to the next page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import final
from urllib.parse import quote, urlencode

from .._http.messages import Response
from ..media_types import OCI_INDEX
from ._messages import JSON, ErrorResponse, RegistryRequest, make_response, parse_digest
from ._storage import Storage

__all__ = ["ListEndpoints"]


@final
class ListEndpoints:
    """Handlers of the list endpoints. Thread-safe.

    Args:
        storage: The storage.
        page_size: Maximum number of entries per page. `None` means no limit.
    """

    def __init__(self, storage: Storage, *, page_size: int | None) -> None:
        self._storage = storage
        self._page_size = page_size

    def tags(self, request: RegistryRequest) -> Response:
        """Handle ``GET /v2/NAME/tags/list``: return the tags in lexical order."""
        tags = self._storage.list_tags(request.name)
        if tags is None:
            raise ErrorResponse(404, "NAME_UNKNOWN", f"repository {request.name} does not exist")
        page, headers = self._page(request, tags)
        return _json({"name": request.name, "tags": page}, headers)

    def catalog(self, request: RegistryRequest) -> Response:
        """Handle ``GET /v2/_catalog``: return the names of the repositories in lexical order."""
        page, headers = self._page(request, self._storage.list_repositories())
        return _json({"repositories": page}, headers)

    def referrers(self, request: RegistryRequest) -> Response:
        """Handle ``GET /v2/NAME/referrers/DIGEST``: return an index, which is empty if the digest is unknown."""
        subject = parse_digest(request.reference)
        types = [name for name in request.query.get("artifactType", ()) if name]
        last = _parse_number(request, "last") or 0
        entries = [
            (number, manifest.descriptor)
            for number, manifest in self._storage.list_referrers(request.name, subject)
            if number > last and (not types or manifest.descriptor.artifact_type in types)
        ]
        page = entries[: self._page_size]
        headers = {"OCI-Filters-Applied": "artifactType"} if types else {}
        if len(page) < len(entries):
            number, _ = page[-1]
            headers["Link"] = _next_link(request, [("last", str(number)), *(("artifactType", name) for name in types)])
        manifests = [descriptor.to_dict() for _, descriptor in page]
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
        return _json(index, headers, OCI_INDEX)

    def _page(self, request: RegistryRequest, names: list[str]) -> tuple[list[str], dict[str, str]]:
        """Return the names on the requested page and, unless it is the last page, a Link header."""
        n, last = _parse_number(request, "n"), request.get_parameter("last")
        names = sorted((name for name in names if last is None or _sort_key(name) > _sort_key(last)), key=_sort_key)
        size = min((number for number in (n, self._page_size) if number is not None), default=None)
        page = names[:size]
        # "Listing Tags": "When n is zero ... MUST NOT include a Link header".
        if not page or len(page) == len(names):
            return page, {}
        return page, {"Link": _next_link(request, [("n", str(size)), ("last", page[-1])])}


# "Listing Tags": "in lexical order (i.e. case-insensitive alphanumeric order)". The name itself breaks ties.
def _sort_key(name: str) -> tuple[str, str]:
    return name.lower(), name


def _parse_number(request: RegistryRequest, parameter: str) -> int | None:
    text = request.get_parameter(parameter)
    if text is not None and not re.fullmatch(r"[0-9]{1,18}", text):
        reason = f"invalid query parameter {parameter}={text:.100}: expected 1 to 18 decimal digits"
        raise ErrorResponse(400, "", reason)
    return None if text is None else int(text)


def _next_link(request: RegistryRequest, parameters: list[tuple[str, str]]) -> str:
    return f'<{quote(request.path, safe="/:+")}?{urlencode(parameters)}>; rel="next"'


def _json(content: Mapping[str, object], headers: dict[str, str], media_type: str = JSON) -> Response:
    return make_response(200, headers, json.dumps(content).encode(), media_type)
