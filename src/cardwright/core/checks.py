"""Checks: the conditions of an approval before velocity limits and funding, in the order of their evaluation.

Each is a small function and a row of ``CHECKS``. The order is the wire reference's "Order of checks": the checks are
documented, their order is a choice. A check returns None or the reason to decline. ``inputs`` returns the values that it uses,
``remedy`` is the condition under which it passes; only explanations use both. Velocity controls are not in the list:
``core.decide`` evaluates them after it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cardwright.core.address_verification import NO_MATCH, UNCHECKED, outcome_of
from cardwright.core.countries import OFAC_COUNTRIES, alpha3_of, numeric_country
from cardwright.core.enums import CardState
from cardwright.core.messages import Authorization, VelocityCategory
from cardwright.core.money import decimal_text, exponent_of
from cardwright.core.responses import Reason
from cardwright.core.snapshot import AddressCheck, Snapshot
from cardwright.core.spend_controls import MerchantRule, level_of
from cardwright.core.transaction_types import CASH_MACHINE, CREDITS, QUASI_CASH, RequestType
from cardwright.kit.clock import Instant, iso_day

QUASI_CASH_MCCS = frozenset({"4829", "6050", "6051", "6540", "7801", "7802", "7995"})
"""Money orders, casino chips, traveller's cheques, betting (ISO 18245)."""

NO_CARDHOLDER_INPUT = CREDITS | {RequestType.INCREMENT}
"""Requests without a card presented or data typed by the cardholder."""

TERMINATED_REASONS = {
    "10": Reason.CARD_LOST,
    "23": Reason.CARD_STOLEN,
    "06": Reason.CARD_SUSPICIOUS,
    "08": Reason.CARD_SUSPICIOUS,
}
"""The response for a terminated card, by the reason code of its last transition (choice)."""

LEVEL_NAMES = {"user": "user", "product": "card_product", "program": "program"}
"""Names of a control's levels in explanations."""

Inputs = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Check:
    """Row of the list: name, deciding function, inputs for explanations, and the condition under which it passes."""

    name: str
    refusal: Callable[[Snapshot, Authorization, Instant], Reason | None]
    inputs: Callable[[Snapshot, Authorization, Instant], Inputs]
    remedy: str


def card_is_active(snapshot: Snapshot, _message: Authorization, _now: Instant) -> Reason | None:
    match snapshot.card.state:
        case CardState.ACTIVE:
            return None
        case CardState.UNACTIVATED:
            return Reason.CARD_NOT_ACTIVATED
        case CardState.SUSPENDED:
            return None if snapshot.product.config.transaction_controls.ignore_card_suspended_state else Reason.CARD_SUSPENDED
        case CardState.LIMITED:
            return Reason.CARD_SUSPENDED
        case CardState.TERMINATED:
            return TERMINATED_REASONS.get(snapshot.card.reason_code or "", Reason.CARD_NOT_ACTIVE)


def card_is_in_date(snapshot: Snapshot, message: Authorization, now: Instant) -> Reason | None:
    if now >= snapshot.card.expires_ms or message.details.expiration_matches is False:
        return Reason.CARD_EXPIRED
    return None


def holder_is_active(snapshot: Snapshot, _message: Authorization, _now: Instant) -> Reason | None:
    if not snapshot.user.status.is_active or not snapshot.owner.status.is_active:
        return Reason.HOLDER_NOT_ACTIVE
    return None


def product_is_in_force(snapshot: Snapshot, _message: Authorization, now: Instant) -> Reason | None:
    product, today = snapshot.product, iso_day(now)
    if not product.active or today < product.start_date or (product.end_date is not None and today > product.end_date):
        return Reason.PRODUCT_NOT_IN_FORCE
    return None


def is_not_present(message: Authorization) -> bool:
    """Return whether the message itself states that the card was absent.

    A message without a statement is a point-of-sale purchase.

    A simulation without ``card_options`` would formally be an e-commerce purchase. The real platform approves it on products
    that allow none (wire reference, "Do not let check 5 break the tutorial").
    """
    return message.details.card_present is False or message.details.merchant.security_level is not None


