"""What each S3-compatible service needs, by its endpoint. Every preset says why.

One rule holds for all: boto3's own checksums are `when_required`, on requests
and on responses. Since boto3 1.36 the default adds CRC32 trailers that B2,
older MinIO and others refuse (s3transfer #327, botocore #3352). In their place
every body is signed (`x-amz-content-sha256`), carries Content-MD5 where the
service takes it, and is proven by our own SHA-256 in the manifest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Preset:
    """Settings for one service.

    path_style: the bucket in the path, not in the host name. region: used
    where neither the address nor boto3's chain gives one. content_md5: send
    Content-MD5. parallel: parts of one upload on their way at once.
    """

    name: str
    host: re.Pattern[str]
    path_style: bool = False
    region: str | None = None
    content_md5: bool = True
    parallel: int = 2
    why: str = ""


def _host(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?:.*\.)?{pattern}", re.IGNORECASE)


PRESETS = (
    Preset("aws", _host(r"amazonaws\.com(?:\.cn)?"), why="virtual hosts; conditional writes since 2024-08"),
    Preset(
        "r2",
        _host(r"r2\.cloudflarestorage\.com"),
        path_style=True,
        region="auto",
        why="region auto; two parts at once and all of one size (larger numbers failed for others); "
        "the ETag of a part is not its MD5, so it is never read as a checksum",
    ),
    Preset("b2", _host(r"backblazeb2\.com"), path_style=True, why="refuses x-amz-sdk-checksum-algorithm"),
    Preset(
        "gcs",
        _host(r"storage\.googleapis\.com"),
        path_style=True,
        region="auto",
        why="no If-Match or If-None-Match for writes: no lease, a warning instead",
    ),
    Preset("digitalocean", _host(r"digitaloceanspaces\.com"), why="wants signed payloads"),
    Preset("hetzner", _host(r"your-objectstorage\.com"), why="wants signed payloads"),
    Preset("scaleway", _host(r"scw\.cloud"), why="wants signed payloads"),
    Preset("wasabi", _host(r"wasabisys\.com"), path_style=True, why="older regions have no virtual hosts"),
    Preset("filebase", _host(r"filebase\.com"), path_style=True, why="path style, signed payloads"),
    Preset("supabase", _host(r"supabase\.(?:co|com|in)"), path_style=True, why="path style, signed payloads"),
    Preset(
        "tigris",
        _host(r"(?:tigris\.dev|t3\.storage\.dev|tigrisfiles\.io)"),
        region="auto",
        content_md5=False,
        why="takes no Content-MD5: uploads are read back instead",
    ),
)

# MinIO, Garage, Ceph, SeaweedFS, an emulator: an address of one's own.
CUSTOM = Preset(
    "custom",
    re.compile(".*"),
    path_style=True,
    region="us-east-1",
    why="a bucket is seldom a host name there; MinIO's default region",
)


def preset_for(host: str | None) -> Preset:
    """Return the preset of an endpoint's host name; no endpoint means AWS."""
    if host is None:
        return PRESETS[0]
    return next((preset for preset in PRESETS if preset.host.fullmatch(host)), CUSTOM)
