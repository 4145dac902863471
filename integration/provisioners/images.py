"""Test images from what is on this machine already: Python, a shell, and the Postgres of our wheel.

Nothing is downloaded. `FROM scratch` with one archive keeps them under 100 MB; the
files lie at the same paths as here, so that every library is found.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import docker

from provisioners import pgbinaries

HERE = Path(__file__).parent
PROGRAMS = ("initdb", "postgres", "pg_ctl", "pg_isready")

POSTGRES = {
    "16": "pgvector/pgvector:0.8.5-pg16",
    "18": "pgvector/pgvector:0.8.5-pg18",
}
QDRANT = "qdrant/qdrant:v1.19.1"
VOLUMES = {"16": "/var/lib/postgresql/data", "18": "/var/lib/postgresql"}
DATA = {"16": "/var/lib/postgresql/data", "18": "/var/lib/postgresql/18/docker"}


def build_all(client: docker.DockerClient) -> None:
    """Build every image under its real name, so that only the registry's part is ours."""
    for major in POSTGRES:
        build_postgres(client, major)
    build(
        client,
        QDRANT,
        stub_files(),
        [
            f'ENTRYPOINT ["{sys.executable}", "-IS", "/stub.py"]',
            f"ENV PYTHONPATH={':'.join(python_path())}",
            "VOLUME /qdrant/storage",
            "EXPOSE 6333 6334",
        ],
    )


def build_postgres(client: docker.DockerClient, major: str) -> None:
    programs = pgbinaries.bin_folder(int(major), pgbinaries.package_folder())
    build(
        client,
        POSTGRES[major],
        postgres_files(major),
        [
            "USER 999:999",
            f'ENTRYPOINT ["{sys.executable}", "-IS", "/entrypoint.py"]',
            'CMD ["postgres"]',
            f"ENV PATH={programs}:/bin:/usr/bin PGDATA={DATA[major]} PG_MAJOR={major}",
            f"VOLUME {VOLUMES[major]}",
            "EXPOSE 5432",
            "STOPSIGNAL SIGINT",
        ],
    )


def build(client: docker.DockerClient, name: str, rootfs: bytes, lines: list[str]) -> None:
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        put(archive, "Dockerfile", "\n".join(["FROM scratch", "ADD rootfs.tar /", *lines, ""]).encode())
        put(archive, "rootfs.tar", rootfs)
    context.seek(0)
    client.images.build(fileobj=context, custom_context=True, tag=name, rm=True)


def postgres_files(major: str) -> bytes:
    package = pgbinaries.package_folder()
    root = package / pgbinaries.FOLDERS[int(major)]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        added = base(archive)
        put(archive, "entrypoint.py", (HERE / "postgres_entrypoint.py").read_bytes())
        for folder in ("var", "var/lib", "var/lib/postgresql", "var/lib/postgresql/data"):
            put_folder(archive, folder, owner=999 if "postgresql" in folder else 0)
        for path in sorted([*root.rglob("*"), *package.with_name(f"{package.name}.libs").rglob("*")]):
            inside = path.relative_to(root).parts if path.is_relative_to(root) else ()
            if path.is_dir() or path.suffix == ".a" or inside[:1] == ("include",):
                continue
            if inside[:1] == ("bin",) and path.name not in PROGRAMS:
                continue
            if "timezone" in inside and path.name not in (
                "UTC",
                "GMT",
            ):  # 600 small files that nobody asks for
                continue
            add(archive, path, added)
        for program in PROGRAMS:
            for library in libraries(root / "bin" / program):
                add(archive, library, added)
    return buffer.getvalue()


def stub_files() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        base(archive)
        put(archive, "stub.py", (HERE / "qdrant_stub.py").read_bytes())
        for folder in ("qdrant", "qdrant/config", "qdrant/storage"):
            put_folder(archive, folder)
    return buffer.getvalue()


def base(archive: tarfile.TarFile) -> set[Path]:
    """Add users, /tmp, a shell, du, and the Python that runs us with the modules that our scripts need."""
    put(archive, "etc/passwd", b"root:x:0:0:root:/:/bin/sh\npostgres:x:999:999::/:/bin/sh\n")
    put(archive, "etc/group", b"root:x:0:\npostgres:x:999:\n")
    put_folder(archive, "tmp", mode=0o1777)
    added: set[Path] = set()
    for name, source in (("bin/sh", "/bin/sh"), ("usr/bin/du", "/usr/bin/du")):
        real = Path(source).resolve()
        put(archive, name, real.read_bytes(), mode=0o755)
        for library in libraries(real):
            add(archive, library, added)
    real = Path(sys.executable).resolve()
    if real != Path(sys.executable):
        link = tarfile.TarInfo(sys.executable.lstrip("/"))
        link.type, link.linkname = tarfile.SYMTYPE, str(real)
        archive.addfile(link)
    for path in (real, *python_modules()):
        add(archive, path, added)
        if path == real or path.suffix == ".so":
            for library in libraries(path):
                add(archive, library, added)
    return added


def python_modules() -> list[Path]:
    """Return the files of all modules that the two scripts import, as Python itself tells them."""
    code = (
        "import sys, encodings.ascii, encodings.latin_1, encodings.idna, json, os, signal, socket, subprocess, time\n"
        "print('\\n'.join(m.__file__ for m in list(sys.modules.values()) if getattr(m, '__file__', None)))\n"
    )
    out = subprocess.run(
        [sys.executable, "-IS", "-c", code], capture_output=True, text=True, check=True
    ).stdout
    landmark = Path(subprocess.__file__).with_name("os.py")
    return [landmark, *(Path(line) for line in out.split("\n") if line)]


def python_path() -> list[str]:
    return [str(Path(subprocess.__file__).parent)]


def libraries(program: Path) -> list[Path]:
    """Return the shared libraries that a program loads, the loader among them."""
    out = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    words = [word for line in out.splitlines() for word in line.split() if word.startswith("/")]
    return [Path(word) for word in words]


def add(archive: tarfile.TarFile, path: Path, added: set[Path]) -> None:
    if path in added:
        return
    added.add(path)
    mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
    put(archive, str(path).lstrip("/"), path.read_bytes(), mode=mode)


def put(archive: tarfile.TarFile, name: str, content: bytes, *, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def put_folder(archive: tarfile.TarFile, name: str, *, mode: int = 0o755, owner: int = 0) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, mode, owner, owner
    archive.addfile(entry)
