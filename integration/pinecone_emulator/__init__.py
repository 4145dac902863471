"""An emulator of Pinecone's public API for tests: strict where the documentation is, and never the product's.

    with PineconeEmulator() as emulator:
        pc = Pinecone(api_key="any", host=emulator.controller_url)
        pc.create_index(name="a", dimension=3, spec=ServerlessSpec(cloud="aws", region="us-east-1"))
        pc.index(name="a").upsert(vectors=[("1", [0.1, 0.2, 0.3])])

Or in a process of its own: `python -m integration.pinecone_emulator --port 5080 --state FILE`.
"""

from integration.pinecone_emulator.emulator import PineconeEmulator
from integration.pinecone_emulator.faults import Counters, Fault, Faults, Seen
from integration.pinecone_emulator.limits import Limits

__all__ = ["Counters", "Fault", "Faults", "Limits", "PineconeEmulator", "Seen"]
