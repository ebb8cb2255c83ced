"""The registry in a Redis, a Redis Cluster or a Valkey that many receivers share."""
