"""Writings: equivalent JSON texts of one value, made from the types of the route table, and different values."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from msgspec import inspect

from tests.stress.invalid_bodies import Field, bare

ABSENT = "absent"
"""A placeholder for a field that is left out."""

Values = tuple[str, str | None]
"""Two different valid values as JSON; the second is None if only one is valid."""

# --- Times -------------------------------------------------------------------------------

Writings = tuple[tuple[str, ...], str]
"""Equivalent texts of one time, and a different time."""

DAY: Writings = (
    ('"2035-05-06"', '"2035-05-06T00:00:00Z"', '"2035-05-06T19:30:00.000Z"', '"2035-05-06T19:30:00"'), '"2035-05-07"',
)  # fmt: skip
INSTANT: Writings = (
    (
        '"2035-05-06T00:00:00Z"', '"2035-05-06"', '"2035-05-06T00:00:00.000Z"', '"2035-05-06T00:00:00"',
        '"2035-05-06T02:00:00+02:00"',
    ),
    '"2035-05-07"',
)  # fmt: skip
MOMENT: Writings = ((*INSTANT[0], '"Sun, 06 May 2035 00:00:00 GMT"'), '"2035-05-07"')
PAST: Writings = (tuple(text.replace("2035", "2025") for text in INSTANT[0]), '"2025-05-07"')
PAST_END: Writings = (
    ('"2025-05-06"', '"2025-05-06T23:59:59.999Z"', '"2025-05-06T23:59:59.999"'), '"2025-05-06T00:00:00Z"',
)  # fmt: skip

TIMES = {
    "/sandbox/backtests start_date": PAST, "/sandbox/backtests end_date": PAST_END, "birth_date": DAY, "start_date": DAY,
    "end_date": DAY, "start_time": MOMENT, "end_time": MOMENT, "settlement_date": INSTANT,
}  # fmt: skip
"""Fields that are parsed as times."""

TEXTS = frozenset({"passport_expiration_date", "id_card_expiration_date", "expiration_date"})
"""Fields with the name of a time that are stored as sent."""

# --- Values ------------------------------------------------------------------------------

USERS: Values = ('"ana"', '"cleo"')
PRODUCTS: Values = ('"coffee_card"', '"no_such_product"')
SOURCES: Values = ('"main_account"', '"other_account"')
HOOKS: Values = ('"http://127.0.0.1:1/a"', '"http://127.0.0.1:1/b"')
SECRETS: Values = ('"Change-me-to-20-or-more"', '"Change-me-to-20-or-less"')
NUMBERS: Values = ('"123456789"', '"123456780"')

VALUES: dict[str, Values] = {
    "user_token": USERS, "sender_user_token": USERS, "recipient_user_token": ('"cleo"', '"ben"'),
    "card_product_token": PRODUCTS, "card_token": ('"anas_card"', '"cleos_card"'),
    "program_funding_source_token": SOURCES, "funding_source_token": SOURCES, "password": ('"Aa1!xyz"', '"Aa1!xyy"'),
    "ssn": NUMBERS, "identifications.value": NUMBERS, "currency_code": ('"USD"', '"EUR"'),
    "account_holder_group_token": ('"newcomers"', '"other"'), "parent_token": ('"ben"', '"cleo"'),
    "mccs": ('["5411", "5412"]', '["5412", "5411"]'), "merchant_group_token": ('"track_and_field"', '"x"'),
    "country_codes": ('["124", "840"]', '["840", "124"]'), "events": ('["*", "card.*"]', '["card.*", "*"]'),
    "fee_tokens": ("[]", None), "fees.token": ('"monthly"', '"weekly"'),
    "real_time_fee_group_token": ('"club_fees"', '"x"'), "config.url": HOOKS, "config.basic_auth_password": SECRETS,
    "config.secret": SECRETS, "webhook.endpoint": HOOKS, "original_order_token": ('"first_load"', '"x"'),
    "type_token": ('"debts"', '"x"'), "card_acceptor.mcc": ('"5411"', '"5412"'),
    "network_fees.type": ('"ISSUER_FEE"', '"SWITCH_FEE"'), "network_fees.credit_debit": ('"C"', '"D"'),
    "include_credits_types": ('["ALL", "NONE"]', '["NONE", "ALL"]'),
    "include_network_load_types": ('["ALL", "NONE"]', '["NONE", "ALL"]'),
    "association": ('{"user_token": "ana"}', '{"user_token": "cleo"}'),
    "merchant_scope": ('{"mcc": "5411"}', '{"mcc": "5412"}'), "accepted_countries_token": ('"north_america"', '"x"'),
    "quasi_cash_exempt_merchant_group_token": ('"track_and_field"', '"x"'), "card_service_code": ("201", "202"),
    "bin_prefix": ('"123456"', '"123457"'), "pan_length": ('"15"', '"14"'), "reason_code": ('"00"', '"01"'),
    "/v3/usertransitions status": ('"SUSPENDED"', '"ACTIVE"'),
    "/v3/directdeposits/transitions reason_code": ('"R24"', '"R06"'),
    "/v3/directdeposits/transitions state": ('"REVERSED"', '"REJECTED"'),
    "validations.user.ssn": ('"6789"', '"123456789"'), "validations.user.phone": ('"+15105551212"', '"x"'),
    "velocity_controls.remove": ('["daily", "weeks"]', '["weeks", "daily"]'),
    "auth_controls.remove": ('["no_betting", "no_bars"]', '["no_bars", "no_betting"]'),
    "exempt_mids.remove": ('["the_derby", "the_races"]', '["the_races", "the_derby"]'),
    "velocity_controls.change.token": ('"daily"', '"weeks"'),
    "auth_controls.change.token": ('"no_betting"', '"no_bars"'), "cash_back_amount": ("10", "11"),
    "pre_auth_time_limit": ('"3"', '"4"'), "expiration_offset.value": ("3", "4"), "min_offset.value": ("9", "8"),
}  # fmt: skip
"""Valid values of fields that do not accept every value of their type. The key is the end of the path, or route and end."""

DEFAULTS = {
    "config.signature_algorithm": ('"HMAC_SHA_1"',), "/v3/velocitycontrols usage_limit": ("-1",),
    "/sandbox/shadow-controls usage_limit": ("-1",), "velocity_controls.add.usage_limit": ("-1",),
    "cash_back_amount": ("0", "0.00"),
    "account_holder_group_token": ('""',), "reissue_pan_from_card_token": ('""',), "new_pan_from_card_token": ('""',),
    "translate_pin_from_card_token": ('""',), "account_token": ('""',), "bulk_issuance_token": ('""',),
    "real_time_fee_group_token": ('""',), "/v3/users password": ('""',),
}  # fmt: skip
"""Values equivalent to a missing field, in addition to the defaults in the answer and the shape."""


def key_of(table: dict[str, Any], route: str, name: str) -> str | None:
    """Return the key of a field in a table: the longest end of its path, keys with the route first. None if there is none."""
    ends = [name.split(".", number)[-1] for number in range(name.count(".") + 1)]
    return next((key for key in [*(f"{route} {end}" for end in ends), *ends] if key in table), None)


def writings(field: Field, value: str) -> Iterator[str]:
    """Yield the other JSON texts of a value that a field of this type accepts as equal."""
    kinds = [bare(kind) for kind in field.types]
    is_text = any(isinstance(kind, inspect.StrType) for kind in kinds)
    digits = value.strip('"')
    for kind in kinds:
        match kind:
            case inspect.DecimalType():
                number = Decimal(value)
                yield from (f'"{number:.2f}"', f"{number:.1f}", f"{number:E}")
            case inspect.IntType() if is_text:
                # A text of digits without a leading zero may also be sent as a number.
                if digits.isdigit() and not digits.startswith("0"):
                    yield from (digits, f"{digits}.0")
            case inspect.IntType():
                yield from (f'"{value}"', f"{value}.0")
            case inspect.LiteralType() if all(isinstance(word, int) for word in kind.values):
                yield f'"{value}"'
            case inspect.BoolType():
                number = int(value == "true")
                yield from (f'"{value.upper()}"', str(number))
            case inspect.DictType() if value == METADATA[0]:
                yield from ('{"b": "true", "a": 7}', '{"a": "7", "b": "true", "c": null}')
            case _:
                pass


METADATA: Values = ('{"a": 7, "b": true}', '{"a": 8, "b": true}')


def sample(field: Field) -> Values:
    """Return two values of a field's type."""
    kind = bare(field.types[0])
    if any(isinstance(bare(other), inspect.IntType) for other in field.types[1:]):
        assert isinstance(kind, inspect.StrType)
        size = max(kind.min_length or 0, min(3, kind.max_length or 3))
        return f'"{"1" * size}"', f'"{"2" * size}"'
    match kind:
        case inspect.StrType():
            size = max(kind.min_length or 0, 1)
            return f'"{"x" * size}"', f'"{"y" * size}"'
        case inspect.DecimalType():
            return "10", "11"
        case inspect.IntType():
            return "4", "5"
        case inspect.BoolType():
            return "true", "false"
        case inspect.LiteralType() | inspect.EnumType():
            words = list(kind.values) if isinstance(kind, inspect.LiteralType) else [member.value for member in kind.cls]
            first, second = (f'"{word}"' if isinstance(word, str) else str(word) for word in (words * 2)[:2])
            return first, second if second != first else None
        case inspect.DictType():
            return METADATA if isinstance(bare(kind.value_type), inspect.UnionType) else ('{"x-a": "b"}', '{"x-a": "c"}')
        case inspect.VarTupleType():
            return '["x", "y"]', '["y", "x"]'
        case _:
            raise AssertionError(f"no sample of {kind}; add one here")
