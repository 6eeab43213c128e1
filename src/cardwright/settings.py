"""Settings: options of the command line, then environment variables ``CARDWRIGHT_…``, then ``.env``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from cardwright.kit.limits import ANSWER_S


class Mode(StrEnum):
    """What the platform allows: everything a developer needs, or only what may be done with real money."""

    SANDBOX = "sandbox"
    PRODUCTION = "production"


class Settings(BaseSettings):
    """One running platform. Secrets may be left out in sandbox mode, where they are made at the first start."""

    model_config = SettingsConfigDict(env_prefix="CARDWRIGHT_", env_file=".env", extra="ignore")

    db: str | None = None
    """A file path, ``:memory:`` or ``postgresql://…``; a file in the data directory when left out."""
    data_dir: Path | None = None
    """Where keys, credentials and the embedded database live; ``.cardwright`` when left out."""
    host: str = "127.0.0.1"
    port: int | None = None
    """The port asked for; when left out 8181 or the next free one."""
    workers: int = 1
    tls: bool = False
    mode: Mode = Mode.SANDBOX
    seed: int | None = None
    application_token: SecretStr | None = None
    access_token: SecretStr | None = None
    master_key: SecretStr | None = None
    """64 hexadecimal digits; card numbers and other secrets at rest are encrypted under keys derived from it."""
    allow_simulate: bool = False
    """Whether production mode takes simulations."""
    outgoing_hosts: str = ""
    """Hosts (``host`` or ``host:port``, comma-separated) that production mode may call although they are not public."""
    bin_prefix: str = "111111"
    answer_limit_s: Annotated[float, Field(ge=2, le=600)] = ANSWER_S
    """Seconds from its arrival after which a request is answered 503."""
    retention_days: int = Field(default=30, ge=1, le=3650)
    """Days of real time after which ended notifications, inbox messages and finished backtests are removed."""
    log_level: str = "warning"
    log_json: bool = False
    # Limits for clients, for each worker process.
    head_max_bytes: PositiveInt = 65_536
    """Request line and header lines of a request."""
    url_max_bytes: PositiveInt = 8_192
    headers_max: PositiveInt = 100
    """Header lines of a request."""
    body_max_bytes: PositiveInt = 1_048_576
    head_timeout_s: PositiveFloat = 10
    """From the connection's start, or from the first byte of a later request, to the end of the head."""
    body_timeout_s: PositiveFloat = 30
    """From the end of the head to the end of the body."""
    idle_timeout_s: PositiveFloat = 75
    """Between an answer and the next request. A request that meets a closing connection gets no answer. nginx has 75 s, too."""
    write_timeout_s: PositiveFloat = 30
    """For a client to take an answer that does not fit into the send buffers."""
    connections_max: PositiveInt = 4_096
    connections_per_address_max: NonNegativeInt = 0
    """0 means no limit: behind a proxy all clients have one address."""

    @property
    def is_sandbox(self) -> bool:
        """Whether the mode is ``sandbox``."""
        return self.mode is Mode.SANDBOX