def point_of_interaction_is_allowed(snapshot: Snapshot, message: Authorization, _now: Instant) -> Reason | None:
    poi = snapshot.product.config.poi
    if message.request_type in CASH_MACHINE:
        return None if poi.atm else Reason.CASH_NOT_ALLOWED
    if message.request_type in CREDITS:
        return None
    if message.details.cash_back and not poi.atm:
        return Reason.CASH_NOT_ALLOWED
    if is_not_present(message):
        return None if poi.ecommerce else Reason.CARD_NOT_PRESENT_NOT_ALLOWED
    if not poi.other.allow:
        return Reason.TYPE_NOT_ALLOWED
    # If the product requires presence, only an explicit `card_present: true` satisfies it.
    demands_presence = poi.other.card_presence_required or poi.other.cardholder_presence_required
    return Reason.CARD_NOT_PRESENT_NOT_ALLOWED if demands_presence and not message.details.card_present else None


def cash_text(snapshot: Snapshot, message: Authorization) -> str:
    """Return the requested cash back as a decimal."""
    return decimal_text(message.details.cash_back, exponent_of(snapshot.currency) or 0)


def cash_is_allowed_before_kyc(snapshot: Snapshot, message: Authorization, _now: Instant) -> Reason | None:
    rules = snapshot.spend.pre_kyc
    if rules is None or rules.cash_access_enabled:
        return None
    return (
        Reason.CASH_NOT_ALLOWED
        if message.details.cash_back or message.details.velocity_category is VelocityCategory.WITHDRAWAL
        else None
    )


def quasi_cash_is_allowed(snapshot: Snapshot, message: Authorization, _now: Instant) -> Reason | None:
    controls, mid = snapshot.product.config.transaction_controls, message.details.mid
    is_quasi_cash = message.request_type in QUASI_CASH or message.details.merchant.mcc in QUASI_CASH_MCCS
    if not is_quasi_cash or controls.allow_quasi_cash:
        return None
    # Credits are exempt: most senders of money to a card are money transmitters, whose MCC is quasi-cash.
    if message.request_type in CREDITS:
        return None
    is_exempt = mid in controls.quasi_cash_exempt_mids.split(",") or mid in snapshot.spend.quasi_cash_exempt_mids
    return None if is_exempt else Reason.TYPE_NOT_ALLOWED


def country_is_accepted(snapshot: Snapshot, message: Authorization, _now: Instant) -> Reason | None:
    country = alpha3_of(message.details.merchant.country)
    match snapshot.product.config.transaction_controls.accepted_countries_token:
        case "accept_us_only":
            return None if country == "USA" else Reason.COUNTRY_NOT_ALLOWED
        case "decline_ofac_countries":
            return Reason.COUNTRY_NOT_ALLOWED if country in OFAC_COUNTRIES else None
        case _:
            listed = snapshot.spend.countries
            accepts = listed is not None and listed.accepts(numeric_country(message.details.merchant.country))
            return None if accepts else Reason.COUNTRY_NOT_ALLOWED


def home_country(snapshot: Snapshot) -> str:
    """Return the home country of a card: its product's ``bin_issue_country``, else the USA (a choice)."""
    return alpha3_of(snapshot.product.config.fulfillment.bin_issue_country or "USA")


def country_is_allowed_before_kyc(snapshot: Snapshot, message: Authorization, _now: Instant) -> Reason | None:
    rules = snapshot.spend.pre_kyc
    if rules is None or rules.international_enabled:
        return None
    return None if alpha3_of(message.details.merchant.country) == home_country(snapshot) else Reason.COUNTRY_NOT_ALLOWED


def pin_is_right(snapshot: Snapshot, message: Authorization, _now: Instant) -> Reason | None:
    if message.details.pin_matches is False:
        return Reason.INCORRECT_PIN
    if message.request_type in NO_CARDHOLDER_INPUT:
        return None
    controls = snapshot.product.config.transaction_controls
    if controls.always_require_pin and message.details.pin_matches is None:
        return Reason.TYPE_NOT_ALLOWED
    # A simulated message never carries chip data, so a product that requires a chip declines all of them.
    return Reason.TYPE_NOT_ALLOWED if controls.always_require_icc else None


def security_code_is_right(snapshot: Snapshot, message: Authorization, _now: Instant) -> Reason | None:
    matches = message.details.security_code_matches
    if message.request_type in NO_CARDHOLDER_INPUT:
        return None
    required = snapshot.product.config.transaction_controls.require_card_not_present_card_security_code and is_not_present(
        message
    )
    return Reason.SECURITY_CODE_FAILED if matches is False or (matches is None and required) else None


def address_rule(snapshot: Snapshot, message: Authorization) -> AddressCheck:
    """Return the product's address rule for this message. Account verifications, whose amount is 0, have a separate rule."""
    rules = snapshot.product.config.transaction_controls.address_verification
    return rules.auth_messages if message.requested else rules.av_messages


