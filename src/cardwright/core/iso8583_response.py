"""Field ``raw_iso8583`` in the response of a simulation: the ISO 8583:2003 response message as a flat map, for audits.

Amounts are numbers, all other values text (wire reference, "raw_iso8583"). Only the response of the simulation has it: it is
neither stored nor sent to webhooks.
"""

from functools import lru_cache

from cardwright.core.countries import numeric_country
from cardwright.core.messages import Details, Merchant
from cardwright.core.money import decimal_text, exponent_of, numeric_of
from cardwright.core.render import to_json
from cardwright.core.responses import REASON_OF
from cardwright.core.transaction_row import (
    TransactionRow,
    approval_code,
    network_reference,
    root_token,
    root_trace_number,
    trace_number,
)
from cardwright.core.transaction_types import (
    CARD_CREDITS,
    INQUIRY,
    REFUND,
    RELEASE_TYPES,
    SETTLED_AT_ONCE,
    SETTLEMENT_TYPES,
    WITHDRAWAL,
)
from cardwright.kit.clock import iso

# Message type and processing code (ISO 8583 DE3: cash 01, refund 20, credit 26, balance 31) by transaction type.
ASKING, RELEASING, SETTLING = ("2110", "000000"), ("2430", "000000"), ("2210", "900000")
CODES = {
    **dict.fromkeys(RELEASE_TYPES, RELEASING), **dict.fromkeys(SETTLEMENT_TYPES, SETTLING), REFUND: ("2210", "200000"),
    WITHDRAWAL: ("2210", "010000"), INQUIRY: ("2110", "310000"), **dict.fromkeys(CARD_CREDITS, ("2210", "260000")),
    **dict.fromkeys(SETTLED_AT_ONCE - CARD_CREDITS - {WITHDRAWAL}, ("2210", "000000")),
}  # fmt: skip


def iso_echo(row: TransactionRow, details: Details, pan: str, expiration: str, short_code: str) -> str:
    """Return the response message. ``pan`` is the number that the caller may see, ``expiration`` is ``MMyy``."""
    places = exponent_of(row.currency) or 0
    digits, currency = _digits(row.created_ms // 1000), numeric_of(row.currency)
    merchant = details.merchant
    approved, (mti, processing) = row.impacted is not None, CODES.get(row.type_id, ASKING)
    return (
        f'{{"0":"{mti}","2":"{pan}","3":"{processing}",'
        f'"4":{decimal_text(row.request_amount, places)},'
        f'"7":"{digits[4:]}","11":"{trace_number(row):0>12}","12":"{digits}","13":"{digits[2:8]}",'
        f'"14":"{expiration[2:]}{expiration[:2]}","15":"{digits[:8]}","17":"{digits[4:8]}","21":"{network_reference(row)}",'
        f'{_about(row, details, places)}"26":{_text(merchant.mcc)},"37":"{row.id}",'
        + (f'"38":"{approval_code(row)}",' if approved else "")
        + _outcome_and_merchant(row.code, approved, details.mid, merchant)
        + (
            f'"54":"{_balance("02", row.available, currency, places)}{_balance("01", row.ledger, currency, places)}",'
            if approved
            else ""
        )
        + _about_original(row)
        + f'"63":"DISCOVER","112":{{"101":"{decimal_text(row.available, places)}","102":"{decimal_text(row.ledger, places)}",'
        f'"103":"{currency}"}},"113":{{"2":"106","29":"Y","34":"Y","35":"API"}},"180":{_text(short_code)}}}'
    )


@lru_cache(maxsize=4096)
def _outcome_and_merchant(code: int, approved: bool, mid: str, merchant: Merchant) -> str:
    """Return action code, merchant and response data (ISO 8583 DE39, DE42, DE43, DE44). Cached: many purchases share them."""
    reason = REASON_OF[code]
    return (
        f'"39":"{reason.code if approved else "00" + reason.network_code}","42":{_text(mid)},'
        f'"43":{{"2":{_text(merchant.name)},"3":{_text(merchant.address)},"4":{_text(merchant.city)},"5":{_text(merchant.state)},'
        f'"6":{_text(merchant.postal_code)},"7":"{numeric_country(merchant.country)}"}},'
        f'"44":{{"1":{_text(reason.memo)},"3":"{reason.network_code}","4":{_text(reason.memo)}}},'
    )


@lru_cache(maxsize=4096)
def _digits(second: int) -> str:
    """Return ``YYYYMMDDhhmmss`` of a second since the epoch, in UTC."""
    return "".join(character for character in iso(second * 1000) if character.isdigit())


def _about(row: TransactionRow, details: Details, places: int) -> str:
    """Return a request's function code; for a follow-up reason, acquirer's id or open amount (ISO 8583 DE24, 25, 32, 95)."""
    if row.type_id in RELEASE_TYPES:
        return f'"25":"0000","95":{{"1":{decimal_text(details.left, places)}}},'
    return '"25":"9000","32":"000000",' if row.type_id in SETTLEMENT_TYPES else '"24":"181",'


def _about_original(row: TransactionRow) -> str:
    """Return the reference to the chain's root (ISO 8583 DE56); empty for a root."""
    if row.root_id is None:
        return ""
    time = _digits(row.user_time_ms // 1000)
    return f'"56":{{"1":"2100","2":"{root_trace_number(row):0>12}","3":"{time}","7":"{root_token(row)}"}},'


def _balance(amount_type: str, amount: int, currency: str, places: int) -> str:
    """Return an amount for ISO 8583 DE54: 21 characters. ``currency`` is its number."""
    return f"00{amount_type}{currency}{places}{'D' if amount < 0 else 'C'}{abs(amount):012d}"


def _text(value: str) -> str:
    return to_json(value).decode()
