"""What Prometheus would read of a server: `GET /metrics`, parsed by Prometheus's own client."""

from __future__ import annotations

import http.client
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


class Scrape:
    """One answer of `/metrics`, or several together."""

    def __init__(self, *texts: str) -> None:
        """Parses the text format of Prometheus."""
        self.text = "\n".join(texts)
        families = (family for text in texts for family in text_string_to_metric_families(text))
        self.samples: list[Sample] = [sample for family in families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """Returns the sum of the samples that carry these labels; there must be one."""
        found = [s.value for s in self.samples if s.name == name and labels.items() <= s.labels.items()]
        assert found, f"no sample {name} {labels}"
        return sum(found)

    def series(self, name: str) -> list[Mapping[str, str]]:
        """Returns the labels of each sample of a name."""
        return [s.labels for s in self.samples if s.name == name]


def get(address: str, path: str) -> tuple[int, str]:
    """Asks an address over HTTP, and returns the status and the body."""
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def scrape(address: str) -> Scrape:
    """Asks an address for its metrics."""
    status, text = get(address, "/metrics")
    assert 200 == status
    return Scrape(text)
