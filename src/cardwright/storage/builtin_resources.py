"""Built-in resources: two country lists and one account holder group that every program has and that cannot be changed."""

from typing import Any

import msgspec
from sqlalchemy import Connection

from cardwright.core.countries import OFAC_COUNTRIES, numeric_country
from cardwright.kit.clock import Instant, iso
from cardwright.storage.tables import accepted_countries, account_holder_groups

US_ONLY, DECLINE_OFAC = "accept_us_only", "decline_ofac_countries"
COUNTRY_LISTS: tuple[tuple[str, str, bool, list[str]], ...] = (
    (US_ONLY, "Accept US only", True, ["840"]),
    (DECLINE_OFAC, "Decline OFAC countries", False, sorted(map(numeric_country, OFAC_COUNTRIES))),
)
"""Token, name, whitelist flag, and numeric country codes."""

DEFAULT_GROUP = "DEFAULT_AHG"
DEFAULT_GROUP_NAME = "Default account holder group"

PRE_KYC_DEFAULTS: dict[str, Any] = {
    "cash_access_enabled": False, "international_enabled": False, "balance_max": 1000, "enable_non_program_loads": False,
    "is_reloadable_pre_kyc": False,
}  # fmt: skip
GROUP_DEFAULTS: dict[str, Any] = {"kyc_required": "NEVER", "is_reloadable": True, "pre_kyc_controls": PRE_KYC_DEFAULTS}
"""The configuration of a group that is created without one (observed)."""

BUILT_IN: dict[str, tuple[str, ...]] = {
    accepted_countries.name: (US_ONLY, DECLINE_OFAC),
    account_holder_groups.name: (DEFAULT_GROUP,),
}
"""The tokens of the built-in resources by table name."""


def insert_built_ins(db: Connection, program_id: int, now: Instant) -> None:
    """Insert the built-in resources of a new program."""
    common = {"program_id": program_id, "request_hash": b"", "created_ms": now, "modified_ms": now}
    for token, name, is_whitelist, country_codes in COUNTRY_LISTS:
        doc = {
            "token": token, "name": name, "is_whitelist": is_whitelist, "country_codes": country_codes,
            "created_time": iso(now), "last_modified_time": iso(now),
        }  # fmt: skip
        values = {**common, "token": token, "doc": _text(doc), "name": name, "is_whitelist": is_whitelist}
        db.execute(accepted_countries.insert().values(values))
    group = {"token": DEFAULT_GROUP, "name": DEFAULT_GROUP_NAME, "config": GROUP_DEFAULTS}
    db.execute(account_holder_groups.insert().values({**common, "token": DEFAULT_GROUP, "doc": _text(group)}))


def _text(doc: dict[str, Any]) -> str:
    return msgspec.json.encode(doc).decode()
