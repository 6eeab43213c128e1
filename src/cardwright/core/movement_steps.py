"""What the decision on a movement sees, and what it answers: the transactions that the movement consists of, step by step."""

import msgspec

from cardwright.core.decision import Legs
from cardwright.core.enums import State
from cardwright.core.load_limits import load_refusal
from cardwright.core.snapshot import Account, Chain, SourceFact, UserFact
from cardwright.core.spend_controls import PreKyc


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """A fee as it is charged: ``amount`` in minor units, ``fee`` the JSON of the fee on that day, the rest as sent."""

    token: str
    amount: int
    fee: str
    memo: str | None = None
    tags: str | None = None
    override: int | None = None


class Party(msgspec.Struct, frozen=True):
    """Whose account it is: the user who was named, the account's owner, and the money.

    ``pre_kyc`` is what the user's group allows before KYC, None after it; ``has_loads``: there was a load before, which is only
    known where it matters.
    """

    user: UserFact
    owner: UserFact
    account: Account
    pre_kyc: PreKyc | None = None
    has_loads: bool = False

    @property
    def is_active(self) -> bool:
        """Whether user and owner may move money."""
        return self.user.status.is_active and self.owner.status.is_active


class MovementSnapshot(msgspec.Struct, frozen=True):
    """All that the decision on a movement sees: ``chain`` is the order to unload from, or the fee to refund."""

    currency: str
    parties: tuple[Party, ...]
    source: SourceFact | None = None
    chain: Chain | None = None
    now: int = 0

    def available(self) -> int:
        """What the first account has that no hold keeps."""
        ledger, held = self.parties[0].account.money(self.currency)
        return ledger - held

    def load_refusal(self, amount: int, number: int = 0, *, from_program: bool = False, is_reload: bool = False) -> str | None:
        """Why a party's account may not be loaded with an amount yet; None when it may."""
        party = self.parties[number]
        if party.pre_kyc is None:
            return None
        ledger, _ = party.account.money(self.currency)
        has_loads = party.has_loads or is_reload
        return load_refusal(party.pre_kyc, self.currency, ledger, amount, from_program=from_program, has_loads=has_loads)


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One transaction of a movement, in minor units: whose (the number of the party), what, and what it books.

    ``load_left`` is what can be unloaded of it later; ``chain`` the root that it follows, as that is afterwards.
    ``follows``: it belongs to the chain of the movement's first transaction. ``state`` is that of the row after the movement,
    ``first_state`` the one that it began with, ``due_ms`` when it takes effect by itself, ``reason_code`` a bank's word.
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
        """The signed effect on the account."""
        return self.legs.available


Steps = tuple[Step, ...]
