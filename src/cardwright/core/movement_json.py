"""Movements as the wire's JSON: the document of the resource and its fragments in transactions."""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, assert_never

import msgspec

from cardwright.core.decision import FeeStep
from cardwright.core.enums import TYPES, State
from cardwright.core.money import decimal_text, exponent_of
from cardwright.core.movement_steps import Charge, Step
from cardwright.core.movement_types import (
    ANNOUNCED,
    CREDITED,
    DEBITED,
    FEE_PENDING,
    GPA_CREDIT,
    GPA_DEBIT,
    PEER,
    PROGRAM,
    STATE_BY_TYPE,
)
from cardwright.core.movements import (
    ARRIVAL_REASON,
    DEPOSIT_STATES,
    AnyMovement,
    Deposit,
    DepositTransition,
    FeeCharge,
    FeeRefund,
    GpaLoad,
    PeerTransfer,
    ProgramTransfer,
    Unload,
)
from cardwright.core.render import PAYMENT_NODE, STATE_NAMES, CardFragments, SourceFragments, details_decoder, to_json
from cardwright.core.snapshot import UserFact
from cardwright.core.transaction_row import ARRIVAL, ORDER, SETTLEMENT, TransactionRow, token_of, with_kind
from cardwright.kit.clock import Instant, iso, iso_ms

_exact = msgspec.json.Decoder(float_hook=Decimal)
_encoder = msgspec.json.Encoder(decimal_format="number")

APPROVED = '{"code":"0000","memo":"Approved or completed successfully"}'
"""The response of every movement: a movement that fails leaves no transaction."""

Pairs = Iterable[tuple[str, str | None]]
"""Names and JSON texts in order. Pairs with None are left out."""


def account_fragments_of(user: UserFact, owner: UserFact) -> CardFragments:
    """Encode the constant parts of the transactions without a card on a user's account."""
    people = f'"user":{{"metadata":{to_json(user.metadata).decode()}}}'
    tokens = f'"user_token":{_text(owner.token)},"acting_user_token":{_text(user.token)}'
    return CardFragments(tokens=tokens, owner=_text(owner.token), product="", people=people)


def document(
    movement: AnyMovement, rows: Sequence[TransactionRow], source: SourceFragments | None, steps: Sequence[Step] = (),
    root: TransactionRow | None = None,
) -> str:  # fmt: skip
    """Return the JSON of the movement's resource.

    ``rows`` are the movement's transactions, those of fees last. ``root`` is the deposit of a transition.
    """
    main, places = rows[0], exponent_of(rows[0].currency) or 0
    amount, created = decimal_text(movement.amount, places), _text(iso(main.created_ms))
    fields = {name: _text(value) for name, value in movement.echoed.items()}
    fees = _fee_details(movement.charges, rows[len(rows) - len(movement.charges) :], places)
    head, pairs = [("token", _text(movement.token))], list[tuple[str, str | None]](fields.items())
    match movement:
        case GpaLoad() | Unload():
            assert source is not None, "orders name their funding source"
            drawn = decimal_text(main.amount, places)
            pairs = [
                ("amount", amount), ("created_time", created), ("last_modified_time", created),
                ("transaction_token", _text(token_of(main))), ("state", '"COMPLETION"'),
                ("response", APPROVED),
                ("funding", f'{{"amount":{drawn},"source":{source.source}}}'), ("funding_source_token", source.token), *pairs,
                *([("currency_code", _text(main.currency))] if isinstance(movement, GpaLoad) else []), ("fees", fees),
            ]  # fmt: skip
        case FeeCharge():
            pairs = [*pairs, ("fees", fees or "[]"), ("created_time", created)]
        case FeeRefund():
            (charge,) = movement.charges
            pairs = [
                ("state", '"COMPLETION"'), ("fee", charge.fee), *pairs, ("transaction_token", _text(token_of(main))),
                ("created_time", created),
            ]  # fmt: skip
        case PeerTransfer():
            pairs = [("amount", amount), ("currency_code", _text(main.currency)), *pairs, ("created_time", created)]
        case ProgramTransfer():
            pairs = [
                *pairs, ("amount", amount), ("currency_code", _text(main.currency)), ("fees", fees),
                ("transaction_token", _text(token_of(main))), ("created_time", created),
            ]  # fmt: skip
        case Deposit():
            pairs = [
                ("type", '"CREDIT"' if movement.is_credit else '"DEBIT"'), *_deposit_state(movement, rows[0], steps[-1]),
                ("amount", amount), *pairs, ("created_time", created), ("last_modified_time", created),
            ]  # fmt: skip
        case DepositTransition():
            assert root is not None, "a transition names its deposit"
            deposit, code = _deposit_in(root), steps[0].reason_code or movement.reason_code
            account_token = deposit["direct_deposit_account_token"]
            pairs = _transition(main, movement.channel, movement.reason, code, deposit["token"], account_token)
        case _:
            assert_never(movement)
    return _object([*head, *pairs])


