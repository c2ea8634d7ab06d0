"""Selection of the best image for a platform, by the rules of containerd's package ``platforms``."""

from __future__ import annotations

import re

from .descriptor import Platform

__all__ = ["describe_platform", "rank_platform"]

_ARCHITECTURES = {"aarch64": ("arm64", ""), "x86_64": ("amd64", ""), "x86-64": ("amd64", ""), "i386": ("386", "")}
_ARCHITECTURES |= {"armhf": ("arm", "v7"), "armel": ("arm", "v6")}
_VARIANT = re.compile(r"v?([0-9]{1,3})(?:\.([0-9]{1,3}))?")


def describe_platform(platform: Platform) -> str:
    """Return ``os/architecture`` or ``os/architecture/variant``."""
    return "/".join(filter(None, (platform.os, platform.architecture, platform.variant)))


def rank_platform(requested: Platform, offered: Platform) -> int | None:
    """Return how well an image for `offered` runs on `requested`: 0 is best; `None` if it does not run.

    Images for older variants of the architecture also run: linux/arm/v6 on linux/arm/v7, linux/amd64 on linux/amd64/v3.
    The newer the variant, the lower the number. 32-bit images also run on arm64 and amd64, with a higher number than
    all 64-bit images. A missing variant means v7 for arm, v8 for arm64 and v1 for amd64.
    """
    if requested.os.lower() != offered.os.lower() or not set(requested.os_features) <= set(offered.os_features):
        return None
    # Windows: an image runs on all revisions of one build, such as 10.0.17763.
    if requested.os_version and not f"{offered.os_version}.".startswith(f"{requested.os_version}."):
        return None
    architecture, level = _level(requested)
    offered_architecture, offered_level = _level(offered)
    if level is None or offered_level is None:
        same = architecture == offered_architecture and requested.variant == offered.variant
        return 0 if same else None
    if architecture == offered_architecture:
        return level - offered_level if offered_level <= level else None
    if (architecture, offered_architecture) == ("arm64", "arm") and offered_level <= 8:
        return 100 + 8 - offered_level
    if (architecture, offered_architecture) == ("amd64", "386"):
        return 100
    return None


def _level(platform: Platform) -> tuple[str, int | None]:
    """Return the architecture by its Go name, and the number of its variant; `None` for an unknown variant."""
    architecture, variant = platform.architecture.lower(), platform.variant.lower()
    name, implied = _ARCHITECTURES.get(architecture, (architecture, ""))
    default = {"arm": "v7", "arm64": "v8", "amd64": "v1"}.get(name, "v0")
    match = _VARIANT.fullmatch(variant or implied or default)
    if match is None:
        return name, None
    major, minor = int(match[1]), int(match[2] or 0)
    if name == "arm64":
        # Armv9.0 includes Armv8.5, 9.1 includes 8.6, and so on.
        return name, minor + 5 * (major - 8)
    return name, major
