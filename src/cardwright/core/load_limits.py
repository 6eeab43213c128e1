"""What may be loaded on the account of somebody who has not passed KYC (wire reference, "Account holder groups")."""

from cardwright.core.money import decimal_text, exponent_of, minor_units
from cardwright.core.spend_controls import PreKyc


def load_refusal(rules: PreKyc, currency: str, ledger: int, amount: int, *, from_program: bool, has_loads: bool) -> str | None:
    """Why ``amount`` may not come to an account that has ``ledger``, both minor units; None when it may.

    ``from_program``: it comes from a program funding source; ``has_loads``: it is not the first that comes.
    """
    if not from_program and not rules.enable_non_program_loads:
        return "enable_non_program_loads is false, so only program funding sources may load"
    if has_loads and not rules.is_reloadable_pre_kyc:
        return "is_reloadable_pre_kyc is false, and there has been a load"
    if rules.balance_max is not None and ledger + amount > (most := minor_units(rules.balance_max, currency)):
        return f"the balance would be more than balance_max, {decimal_text(most, exponent_of(currency) or 0)}"
    return None