def deposit_event(type_id: int) -> str:
    """Return the event type of a direct deposit's transition, by the type of its transaction."""
    return f"state.{DEPOSIT_STATES[STATE_BY_TYPE[type_id]].lower()}"


def arrival_transitions(movement: Deposit, rows: Sequence[TransactionRow], steps: Sequence[Step]) -> list[tuple[str, str]]:
    """Return token and JSON of the transitions at a deposit's arrival: it becomes PENDING, and may take effect at once."""
    reasons, account_token = (
        (ARRIVAL_REASON, _arrival_reason(movement, steps[-1])),
        movement.echoed["direct_deposit_account_token"],
    )
    transitions = []
    for row, step, reason, token_kind in zip(rows, steps, reasons, (ARRIVAL, SETTLEMENT), strict=False):
        token = with_kind(token_of(rows[0]), token_kind)
        pairs = _transition(row, "SYSTEM", reason, step.reason_code, movement.token, account_token)
        transitions.append((token, _object([("token", _text(token)), *pairs])))
    return transitions


def _transition(
    row: TransactionRow, channel: str, reason: str, code: str | None, deposit_token: str, account_token: str
) -> list[tuple[str, str | None]]:
    """Return the fields of a direct deposit's transition after its token. ``row`` is the transaction of the transition."""
    return [
        ("channel", _text(channel)), ("reason", _text(reason)), ("reason_code", _maybe(code)),
        ("type", _text(deposit_event(row.type_id))), ("state", _text(DEPOSIT_STATES[STATE_BY_TYPE[row.type_id]])),
        ("direct_deposit_token", _text(deposit_token)), ("direct_deposit_account_token", _text(account_token)),
        ("transaction_token", _text(token_of(row))), ("created_time", _text(iso(row.created_ms))),
    ]  # fmt: skip


def _deposit_state(movement: Deposit, row: TransactionRow, last: Step) -> list[tuple[str, str | None]]:
    """Return state and reason of a deposit after its arrival."""
    state, reason = DEPOSIT_STATES[State(row.state)], _arrival_reason(movement, last)
    return [("state", _text(state)), ("state_reason", _text(reason)), ("state_reason_code", _maybe(last.reason_code))]


def _arrival_reason(movement: Deposit, last: Step) -> str:
    """Return the reason of a deposit's state after its arrival."""
    way = "credit" if movement.is_credit else "debit"
    if last.type_id in ANNOUNCED:
        return f"New {way}"
    return f"Applied {way}" if last.reason_code is None else f"Returned {way}"


def _deposit_in(root: TransactionRow) -> dict[str, Any]:
    """Return the deposit as its first transaction shows it."""
    shown = f"{{{details_decoder.decode(root.details).movement}}}"
    return dict(_exact.decode(shown)["direct_deposit"])


def deposit_after(movement: DepositTransition, step: Step, root: TransactionRow, now: Instant) -> str:
    """Return a deposit's document after a transition."""
    assert step.chain is not None, "a transition changes its deposit"
    code = step.reason_code or movement.reason_code
    news = {"state": DEPOSIT_STATES[step.chain.state], "state_reason": movement.reason, "state_reason_code": code}
    return _object(
        (name, _encoder.encode(value).decode())
        for name, value in ({**_deposit_in(root), **news, "last_modified_time": iso(now)}).items()
        if value is not None
    )


def fragment(movement: AnyMovement, step: Step, doc: str) -> str:
    """Return the name and object of the movement in one of its transactions, without braces around them."""
    match step.type_id:
        case type_id if type_id == GPA_CREDIT:
            reload = movement.reload if isinstance(movement, GpaLoad) else None
            return f'"gpa_order":{doc}' + (f',"auto_reload":{reload}' if reload is not None else "")
        case type_id if type_id == GPA_DEBIT:
            return f'"gpa_order_unload":{doc}'
        case type_id if type_id == PEER:
            return f'"peer_transfer":{doc}'
        case type_id if type_id in CREDITED or type_id in DEBITED:
            return f'"direct_deposit":{doc}'
        case type_id if type_id == PROGRAM:
            return f'"program_transfer":{doc}'
        case _:
            assert step.charge is not None, "everything else is a fee"
            return f'"fee":{step.charge.fee}' + (f',"fee_transfer":{doc}' if isinstance(movement, FeeCharge) else "")


