"""Rendering: a stored transaction as the wire's JSON, from fragments and templates.

The same functions render the response of a simulation, of every GET, and webhooks. The constant parts of a card and a funding
source are encoded once (``CardFragments``, ``SourceFragments``); each message adds the rest. A generic encoder costs about ten
times as much and would be the largest item of the hot path.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from cardwright.core.enums import TYPES, State
from cardwright.core.messages import Details, Merchant, surcharge_of
from cardwright.core.money import decimal_text, exponent_of
from cardwright.core.responses import ADDRESS_VERDICTS, REASON_OF, SECURITY_CODE_VERDICTS, Reason
from cardwright.core.snapshot import CardFact, SourceFact, UserFact
from cardwright.core.transaction_row import (
    LOAD_SIDE,
    ORDER,
    TransactionRow,
    approval_code,
    cash_back_of,
    network_reference,
    root_token,
    token_of,
    trace_number,
    with_kind,
)
from cardwright.core.transaction_types import (
    CREDIT_REVERSALS,
    INQUIRY,
    LOAD_TYPES,
    PURCHASE_REVERSALS,
    RELEASE_TYPES,
    REQUEST_TYPES,
    REVERSALS,
    SETTLEMENT_TYPES,
    UNLOAD_TYPES,
)
from cardwright.kit.clock import iso, iso_ms

to_json = msgspec.json.encode
details_decoder = msgspec.msgpack.Decoder(Details)

PAYMENT_NODE = "c4a7d1e05b2f48369d80e6f3127ab5c9"
"""``issuer_payment_node``: 32 hex characters that name a server. All servers of Cardwright use the same value."""


VERIFIED = Reason.VERIFIED.number

STATE_NAMES = {state.value: state.name for state in State}


class CardFragments(NamedTuple):
    """Fragments of a card's transactions that its configuration fixes, and the address on file of its user."""

    tokens: str
    owner: str
    product: str
    people: str
    street: str | None = None
    postal_code: str | None = None


class SourceFragments(NamedTuple):
    """Fragments of an order that its funding source fixes."""

    source: str
    token: str


def fragments_of(card: CardFact, user: UserFact, owner: UserFact) -> CardFragments:
    """Encode the constant parts of a card, its user and the owner of its account."""
    return CardFragments(
        tokens=f'"user_token":{_quoted(owner.token)},"acting_user_token":{_quoted(user.token)},"card_token":{_quoted(card.token)}',
        owner=_quoted(owner.token),
        product=_quoted(card.card_product_token),
        people=f'"user":{{"metadata":{to_json(user.metadata).decode()}}},'
        f'"card":{{"last_four":"{card.last_four}","metadata":{to_json(card.metadata).decode()}}}',
        street=user.address1,
        postal_code=user.postal_code,
    )


def source_fragments_of(source: SourceFact, *, masked: bool) -> SourceFragments:
    """Encode the constant parts of a funding source. ``masked`` shows its token as ten asterisks and the last four characters."""
    token = _quoted("**********" + source.token[-4:] if masked else source.token)
    return SourceFragments(
        source=f'{{"type":"program","token":{token},"active":{_bool(source.active)},"name":{_quoted(source.name)},'
        f'"is_default_account":false,"created_time":"{source.created_time}","last_modified_time":"{source.last_modified_time}"}}',
        token=token,
    )


_Words = tuple[Details, int, str, str, str, str]
"""Values that both sides of a row share: details, decimal places, creation time, user's time, token, and token of the chain."""


def _words_of(row: TransactionRow) -> _Words:
    time, token = iso(row.created_ms), token_of(row)
    began = time if row.user_time_ms == row.created_ms else iso(row.user_time_ms)
    chain_token = token if row.root_id is None else root_token(row)
    return details_decoder.decode(row.details), exponent_of(row.currency) or 0, time, began, token, chain_token


