"""Starts Postgres in a test image as the official images do.

POSTGRES_PASSWORD, POSTGRES_USER and POSTGRES_DB count on an empty volume only. During the
first set-up a server runs that listens on a socket alone, so whoever asks the
socket takes it for ready too early. INIT_DELAY (seconds) makes that time longer, and
FAIL=1 ends the container with a message.
"""

import os
import subprocess
import sys
import time

DATA = os.environ["PGDATA"]
USER = os.environ.get("POSTGRES_USER", "postgres")
DATABASE = os.environ.get("POSTGRES_DB", USER)
TMP = "/tmp"  # noqa: S108 - the container's own
# fsync guards against a power cut alone, which no test has; without it a set-up is twice as fast.
SOCKET = ["-c", f"unix_socket_directories={TMP}", "-c", "fsync=off"]


def set_up() -> None:
    password = os.environ.get("POSTGRES_PASSWORD")
    if not password:
        sys.exit("Error: POSTGRES_PASSWORD is not set")
    os.makedirs(DATA, mode=0o700, exist_ok=True)
    with open(f"{TMP}/first", "w") as file:
        file.write(password)
    arguments = ["-D", DATA, "-U", USER, f"--pwfile={TMP}/first", "-A", "scram-sha-256"]
    arguments += ["--auth-local=trust", "-E", "UTF8", "--no-locale", "--no-sync"]
    subprocess.run(["initdb", *arguments], check=True, stdout=subprocess.DEVNULL)
    os.remove(f"{TMP}/first")
    with open(f"{DATA}/pg_hba.conf", "a") as file:
        file.write("host all all all scram-sha-256\n")
    server = subprocess.Popen(["postgres", "-D", DATA, "-c", "listen_addresses=", *SOCKET])
    command = f'CREATE DATABASE "{DATABASE}"\n'
    while subprocess.run(["pg_isready", "-q", "-h", TMP], check=False).returncode:
        time.sleep(0.05)
    time.sleep(float(os.environ.get("INIT_DELAY", "0")))
    server.send_signal(2)
    server.wait()
    if DATABASE != "postgres":
        subprocess.run(
            ["postgres", "--single", "-c", "fsync=off", "-D", DATA, "postgres"],
            input=command.encode(),
            check=True,
            stdout=subprocess.DEVNULL,
        )


if os.environ.get("FAIL"):
    sys.exit("FATAL: this image was told to fail")
if not os.path.exists(f"{DATA}/PG_VERSION"):
    set_up()
given = sys.argv[1:]
arguments = given[1:] if given[:1] == ["postgres"] else given
os.execvp("postgres", ["postgres", "-D", DATA, "-c", "listen_addresses=*", *SOCKET, *arguments])  # noqa: S606
