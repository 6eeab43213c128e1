"""Settings: command line options, else environment variables ``CARDWRIGHT_…``, else ``.env``."""

from enum import StrEnum
from math import inf
from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, SecretStr, ValidatorFunctionWrapHandler, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from cardwright.kit.digits import is_plain
from cardwright.kit.limits import ANSWER_S


class Mode(StrEnum):
    """The mode of the platform: the sandbox with all development features, or production without them."""

    SANDBOX = "sandbox"
    PRODUCTION = "production"


class Settings(BaseSettings):
    """The settings of a running platform. In sandbox mode the first start generates missing secrets."""

    model_config = SettingsConfigDict(env_prefix="CARDWRIGHT_", env_file=".env", extra="ignore")

    db: str | None = None
    """A file path, ``:memory:`` or ``postgresql://…``. Default: a file in the data directory."""
    data_dir: Path | None = None
    """The directory of keys, credentials and the embedded database. Default: ``.cardwright``, beside an explicit SQLite file."""
    host: str = "127.0.0.1"
    port: int | None = None
    """The TCP port. Default: 8181, or the next free one."""
    workers: int = 1
    tls: bool = False
    mode: Mode = Mode.SANDBOX
    seed: int | None = None
    application_token: SecretStr | None = None
    access_token: SecretStr | None = None
    master_key: SecretStr | None = None
    """64 hexadecimal digits. It wraps the data keys of the database, which encrypt card numbers and other secrets."""
    new_master_key: SecretStr | None = None
    """The master key that ``cardwright rekey`` puts in the place of ``master_key``."""
    backup_passphrase: SecretStr | None = None
    """The passphrase that seals the keys in a backup."""
    allow_simulate: bool = False
    """True enables ``/simulate`` and ``/simulations`` in production mode."""
    outgoing_hosts: str = ""
    """Non-public hosts that production mode may call, as ``host`` or ``host:port``, comma-separated."""
    bin_prefix: str = "111111"
    answer_limit_s: Annotated[float, Field(ge=2, le=600)] = ANSWER_S
    """Seconds from the arrival of a request after which it is answered with 503."""
    retention_days: int = Field(default=30, ge=1, le=3650)
    """Days of real time after which ended notifications, inbox messages and finished backtests are removed."""
    log_level: str = "warning"
    log_json: bool = False
    # Limits for clients, for each worker process.
    head_max_bytes: PositiveInt = 65_536
    """Maximum size of request line and header lines together."""
    url_max_bytes: PositiveInt = 8_192
    headers_max: PositiveInt = 100
    """Maximum number of header lines in a request."""
    body_max_bytes: PositiveInt = 1_048_576
    head_timeout_s: PositiveFloat = 10
    """Seconds from the start of the connection, or from the first byte of a later request, to the end of the head."""
    body_timeout_s: PositiveFloat = 30
    """Seconds from the end of the head to the end of the body."""
    idle_timeout_s: PositiveFloat = 75
    """Seconds between an answer and the next request. A request on a closing connection gets no answer. nginx also has 75 s."""
    write_timeout_s: PositiveFloat = 30
    """Seconds in which a client must receive an answer that does not fit into the send buffers."""
    connections_max: PositiveInt = 4_096
    connections_per_address_max: NonNegativeInt = 0
    """0 means no limit, because behind a proxy all clients have one address."""

    @field_validator("application_token", "access_token", "master_key", "new_master_key", "backup_passphrase", mode="before")
    @classmethod
    def _given_text(cls, value: object) -> object:
        """Return None for an empty secret, such as an unset ``${VAR}`` of a compose file: an empty text is never a secret."""
        return None if isinstance(value, str) and not value.strip() else value

    @field_validator("*", mode="wrap")
    @classmethod
    def _check_digits(cls, value: object, parse: ValidatorFunctionWrapHandler) -> object:
        """Refuse a number with other than ASCII digits, and infinity, which would be no limit."""
        parsed: object = parse(value)
        if isinstance(parsed, int | float) and isinstance(value, str) and not (is_plain(value) and abs(parsed) < inf):
            raise PydanticCustomError("digits", "Input should be a number in the digits 0 to 9, without blanks")
        return parsed

    @property
    def is_sandbox(self) -> bool:
        """True if the mode is ``sandbox``."""
        return self.mode is Mode.SANDBOX
