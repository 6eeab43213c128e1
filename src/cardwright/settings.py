"""Settings: options of the command line, then environment variables ``CARDWRIGHT_…``, then ``.env``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr
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

    @property
    def is_sandbox(self) -> bool:
        """Whether the mode is ``sandbox``."""
        return self.mode is Mode.SANDBOX
