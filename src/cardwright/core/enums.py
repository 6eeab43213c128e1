"""Enumerations that rows store as numbers or texts: transaction types, transaction states, card states, holder statuses."""

from enum import IntEnum, StrEnum

# The legal values of a transaction's `type` (wire reference, "Flat list of legal type values"). A type's number in the
# database is its position here: add new types at the end only.
TYPES = (
    "account.credit",
    "account.debit",
    "account.funding.auth_plus_capture",
    "account.funding.auth_plus_capture.reversal",
    "account.funding.authorization",
    "account.funding.authorization.clearing",
    "account.funding.authorization.reversal",
    "address.verification",
    "authorization",
    "authorization.advice",
    "authorization.atm.withdrawal",
    "authorization.cashback",
    "authorization.clearing",
    "authorization.clearing.atm.withdrawal",
    "authorization.clearing.cashback",
    "authorization.clearing.chargeback",
    "authorization.clearing.chargeback.completed",
    "authorization.clearing.chargeback.provisional.credit",
    "authorization.clearing.chargeback.provisional.debit",
    "authorization.clearing.chargeback.reversal",
    "authorization.clearing.chargeback.writeoff",
    "authorization.clearing.quasi.cash",
    "authorization.clearing.representment",
    "authorization.incremental",
    "authorization.pin.change",
    "authorization.pin.unblock",
    "authorization.quasi.cash",
    "authorization.reversal",
    "authorization.reversal.issuerexpiration",
    "authorization.standin",
    "balanceinquiry",
    "billpayment",
    "billpayment.clearing",
    "billpayment.reversal",
    "credit.adjustment",
    "debit.adjustment",
    "directdeposit.credit",
    "directdeposit.credit.pending",
    "directdeposit.credit.pending.reversal",
    "directdeposit.credit.reject",
    "directdeposit.credit.reversal",
    "directdeposit.debit",
    "directdeposit.debit.pending",
    "directdeposit.debit.pending.reversal",
    "directdeposit.debit.reject",
    "directdeposit.debit.reversal",
    "dispute.credit",
    "dispute.debit",
    "fee.charge",
    "fee.charge.pending",
    "fee.charge.refund",
    "fee.charge.reversal",
    "funds.expire",
    "gpa.credit",
    "gpa.credit.authorization",
    "gpa.credit.authorization.billpayment",
    "gpa.credit.authorization.billpayment.reversal",
    "gpa.credit.authorization.reversal",
    "gpa.credit.billpayment",
    "gpa.credit.chargeback",
    "gpa.credit.chargeback.reversal",
    "gpa.credit.issueroperator",
    "gpa.credit.networkload",
    "gpa.credit.networkload.reversal",
    "gpa.credit.pending",
    "gpa.credit.pending.reversal",
    "gpa.credit.reversal",
    "gpa.debit",
    "gpa.debit.authorization",
    "gpa.debit.issueroperator",
    "gpa.debit.networkload",
    "gpa.debit.pending",
    "gpa.debit.pending.reversal",
    "gpa.debit.reversal",
    "gpa.grant",
    "msa.credit",
    "msa.credit.chargeback",
    "msa.credit.chargeback.reversal",
    "msa.credit.pending",
    "msa.credit.pending.reversal",
    "msa.credit.reversal",
    "msa.debit",
    "msa.debit.pending",
    "msa.debit.pending.reversal",
    "original.credit.auth_plus_capture",
    "original.credit.auth_plus_capture.reversal",
    "original.credit.authorization",
    "original.credit.authorization.clearing",
    "original.credit.authorization.reversal",
    "pin.change.reversal",
    "pin.change.reversal.advice",
    "pin.change.via.api",
    "pindebit",
    "pindebit.atm.withdrawal",
    "pindebit.authorization",
    "pindebit.authorization.clearing",
    "pindebit.authorization.reversal",
    "pindebit.authorization.reversal.issuerexpiration",
    "pindebit.balanceinquiry",
    "pindebit.cashback",
    "pindebit.chargeback",
    "pindebit.chargeback.completed",
    "pindebit.chargeback.provisional.credit",
    "pindebit.chargeback.provisional.debit",
    "pindebit.chargeback.reversal",
    "pindebit.chargeback.writeoff",
    "pindebit.credit.adjustment",
    "pindebit.pin.change",
    "pindebit.pin.unblock",
    "pindebit.quasi.cash",
    "pindebit.quasicash",
    "pindebit.refund",
    "pindebit.refund.reversal",
    "pindebit.reversal",
    "pindebit.transfer",
    "programreserve.credit",
    "programreserve.debit",
    "pushtocard.debit",
    "pushtocard.reversal",
    "refund",
    "refund.authorization",
    "refund.authorization.advice",
    "refund.authorization.clearing",
    "refund.authorization.reversal",
    "reward.earn",
    "token.activationrequest",
    "token.activation-request",
    "token.advice",
    "transaction.unknown",
    "transfer.fee",
    "transfer.peer",
    "transfer.program",
    "unknown",
)
TYPE_NUMBER = {name: number for number, name in enumerate(TYPES)}


class State(IntEnum):
    """State of a transaction (wire reference, "States")."""

    PENDING = 1
    CLEARED = 2
    COMPLETION = 3
    DECLINED = 4
    ERROR = 5


class CardState(StrEnum):
    """State of a card, as on the wire."""

    UNACTIVATED = "UNACTIVATED"
    ACTIVE = "ACTIVE"
    LIMITED = "LIMITED"
    SUSPENDED = "SUSPENDED"
    TERMINATED = "TERMINATED"


class HolderStatus(StrEnum):
    """Status of an account holder, as on the wire."""

    UNVERIFIED = "UNVERIFIED"
    LIMITED = "LIMITED"
    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"
    CLOSED = "CLOSED"
    TERMINATED = "TERMINATED"

    @property
    def is_active(self) -> bool:
        """Return whether the holder may spend: the wire's `active` of users and businesses."""
        return self in (HolderStatus.ACTIVE, HolderStatus.LIMITED)
