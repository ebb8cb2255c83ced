"""The wire contract, used by both ends: heartbeats, headers, answers, problems, certificates and tokens.

Every error that leaves this room is a `WireError` (what came over the wire breaks the contract) or a
`UserError` (a setting, key or key set that cannot be used). No error text holds a token, a key or a body.
"""
