"""The receiver: it takes heartbeats over mutual TLS and keeps the registry of nodes.

`server.serve` runs one. What a heartbeat passes on its way in, in this order:

    listener → protocol → application → intake → store → registry → liveness
    (socket)   (limits)   (routes)      (checks) (log)   (memory)   (rules)
"""
