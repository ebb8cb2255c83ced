"""The HTTP session of the OTLP exporter. Importing it costs 10 MiB: only where metrics go out over HTTP."""

from __future__ import annotations

from typing import Any

from requests import Session


class OtlpSession(Session):
    """A session whose own CA bundle counts.

    requests lets `REQUESTS_CA_BUNDLE` and `CURL_CA_BUNDLE` win over the bundle of a session, so that
    `OTEL_EXPORTER_OTLP_CERTIFICATE` would be ignored wherever one of them is set. Proxies by variable stay.
    """

    def merge_environment_settings(self, *arguments: Any, **options: Any) -> Any:
        """Return the settings of one request; the exporter never gives a bundle with one."""
        settings = super().merge_environment_settings(*arguments, **options)
        if self.verify is not True:
            settings["verify"] = self.verify
        return settings
