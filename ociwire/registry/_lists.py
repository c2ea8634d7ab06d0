"""The endpoints of the registry in memory that list: tags, repositories, and what refers to a manifest.

Follows the OCI distribution specification 1.1, "Listing Tags" and "Listing Referrers"; the catalog, which it does not
have, is the distribution project's. A page that is not the last has a Link to the next one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, final
from urllib.parse import quote, urlencode

from .._http.messages import Response
from ..media_types import OCI_INDEX
from ._responses import JSON, Call, Refused, answer, read_digest
from ._store import Store

__all__ = ["Lists"]


@final
class Lists:
    """Answers with lists.

    Args:
        store: Where what is listed is kept.
        page_size: How many entries a page has at most; None is any number.
    """

    def __init__(self, store: Store, *, page_size: int | None) -> None:
        self._store = store
        self._page_size = page_size

    def tags(self, call: Call) -> Response:
        """``GET /v2/NAME/tags/list``: "in lexical order (i.e. case-insensitive alphanumeric order)"."""
        found = self._store.tags(call.name)
        if found is None:
            raise Refused(404, "NAME_UNKNOWN", f"there is no repository {call.name}")
        page, headers = self._page(call, found, _without_case)
        return _json({"name": call.name, "tags": page}, headers)

    def catalog(self, call: Call) -> Response:
        """``GET /v2/_catalog``."""
        page, headers = self._page(call, self._store.names(), _without_case)
        return _json({"repositories": page}, headers)

    def referrers(self, call: Call) -> Response:
        """``GET /v2/NAME/referrers/DIGEST``, empty where nobody knows the digest or the repository."""
        wanted = [kind for kind in call.query.get("artifactType", ()) if kind]
        found = {
            number: manifest.entry.to_dict()
            for number, manifest in self._store.referrers(call.name, read_digest(call.reference))
            if not wanted or manifest.entry.artifact_type in wanted
        }
        after = _number(call, "last") or 0
        numbers = [number for number in found if number > after]
        page = numbers[: self._page_size]
        headers = {"OCI-Filters-Applied": "artifactType"} if wanted else {}
        if len(page) < len(numbers):
            headers["Link"] = _link(call, [("last", str(page[-1])), *(("artifactType", kind) for kind in wanted)])
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [found[number] for number in page]}
        return _json(index, headers, OCI_INDEX)

    def _page(
        self, call: Call, names: list[str], order: Callable[[str], tuple[str, str]]
    ) -> tuple[list[str], dict[str, str]]:
        """The names of a page, and the Link to the next one, if there is one."""
        asked, last = _number(call, "n"), call.first("last")
        after = sorted((name for name in names if last is None or order(name) > order(last)), key=order)
        most = min((number for number in (asked, self._page_size) if number is not None), default=None)
        page = after[:most]
        if not page or len(page) == len(after):  # "When n is zero ... MUST NOT include a Link header"
            return page, {}
        return page, {"Link": _link(call, [("n", str(most)), ("last", page[-1])])}


def _without_case(name: str) -> tuple[str, str]:
    return name.lower(), name


def _number(call: Call, parameter: str) -> int | None:
    stated = call.first(parameter)
    if stated is not None and not re.fullmatch(r"[0-9]{1,18}", stated):
        raise Refused(400, "", f"not a number: {parameter}={stated:.100}")
    return None if stated is None else int(stated)


def _link(call: Call, parameters: list[tuple[str, str]]) -> str:
    return f'<{quote(call.path, safe="/:+")}?{urlencode(parameters)}>; rel="next"'


def _json(content: Any, headers: dict[str, str], media_type: str = JSON) -> Response:
    return answer(200, headers, json.dumps(content).encode(), media_type)
