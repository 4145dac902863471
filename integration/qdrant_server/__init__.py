"""A Qdrant server for tests: the real protocols over Qdrant's own engine, on 127.0.0.1 only.

It speaks gRPC and REST as a server of the client's own line does, so the unmodified
`qdrant-client` drives it. Where a message or a status code is copied from the
server's behaviour the docstring of the function says where it was seen.
"""

from integration.qdrant_server.faults import Fault
from integration.qdrant_server.handle import QdrantTestServer

__all__ = ["Fault", "QdrantTestServer"]