def address_verdict(snapshot: Snapshot, message: Authorization) -> str | None:
    """Return the four-digit outcome of comparing the typed address with the cardholder's; None if no address was typed."""
    street, postal_code = message.details.typed_street, message.details.typed_postal_code
    if street is None and postal_code is None:
        return None
    outcome = outcome_of(street, postal_code, snapshot.user.address1, snapshot.user.postal_code)
    return outcome if outcome is None or address_rule(snapshot, message).validate else UNCHECKED


def address_is_right(snapshot: Snapshot, message: Authorization, _now: Instant) -> Reason | None:
    verdict = address_verdict(snapshot, message)
    if verdict is None or message.request_type in NO_CARDHOLDER_INPUT:
        return None
    rule = address_rule(snapshot, message)
    wrong_street = verdict[:2] == NO_MATCH and rule.decline_on_address_number_mismatch
    wrong_postal_code = verdict[2:] == NO_MATCH and rule.decline_on_postal_code_mismatch
    return Reason.ADDRESS_FAILED if wrong_street or wrong_postal_code else None


def address_inputs(snapshot: Snapshot, message: Authorization, _now: Instant) -> Inputs:
    """Return the outcome of the comparison, both addresses, and the product's rule for a mismatch."""
    rule = address_rule(snapshot, message)
    return {
        "address_verdict": address_verdict(snapshot, message),
        "street_address": message.details.typed_street, "street_address_on_file": snapshot.user.address1,
        "postal_code": message.details.typed_postal_code, "postal_code_on_file": snapshot.user.postal_code,
        "validate": rule.validate,
        "decline_on_address_number_mismatch": rule.decline_on_address_number_mismatch,
        "decline_on_postal_code_mismatch": rule.decline_on_postal_code_mismatch,
    }  # fmt: skip


def merchant_is_allowed(snapshot: Snapshot, message: Authorization, now: Instant) -> Reason | None:
    """Return MERCHANT_NOT_ALLOWED if an authorization control blocks the merchant and no exemption applies to it; else None."""
    spend = snapshot.spend
    if not spend.merchant_blocks:
        return None
    blocking = spend.blocking(message.details.mid, message.details.merchant.mcc, now)
    return None if blocking is None else Reason.MERCHANT_NOT_ALLOWED


def rule_inputs(rule: MerchantRule, message: Authorization, now: Instant) -> Inputs:
    """Return an authorization control or an exemption in the form of an explanation."""
    scope = {"mid": rule.mid, "mcc": rule.mcc, "mcc_group": rule.mcc_group, "merchant_group_token": rule.merchant_group}
    return {
        "token": rule.token, "name": rule.name, "level": LEVEL_NAMES[level_of(rule)[0]],
        "merchant_scope": {name: value for name, value in scope.items() if value is not None},
        "applies": rule.acts_on(message.details.mid, message.details.merchant.mcc, now),
    }  # fmt: skip


def merchant_inputs(snapshot: Snapshot, message: Authorization, now: Instant) -> Inputs:
    """Return the merchant, and all controls and exemptions of this card."""
    mid, mcc, spend = message.details.mid, message.details.merchant.mcc, snapshot.spend
    blocking = spend.blocking(mid, mcc, now)
    return {
        "mid": mid, "mcc": mcc,
        "refused_by": None if blocking is None else blocking.token,
        "authorization_controls": [rule_inputs(rule, message, now) for rule in spend.merchant_blocks],
        "exemptions": [rule_inputs(rule, message, now) for rule in spend.exemptions],
    }  # fmt: skip


