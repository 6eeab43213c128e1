"""Input and output of the decision on a movement: its snapshot, and its transactions as steps."""

import msgspec

from cardwright.core.decision import Legs
from cardwright.core.enums import State
from cardwright.core.load_limits import load_refusal
from cardwright.core.snapshot import Account, Chain, SourceFact, UserFact
from cardwright.core.spend_controls import PreKyc


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """Fee as charged: ``amount`` in minor units, ``fee`` the JSON of the fee at that time, other fields from the request."""

    token: str
    amount: int
    fee: str
    memo: str | None = None
    tags: str | None = None
    override: int | None = None


class Party(msgspec.Struct, frozen=True):
    """Account of a movement: the user that the request names, the owner of the account, and the money.

    ``pre_kyc`` has the rules of the user's group before KYC, None after it. ``has_loads`` is True after a first load; it is
    read only where a rule needs it.
    """

    user: UserFact
    owner: UserFact
    account: Account
    pre_kyc: PreKyc | None = None
    has_loads: bool = False

    @property
    def is_active(self) -> bool:
        """Return whether user and owner may move money."""
        return self.user.status.is_active and self.owner.status.is_active


class MovementSnapshot(msgspec.Struct, frozen=True):
    """All data that the decision on a movement sees. ``chain`` is the order to unload from, or the fee to refund."""

    currency: str
    parties: tuple[Party, ...]
    source: SourceFact | None = None
    chain: Chain | None = None
    now: int = 0

    def available(self) -> int:
        """Return the available balance of the first account, in minor units."""
        ledger, held = self.parties[0].account.money(self.currency)
        return ledger - held

    def load_refusal(self, amount: int, number: int = 0, *, from_program: bool = False, is_reload: bool = False) -> str | None:
        """Return the reason that a party's account may not be loaded with ``amount`` before KYC; None if it may."""
        party = self.parties[number]
        if party.pre_kyc is None:
            return None
        ledger, _ = party.account.money(self.currency)
        has_loads = party.has_loads or is_reload
        return load_refusal(party.pre_kyc, self.currency, ledger, amount, from_program=from_program, has_loads=has_loads)


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """Transaction of a movement, in minor units: its party (by number), its type and its journal entry.

    ``load_left`` is the amount that later unloads can return. ``chain`` is the root that the step follows, as it is afterwards.
    ``follows`` is True for the chain of the movement's first transaction. ``state`` is the state of the row after the movement,
    ``first_state`` its first state. ``due_ms`` is the time at which a deposit takes effect by itself. ``reason_code`` is an ACH
    return reason code.
    """

    type_id: int
    requested: int
    amount: int
    legs: Legs
    party: int = 0
    moved: int = 0
    load_left: int = 0
    chain: Chain | None = None
    charge: Charge | None = None
    follows: bool = False
    state: State = State.COMPLETION
    first_state: State = State.COMPLETION
    due_ms: int = 0
    reason_code: str | None = None

    @property
    def impacted(self) -> int:
        """Return the signed effect on the account, in minor units."""
        return self.legs.available


Steps = tuple[Step, ...]
