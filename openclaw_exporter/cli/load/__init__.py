"""The load test: many simulated nodes against one receiver.

`plan` says what, `node` is one simulated node, `worker` a process full of them, `run` starts the workers and
adds up what they `tally`.
"""