CHECKS = (
    Check(
        "card_is_active",
        card_is_active,
        lambda snapshot, _message, _now: {
            "card.state": snapshot.card.state,
            "card.reason_code": snapshot.card.reason_code,
            "ignore_card_suspended_state": snapshot.product.config.transaction_controls.ignore_card_suspended_state,
        },
        "the card's state is ACTIVE (POST /v3/cardtransitions)",
    ),
    Check(
        "card_is_in_date",
        card_is_in_date,
        lambda snapshot, message, now: {
            "card.expires_ms": snapshot.card.expires_ms,
            "now_ms": now,
            "typed_expiration_matches": message.details.expiration_matches,
        },
        "the purchase comes before the card's expiration_time, and a typed expiration equals the card's",
    ),
    Check(
        "holder_is_active",
        holder_is_active,
        lambda snapshot, _message, _now: {"user.status": snapshot.user.status, "account_owner.status": snapshot.owner.status},
        "the cardholder and the owner of the account are ACTIVE or LIMITED (POST /v3/usertransitions)",
    ),
    Check(
        "product_is_in_force",
        product_is_in_force,
        lambda snapshot, _message, now: {
            "product.active": snapshot.product.active,
            "product.start_date": snapshot.product.start_date,
            "product.end_date": snapshot.product.end_date,
            "today": iso_day(now),
        },
        "the card product is active and today lies between its start_date and end_date (PUT /v3/cardproducts/{token})",
    ),
    Check(
        "point_of_interaction_is_allowed",
        point_of_interaction_is_allowed,
        lambda snapshot, message, _now: {
            "poi.ecommerce": snapshot.product.config.poi.ecommerce,
            "poi.atm": snapshot.product.config.poi.atm,
            "poi.other.allow": snapshot.product.config.poi.other.allow,
            "card_present": message.details.card_present,
            "cash_back": cash_text(snapshot, message),
            "is_withdrawal": message.request_type in CASH_MACHINE,
        },
        "the card product's config.poi allows this way of paying",
    ),
    Check(
        "cash_is_allowed_before_kyc",
        cash_is_allowed_before_kyc,
        lambda snapshot, message, _now: {
            "user.status": snapshot.user.status,
            "account_holder_group": snapshot.user.account_holder_group_token,
            "cash_access_enabled": snapshot.spend.pre_kyc is None or snapshot.spend.pre_kyc.cash_access_enabled,
            "cash_back": cash_text(snapshot, message),
        },
        "the cardholder has passed KYC, or its group's pre_kyc_controls enable cash (PUT /v3/accountholdergroups/{token})",
    ),
    Check(
        "quasi_cash_is_allowed",
        quasi_cash_is_allowed,
        lambda snapshot, message, _now: {
            "mcc": message.details.merchant.mcc,
            "mid": message.details.mid,
            "is_quasi_cash": message.request_type in QUASI_CASH,
            "allow_quasi_cash": snapshot.product.config.transaction_controls.allow_quasi_cash,
            "quasi_cash_exempt_merchant_group_token": (
                snapshot.product.config.transaction_controls.quasi_cash_exempt_merchant_group_token
            ),
        },
        "neither message nor merchant's category is quasi-cash, or the product allows quasi-cash or exempts the mid",
    ),
    Check(
        "country_is_accepted",
        country_is_accepted,
        lambda snapshot, message, _now: {
            "merchant.country": message.details.merchant.country,
            "accepted_countries_token": snapshot.product.config.transaction_controls.accepted_countries_token,
            **(
                {"name": countries.name, "is_whitelist": countries.is_whitelist}
                if (countries := snapshot.spend.countries) is not None
                else {}
            ),
        },
        "the product's list of accepted countries is a whitelist with the merchant's country, or another list without it",
    ),
    Check(
        "country_is_allowed_before_kyc",
        country_is_allowed_before_kyc,
        lambda snapshot, message, _now: {
            "user.status": snapshot.user.status,
            "account_holder_group": snapshot.user.account_holder_group_token,
            "international_enabled": snapshot.spend.pre_kyc is None or snapshot.spend.pre_kyc.international_enabled,
            "merchant.country": message.details.merchant.country,
            "home_country": home_country(snapshot),
        },
        "the cardholder has passed KYC, or its group's pre_kyc_controls enable foreign countries",
    ),
    Check(
        "pin_is_right",
        pin_is_right,
        lambda snapshot, message, _now: {
            "pin_matches": message.details.pin_matches,
            "always_require_pin": snapshot.product.config.transaction_controls.always_require_pin,
            "always_require_icc": snapshot.product.config.transaction_controls.always_require_icc,
        },
        "the PIN is present and correct, and the product requires no chip",
    ),
    Check(
        "security_code_is_right",
        security_code_is_right,
        lambda snapshot, message, _now: {
            "security_code_matches": message.details.security_code_matches,
            "required": snapshot.product.config.transaction_controls.require_card_not_present_card_security_code,
        },
        "the card security code is present and correct",
    ),
    Check(
        "address_is_right",
        address_is_right,
        address_inputs,
        "the typed address equals the cardholder's, or the product does not decline on a mismatch",
    ),
    Check(
        "merchant_is_allowed",
        merchant_is_allowed,
        merchant_inputs,
        "no authorization control applies to the merchant, or the merchant is exempt (POST /v3/authcontrols/exemptmids)",
    ),
)


def first_refusal(snapshot: Snapshot, message: Authorization, now: Instant) -> Reason | None:
    """Return the reason of the first check that fails; None if all pass."""
    for check in CHECKS:
        if (reason := check.refusal(snapshot, message, now)) is not None:
            return reason
    return None
