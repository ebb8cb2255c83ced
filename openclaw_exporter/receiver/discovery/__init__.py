"""What the receiver tells of its registry: nodes, capacity, events, service discovery, and what it is.

operations → what there is to ask, as data: routes and the OpenAPI document are made of it
reading    → answers it, for readers only
"""
