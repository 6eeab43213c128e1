"""Balances: the ledger balance, the available balance and the pending credits of an account."""

from typing import Any

import msgspec
from sqlalchemy import Connection, func, select

from cardwright.core.enums import State
from cardwright.core.money import decimal_text, exponent_of
from cardwright.core.movement_types import CREDITED
from cardwright.core.movements import MovementKind
from cardwright.core.problems import BALANCE_OWNER_UNKNOWN, Problem
from cardwright.core.snapshot import Account
from cardwright.resources.common.call import Call
from cardwright.resources.common.route import get
from cardwright.storage.tables import holders, movements, transactions, users

# --- Rules: pure ---------------------------------------------------------------------

account_decoder = msgspec.msgpack.Decoder(Account)


def balance_json(account: Account, currency: str, pending: int) -> str:
    """Return the balances in one currency as members of a JSON object, without its braces.

    ``pending`` is the sum of pending direct deposits, in minor units.
    """
    places = exponent_of(currency) or 0
    ledger, held = account.money(currency)
    zero = decimal_text(0, places)
    return (
        f'"currency_code":"{currency}","ledger_balance":{decimal_text(ledger, places)},'
        f'"available_balance":{decimal_text(ledger - held, places)},"credit_balance":{zero},'
        f'"pending_credits":{decimal_text(pending, places)}'
    )


# --- Queries: this resource's SQL ----------------------------------------------------


def pending_credits(db: Connection, holder_id: int) -> int:
    """Return the sum of pending direct deposits, in minor units of the program's currency.

    Pending refunds and original credits do not count.
    """
    total = select(func.sum(transactions.c.amount)).join(movements, movements.c.id == transactions.c.id)
    query = total.where(
        movements.c.holder_id == holder_id, movements.c.kind == int(MovementKind.DEPOSIT),
        transactions.c.type_id == CREDITED.pending, transactions.c.state == int(State.PENDING),
    )  # fmt: skip
    return int(db.scalar(query) or 0)


# --- Actions: what a caller can do with it -------------------------------------------


def get_balances(call: Call) -> str:
    """Return the balances of a user's account.

    A user who shares the account of a parent gets the balances of that account.
    """
    query = select(holders.c.id, holders.c.state).join(users, users.c.holder_id == holders.c.id)
    row = call.db.execute(query.where(users.c.program_id == call.program.id, users.c.token == call.token)).one_or_none()
    if row is None:
        raise Problem(BALANCE_OWNER_UNKNOWN)
    account, main = account_decoder.decode(row.state), call.program.settings.currency
    pending = pending_credits(call.db, row.id)
    currencies = [main, *sorted(currency for currency in account.balances if currency != main)]
    shown = {currency: balance_json(account, currency, pending if currency == main else 0) for currency in currencies}
    inner = ",".join(f'"{currency}":{{{text}}}' for currency, text in shown.items())
    link = f'{{"rel":"msas","method":"GET","href":"/v3/balances/{call.token}/msas"}}'
    return f'{{"gpa":{{{shown[main]},"balances":{{{inner}}}}},"links":[{link}]}}'


# --- Routes: parse, act, render ------------------------------------------------------

TAG = "Balances"

routes = [get("/balances/{token}", get_balances, dict[str, Any], fields=False)]