def render(row: TransactionRow, fragments: CardFragments, source: SourceFragments | None, state: int | None = None) -> str:
    """Return the card's side of a row as JSON. ``state`` overrides the stored state: a notification shows the first state."""
    details, places, time, began, token, chain_token = words = _words_of(row)
    type_id, preceding = row.type_id, ""
    # Inquiries and verifications omit impacted_amount; they do not show 0.
    effect = None if type_id == INQUIRY or row.code == VERIFIED else row.impacted
    if row.root_id is not None:
        preceding = f'"preceding_related_transaction_token":"{_inside(details.root_token) or chain_token}",'
    asks, settles = type_id in REQUEST_TYPES, type_id in SETTLEMENT_TYPES
    return (
        f'{{"type":"{TYPES[type_id]}","state":"{STATE_NAMES[row.state if state is None else state]}","identifier":"{row.id}",'
        f'"token":"{_inside(details.chosen_token) or token}",{fragments.tokens},"card_product_token":{fragments.product},'
        f"{preceding}{_gpa(row, effect, places)}"
        f"{_order(row, words, fragments, source)}"
        f'"duration":{row.duration_ms},"created_time":"{time}","user_transaction_time":"{began}",'
        + ("" if type_id in REVERSALS else f'"settlement_date":"{time[:10]}T00:00:00Z",')
        + f'"request_amount":{decimal_text(row.request_amount, places)},"amount":{decimal_text(row.amount, places)},'
        f'{_fees_and_cash(row, details, places)}"currency_code":"{row.currency}",'
        + ("" if row.impacted is None else f'"approval_code":"{approval_code(row)}",')
        + f'"response":{_response(row.code, details.limited_by)},{_network(details)}"acquirer":{{'
        + ('"institution_id_code":"000000",' if settles else "")
        + f'"system_trace_audit_number":"{trace_number(row)}"}},{fragments.people},'
        f'"issuer_received_time":"{iso_ms(row.created_ms)}","issuer_payment_node":"{PAYMENT_NODE}",'
        f'"network_reference_id":"{network_reference(row)}",'
        f'"card_acceptor":{_card_acceptor(details.mid, details.merchant, asks, settles, details.mcc_groups)},'
        f'{_optional_fields(details, fragments, places)}"is_recurring":false,"is_installment":false}}'
    )


def render_load(row: TransactionRow, fragments: CardFragments, source: SourceFragments | None) -> str:
    """Return the load's side of a row as JSON: the load of the purchase, or its return to the source."""
    assert row.moved, "only a row that moved money has a load side"
    details, places, time, began, token, _ = words = _words_of(row)
    return (
        f'{{"type":"{TYPES[LOAD_TYPES[row.type_id]]}","state":"{STATE_NAMES[row.state]}","identifier":"{row.id + 1}",'
        f'"token":"{with_kind(token, LOAD_SIDE)}",{fragments.tokens},'
        f'"preceding_related_transaction_token":"{_inside(details.chosen_token) or token}",'
        f"{_gpa(row, row.moved, places)}"
        f"{_order(row, words, fragments, source)}"
        f'"duration":{row.duration_ms},"created_time":"{time}","user_transaction_time":"{began}",'
        f'"amount":{decimal_text(abs(row.moved), places)},"currency_code":"{row.currency}","response":{_response(row.code)},'
        f'"network":"MARQETA","subnetwork":"MANAGED_JIT",'
        f'"acquirer":{{"system_trace_audit_number":"{trace_number(row)}"}},{fragments.people},'
        f'"issuer_received_time":"{iso_ms(row.created_ms)}","issuer_payment_node":"{PAYMENT_NODE}"}}'
    )


def _gpa(row: TransactionRow, impacted: int | None, places: int) -> str:
    zero = decimal_text(0, places)
    effect = "" if impacted is None else f',"impacted_amount":{decimal_text(impacted, places)}'
    balance = (
        f'"currency_code":"{row.currency}","ledger_balance":{decimal_text(row.ledger, places)},'
        f'"available_balance":{decimal_text(row.available, places)},"credit_balance":{zero},"pending_credits":{zero}{effect}'
    )
    return f'"gpa":{{{balance},"balances":{{"{row.currency}":{{{balance}}}}}}},'


def _order(row: TransactionRow, words: _Words, fragments: CardFragments, source: SourceFragments | None) -> str:
    """Return ``gpa_order`` with a trailing comma; ``gpa_order_unload`` for money that returns without an authorization."""
    details, places, time, began, token, chain_token = words
    if source is None or not (row.moved or details.order_refused or details.unload):
        return ""
    if details.order_refused:
        amount, state, response, load = row.request_amount, "DECLINED", _response(Reason.ACCOUNT_LOAD_FAILED.number), ""
    elif details.unload:
        # No money has moved yet, so the order has no transaction.
        amount, state, response, load = details.unload, _order_state(row), _response(Reason.APPROVED.number), ""
    else:
        amount, state, response = abs(row.moved), _order_state(row), _response(Reason.APPROVED.number)
        load = f'"transaction_token":"{with_kind(token, LOAD_SIDE)}",'
    text = decimal_text(amount, places)
    common = (
        f'"token":"{with_kind(chain_token, ORDER)}","amount":{text},'
        f'"created_time":"{began}","last_modified_time":"{time}",'
        f'{load}"state":"{state}","response":{response},"funding":{{"amount":{text},"source":{source.source}}},'
        f'"funding_source_token":{source.token}'
    )
    if row.type_id in UNLOAD_TYPES or details.unload:
        return f'"gpa_order_unload":{{{common}}},'
    return f'"gpa_order":{{{common},"user_token":{fragments.owner},"currency_code":"{row.currency}"}},'


def _order_state(row: TransactionRow) -> str:
    """Return PENDING while the hold is open, COMPLETION once money has moved, REVERSED after a full reversal."""
    if row.type_id in PURCHASE_REVERSALS:
        return "REVERSED"
    if row.first_state == State.COMPLETION or row.type_id in SETTLEMENT_TYPES or row.type_id in CREDIT_REVERSALS:
        return "COMPLETION"
    return "REVERSED" if row.type_id in RELEASE_TYPES and row.first_state == State.CLEARED else "PENDING"


