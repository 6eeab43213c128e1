"""Simulated financials: messages that hold and settle in one, such as PIN debits, withdrawals and original credits."""

from decimal import Decimal
from typing import Annotated, Any, Literal

from msgspec import Meta, structs

from cardwright.core.problems import bad_field
from cardwright.core.transaction_types import RequestType
from cardwright.resources.common.call import EngineCall
from cardwright.resources.common.fields import Number, check_positive
from cardwright.resources.common.route import Scope, Shape, post
from cardwright.resources.simulations.v1_authorizations import ask
from cardwright.resources.simulations.v1_schemas import AskRequest, CardAcceptor, CashBack, SimulationAnswer

# --- Shapes: what travels on the wire ------------------------------------------------

Pin = Annotated[str, Meta(min_length=1, max_length=15)] | Number
Text = Annotated[str, Meta(max_length=255)]
AccountType = Literal["checking", "savings", "credit"]


class FinancialRequest(AskRequest, frozen=True, kw_only=True):
    """A purchase with PIN. With ``is_pre_auth``, it is only a hold, which a financial advice completes."""

    amount: Decimal
    card_acceptor: CardAcceptor
    pin: Pin | None = None
    cash_back_amount: CashBack | None = None
    is_pre_auth: bool | None = False


class WithdrawalRequest(AskRequest, frozen=True, kw_only=True):
    """A cash withdrawal at an ATM."""

    amount: Decimal
    pin: Pin | None = None
    account_type: AccountType | None = None


class BalanceInquiryRequest(AskRequest, frozen=True, kw_only=True):
    """A balance inquiry."""

    account_type: AccountType
    card_acceptor: CardAcceptor
    pin: Pin | None = None


class SenderData(Shape, frozen=True, kw_only=True):
    """The sender of an original credit."""

    funding_source: Literal[
        "credit", "debit", "prepaid", "deposit_account", "cash", "mobile_money_payment", "non_visa_credit", "check", "ach"
    ]
    sender_account_type: (
        Literal[
            "other", "rtn_bank_account", "iban", "card_account", "email", "phone_number",
            "bank_account_number_and_identification_code", "wallet_id", "social_network_id",
        ]
        | None
    ) = None  # fmt: skip
    sender_name: Text | None = None
    sender_reference_number: Text | None = None
    sender_account_number: Text | None = None
    sender_address: Text | None = None
    sender_city: Text | None = None
    sender_state: Text | None = None
    sender_country: Text | None = None
    unique_transaction_reference_number: Annotated[str, Meta(min_length=1, max_length=17)] | None = None
    transaction_purpose: (
        Literal[
            "family_support", "labor_transfers", "travel", "education", "medical_treatment", "emergency_need", "savings",
            "gifts", "other", "salary", "lending", "crypto_currency",
        ]
        | None
    ) = None  # fmt: skip
    visa_transaction_purpose: Text | None = None
    deferred_hold_by: Literal["absent", "visa", "originator"] | None = None
    fast_funds_enabled: bool | None = None


class OriginalCreditRequest(AskRequest, frozen=True, kw_only=True):
    """An original credit: money that a sender transfers to a card."""

    amount: Decimal
    type: Literal[
        "account_to_account", "person_to_person", "prepaid", "wallet_transfer", "money_transfer_by_bank",
        "business_to_business", "disbursement", "government_disbursement", "gambling_payout", "loyalty",
        "merchant_disbursement", "online_gambling_payout", "pension_disbursement", "prepaid_loads", "card_bill_payment",
        "bill_payment", "cash_claim", "cash_in", "cash_out", "mobile_air_time_payment", "money_transfer_by_merchant",
        "face_to_face_merchant_payment", "government_payment", "payments_goods_services", "purchase_repayment",
    ]  # fmt: skip
    sender_data: SenderData | None = None
    screening_score: Annotated[str, Meta(max_length=20)] | Number | None = None
    transactionPurpose: Text | None = None


# --- Rules: pure ---------------------------------------------------------------------

SHOWN = ("sender_name", "sender_address", "sender_city", "sender_state", "sender_country", "transaction_purpose")
UPPER = ("funding_source", "sender_account_type")
FLAGS = ("deferred_hold_by", "fast_funds_enabled")


def original_credit_of(body: OriginalCreditRequest) -> dict[str, Any]:
    """Return the transaction's ``original_credit``.

    The kinds of account are in upper case. The sender's account number is left out.
    """
    sent = structs.asdict(body.sender_data) if body.sender_data is not None else {}
    fields: dict[str, Any] = {
        "transaction_type": body.type,
        **{name: sent[name].upper() for name in UPPER if sent.get(name) is not None},
        **{name: sent.get(name) for name in SHOWN + FLAGS},
        "screening_score": None if body.screening_score is None else str(body.screening_score),
    }
    if fields["transaction_purpose"] is None:
        fields["transaction_purpose"] = body.transactionPurpose
    return {name: value for name, value in fields.items() if value is not None}


# --- Actions: what a caller can do with it -------------------------------------------


async def simulate_financial(call: EngineCall, body: FinancialRequest) -> bytes:
    """Simulate a PIN debit: a purchase that is held and settled in one message. A decline gets 201 too."""
    if not body.is_pre_auth:
        return await ask(call, body, RequestType.PIN_PURCHASE, body.amount, body.cash_back_amount)
    if body.cash_back_amount:
        raise bad_field("cash_back_amount", "must be absent if is_pre_auth is true")
    return await ask(call, body, RequestType.PIN_HOLD, body.amount, is_pre_auth=True)


async def simulate_withdrawal(call: EngineCall, body: WithdrawalRequest) -> bytes:
    """Simulate a cash withdrawal at an ATM. The card product must allow it."""
    check_positive(body.amount)
    return await ask(call, body, RequestType.WITHDRAWAL, body.amount, from_account=body.account_type)


async def simulate_balance_inquiry(call: EngineCall, body: BalanceInquiryRequest) -> bytes:
    """Simulate a balance inquiry. It moves no money."""
    return await ask(call, body, RequestType.BALANCE_INQUIRY, Decimal(0), from_account=body.account_type)


async def simulate_original_credit(call: EngineCall, body: OriginalCreditRequest) -> bytes:
    """Simulate an original credit. The money goes to the refunds destination of the card product."""
    check_positive(body.amount)
    return await ask(call, body, RequestType.ORIGINAL_CREDIT, body.amount, original_credit=original_credit_of(body))


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Simulate financial"

routes = [
    post("/simulate/financial", FinancialRequest, simulate_financial, SimulationAnswer, scope=Scope.SIMULATION),
    post("/simulate/financial/withdrawal", WithdrawalRequest, simulate_withdrawal, SimulationAnswer, scope=Scope.SIMULATION),
    post(
        "/simulate/financial/balanceinquiry", BalanceInquiryRequest, simulate_balance_inquiry, SimulationAnswer,
        scope=Scope.SIMULATION,
    ),
    post(
        "/simulate/financial/originalcredit", OriginalCreditRequest, simulate_original_credit, SimulationAnswer,
        scope=Scope.SIMULATION,
    ),
]  # fmt: skip
