"""Load limits before KYC: the loads that an account holder without KYC may receive (wire reference, "Account holder groups")."""

from cardwright.core.money import decimal_text, exponent_of, minor_units
from cardwright.core.spend_controls import PreKyc


def load_refusal(rules: PreKyc, currency: str, ledger: int, amount: int, *, from_program: bool, has_loads: bool) -> str | None:
    """Return the reason that ``amount`` may not be loaded on an account with ``ledger``, both in minor units; None if it may.

    ``from_program`` is True for a load from a program funding source, ``has_loads`` if the account had a load before.
    """
    if not from_program and not rules.enable_non_program_loads:
        return "enable_non_program_loads is false, so only program funding sources may load"
    if has_loads and not rules.is_reloadable_pre_kyc:
        return "is_reloadable_pre_kyc is false, and the account has been loaded before"
    if rules.balance_max is not None and ledger + amount > (most := minor_units(rules.balance_max, currency)):
        return f"the balance would be more than balance_max, {decimal_text(most, exponent_of(currency) or 0)}"
    return None
