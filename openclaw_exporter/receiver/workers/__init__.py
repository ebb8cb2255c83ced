"""Several processes for one receiver: workers that face clients, and the one that holds the registry.

A worker has a `Front` of its own: it ends TLS, verifies tokens and admits heartbeats. What it lets in goes to
the registry's process (`Recorder`), which orders, stores and answers, and what readers ask goes there too.
The workers hold nothing that counts: one that is killed costs its connections.
"""