@lru_cache(maxsize=1024)
def _response(code: int, limited_by: str | None = None) -> str:
    reason = REASON_OF[code]
    information = "" if limited_by is None else f',"additional_information":{_quoted(limited_by)}'
    return f'{{"code":"{reason.code}","memo":{_quoted(reason.memo)}{information}}}'


@lru_cache(maxsize=4096)
def _card_acceptor(mid: str, merchant: Merchant, asks: bool, settles: bool, mcc_groups: tuple[str, ...]) -> str:
    optional = {
        "phone": merchant.phone,
        "url": merchant.url,
        "customer_service_phone": merchant.customer_service_phone,
    }
    return to_json(
        {
            "mid": mid,
            "mcc": merchant.mcc,
            "network_mid": mid,
            **({"mcc_groups": mcc_groups or ["NONE"]} if asks else {}),
            "name": merchant.name,
            "address": merchant.address,
            "city": merchant.city,
            "state": merchant.state,
            "postal_code": merchant.postal_code,
            "country": merchant.country,
            "poi": {"partial_approval_capable": "1" if merchant.partial_approval_capable and not settles else "0"},
            **{name: value for name, value in optional.items() if value is not None},
        }
    ).decode()


def _network(details: Details) -> str:
    if details.network is None:
        return '"network":"DISCOVER",'
    sub = "" if details.subnetwork is None else f'"subnetwork":"{details.subnetwork}",'
    return f'"network":"{details.network}",{sub}'


def _fees_and_cash(row: TransactionRow, details: Details, places: int) -> str:
    if not details.fees and not details.cash_back:
        return '"issuer_interchange_amount":0,"acquirer_fee_amount":0,'
    interchange = sum(fee.amount for fee in details.fees if fee.type == "INTERCHANGE_FEE")
    fees = ",".join(
        f'{{"type":"{fee.type}","amount":{decimal_text(fee.amount, places)},"credit_debit":"{fee.credit_debit}"}}'
        for fee in details.fees
    )
    cash = f'"cash_back_amount":{decimal_text(cash_back_of(row.code, details), places)},' if details.cash_back else ""
    return (
        f'{cash}"issuer_interchange_amount":{decimal_text(interchange, places)},'
        f'"acquirer_fee_amount":{decimal_text(surcharge_of(details.fees), places)},' + (f'"fees":[{fees}],' if fees else "")
    )


def _optional_fields(details: Details, fragments: CardFragments, places: int) -> str:
    """Return the JSON of the fields that only some messages have, such as verifications.

    It ends with a comma unless it is empty.
    """
    parts: dict[str, Any] = {}
    if details.is_pre_auth:
        parts["is_preauthorization"] = True
    if details.security_code_matches is not None:
        code, memo = SECURITY_CODE_VERDICTS[details.security_code_matches]
        parts["card_security_code_verification"] = {"type": "CVV2", "response": {"code": code, "memo": memo}}
    if details.address_verdict is not None:
        parts["address_verification"] = _address(details, fragments, details.address_verdict)
    if details.network_metadata is not None:
        parts["network_metadata"] = details.network_metadata
    if details.from_account is not None:
        parts["from_account"] = details.from_account
    if details.original_credit is not None:
        parts["original_credit"] = details.original_credit
    if details.released:
        parts["amount_to_be_released"] = msgspec.Raw(decimal_text(details.released, places).encode())
    if details.increments:
        parts["incremental_authorization_transaction_tokens"] = [token for _, token in details.increments]
    if details.assessed is not None:
        parts["real_time_fee_group"] = msgspec.Raw(details.assessed.group.encode())
    if details.merchant.security_level is not None:
        parts["cardholder_authentication_data"] = {"electronic_commerce_indicator": details.merchant.security_level}
    echoed = "" if details.echoed is None else details.echoed[1:-1] + ","
    return echoed + (to_json(parts).decode()[1:-1] + "," if parts else "")


def _address(details: Details, fragments: CardFragments, verdict: str) -> dict[str, Any]:
    return {
        "request": _address_part(details.typed_street, details.typed_postal_code),
        "on_file": _address_part(fragments.street, fragments.postal_code),
        "response": {"code": verdict, "memo": ADDRESS_VERDICTS[verdict]},
    }


def _address_part(street: str | None, postal_code: str | None) -> dict[str, str]:
    part = {"street_address": street, "postal_code": postal_code}
    return {name: text for name, text in part.items() if text is not None}


def _quoted(text: str) -> str:
    return to_json(text).decode()


def _inside(chosen: str | None) -> str:
    """Return a client's token for use inside quotation marks; quotation marks in the token are escaped. Empty for None."""
    return to_json(chosen).decode()[1:-1] if chosen is not None else ""


def _bool(value: bool) -> str:
    return "true" if value else "false"