def fee_fragment(step: FeeStep, row: TransactionRow, first: TransactionRow, source: SourceFragments | None, places: int) -> str:
    """Return the fields of a real-time fee's transaction: the fee, its group, and the order of the fee's own JIT load."""
    order = ""
    if step.moved and source is not None:
        amount, created = decimal_text(abs(step.moved), places), iso(first.user_time_ms)
        state = "REVERSED" if step.moved < 0 else "PENDING" if step.hold_left else "COMPLETION"
        order = (
            f'"gpa_order":{{"token":"{with_kind(token_of(first), ORDER)}","amount":{amount},"created_time":"{created}",'
            f'"last_modified_time":"{iso(row.created_ms)}","transaction_token":"{token_of(row)}","state":"{state}",'
            f'"response":{APPROVED},"funding":{{"amount":{amount},"source":{source.source}}},'
            f'"funding_source_token":{source.token},"currency_code":"{row.currency}"}},'
        )
    return f'{order}"fee":{step.fee},"real_time_fee_group":{step.group}'


def render_account_side(row: TransactionRow, fragments: CardFragments, state: int | None = None) -> str:
    """Return a transaction without a card as JSON."""
    assert row.impacted is not None, "a movement that is refused leaves no row"
    details, places, time = details_decoder.decode(row.details), exponent_of(row.currency) or 0, iso(row.created_ms)
    preceding = f'"preceding_related_transaction_token":"{details.root_token}",' if details.root_token is not None else ""
    return (
        f'{{"type":"{TYPES[row.type_id]}","state":"{STATE_NAMES[row.state if state is None else state]}","identifier":"{row.id}",'
        f'"token":"{token_of(row)}",{fragments.tokens},{preceding}{_gpa(row, places)}{details.movement},'
        f'"duration":{row.duration_ms},"created_time":"{time}","user_transaction_time":"{iso(row.user_time_ms)}",'
        f'"settlement_date":"{time[:10]}T00:00:00Z","request_amount":{decimal_text(row.request_amount, places)},'
        f'"amount":{decimal_text(row.amount, places)},"currency_code":"{row.currency}","response":{APPROVED},'
        f'"network":"MARQETA",{fragments.people},"issuer_received_time":"{iso_ms(row.created_ms)}",'
        f'"issuer_payment_node":"{PAYMENT_NODE}","polarity":"{_polarity(row)}"}}'
    )


def _polarity(row: TransactionRow) -> str:
    """Return the wire's ``polarity``: CREDIT or DEBIT, with the prefix PENDING_ for a deposit or fee that has not moved money."""
    if row.type_id in ANNOUNCED:
        return "PENDING_CREDIT" if row.type_id == CREDITED.pending else "PENDING_DEBIT"
    if row.type_id == FEE_PENDING:
        return "PENDING_DEBIT"
    return "CREDIT" if (row.impacted or 0) > 0 else "DEBIT"


def _gpa(row: TransactionRow, places: int) -> str:
    zero, effect = decimal_text(0, places), decimal_text(row.impacted or 0, places)
    balance = (
        f'"currency_code":"{row.currency}","ledger_balance":{decimal_text(row.ledger, places)},'
        f'"available_balance":{decimal_text(row.available, places)},"credit_balance":{zero},"pending_credits":{zero},'
        f'"impacted_amount":{effect}'
    )
    return f'"gpa":{{{balance},"balances":{{"{row.currency}":{{{balance}}}}}}},'


def _fee_details(charges: Sequence[Charge], rows: Sequence[TransactionRow], places: int) -> str | None:
    """Return the wire's ``fees``, each with its transaction; None if there are none."""
    details = [
        _object(
            [
                ("token", _text(charge.token)), ("memo", _maybe(charge.memo)), ("tags", _maybe(charge.tags)),
                ("overrideAmount", None if charge.override is None else decimal_text(charge.override, places)),
                ("transaction_token", _text(token_of(row))), ("fee", charge.fee),
            ]
        )
        for charge, row in zip(charges, rows, strict=True)
    ]  # fmt: skip
    return f"[{','.join(details)}]" if details else None


def _object(pairs: Pairs) -> str:
    return "{" + ",".join(f'"{name}":{value}' for name, value in pairs if value is not None) + "}"


def _text(value: str) -> str:
    return to_json(value).decode()


def _maybe(value: str | None) -> str | None:
    return None if value is None else _text(value)
