"""Run the emulator until it is told to stop: python -m integration.pinecone_emulator --port P."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from integration.pinecone_emulator.emulator import PineconeEmulator


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="pinecone_emulator", description="Emulate Pinecone's API on 127.0.0.1."
    )
    parser.add_argument("--port", type=int, default=5080, help="the controller's port; 0 takes a free one")
    parser.add_argument("--state", help="keep indexes and records in this file over restarts")
    parser.add_argument(
        "--api-key", action="append", help="a valid key (repeatable); without one, any key is"
    )
    parser.add_argument("--lag-s", type=float, default=0.0, help="seconds until reads see a write")
    parser.add_argument("--seed", type=int, default=0, help="of the random choices of faults")
    chosen = parser.parse_args(arguments)
    # A pipe and no Event: a handler that sets one may meet the lock that its own thread holds in `wait`.
    done, end = os.pipe()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: os.write(end, b"."))
    emulator = PineconeEmulator(chosen.port, chosen.api_key, chosen.lag_s, chosen.state, seed=chosen.seed)
    with emulator:
        sys.stdout.write(f"{emulator.controller_url}\n")
        sys.stdout.flush()
        os.read(done, 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
