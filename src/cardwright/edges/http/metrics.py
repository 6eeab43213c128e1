"""What ``/metrics`` tells, in Prometheus' text form."""

from prometheus_client import Counter

REQUESTS = Counter("cardwright_http_requests_total", "Answered API requests", ["verb", "status"])
