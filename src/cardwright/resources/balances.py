"""Balances: what is on an account, what of it is on hold."""

from typing import Any

import msgspec
from sqlalchemy import select

from cardwright.core.money import decimal_text, exponent_of
from cardwright.core.problems import BALANCE_OWNER_UNKNOWN, Problem
from cardwright.core.snapshot import Account
from cardwright.resources.app import Call
from cardwright.resources.route import get
from cardwright.storage.tables import holders, users

# --- Rules: pure ---------------------------------------------------------------------

account_decoder = msgspec.msgpack.Decoder(Account)


def balance_json(account: Account, currency: str) -> str:
    """The wire's balance set of one currency, without braces: ledger, and what a new purchase could use."""
    places = exponent_of(currency) or 0
    ledger, held = account.money(currency)
    zero = decimal_text(0, places)
    return (
        f'"currency_code":"{currency}","ledger_balance":{decimal_text(ledger, places)},'
        f'"available_balance":{decimal_text(ledger - held, places)},"credit_balance":{zero},"pending_credits":{zero}'
    )


# --- Actions: what one can do with it ------------------------------------------------


def get_balances(call: Call) -> str:
    """Returns the balances of a user's account; of the parent's for a user who shares it."""
    query = select(holders.c.state).join(users, users.c.holder_id == holders.c.id)
    state = call.db.scalar(query.where(users.c.program_id == call.program.id, users.c.token == call.token))
    if state is None:
        raise Problem(BALANCE_OWNER_UNKNOWN)
    account, main = account_decoder.decode(state), call.program.settings.currency
    currencies = [main, *sorted(currency for currency in account.balances if currency != main)]
    inner = ",".join(f'"{currency}":{{{balance_json(account, currency)}}}' for currency in currencies)
    link = f'{{"rel":"msas","method":"GET","href":"/v3/balances/{call.token}/msas"}}'
    return f'{{"gpa":{{{balance_json(account, main)},"balances":{{{inner}}}}},"links":[{link}]}}'


# --- Routes: parse, act, view --------------------------------------------------------

routes = [get("/balances/{token}", get_balances, dict[str, Any], fields=False)]
