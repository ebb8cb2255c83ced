"""The catalogue of instruments, and how OpenTelemetry and Prometheus are set up.

Import what you need from its module: the catalogue is pure data, `instruments` needs opentelemetry-api only,
and `provider` brings the SDK in.
"""
