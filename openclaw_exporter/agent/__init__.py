"""The agent: collects on this node, exports metrics and publishes heartbeats, all from one snapshot."""
