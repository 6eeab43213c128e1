"""Steps of random histories under velocity controls: messages of a card and changes of controls, as values and as text."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from cardwright.core.transaction_types import ANNOUNCED_REFUND, PIN_REFUND, REFUND, RequestType
from cardwright.kit.clock import DAY_MS
from tests.stress.naive_velocity import Chain, window_on

ASKS = {
    "auth": RequestType.PURCHASE,
    "pin": RequestType.PIN_PURCHASE,
    "pinhold": RequestType.PIN_HOLD,
    "atm": RequestType.WITHDRAWAL,
    "atmhold": RequestType.ATM_HOLD,
    "chips": RequestType.PIN_QUASI,
    "chipshold": RequestType.QUASI_HOLD,
    "fund": RequestType.FUNDING,
    "fundhold": RequestType.FUNDING_HOLD,
    "credit": RequestType.ORIGINAL_CREDIT,
    "credithold": RequestType.CREDIT_HOLD,
}
REFUNDS = {"repay": REFUND, "announce": ANNOUNCED_REFUND, "pinrefund": PIN_REFUND}
"""Requests, and refunds without an original."""

HOLDS = ("auth", "pinhold", "atmhold", "chipshold", "fundhold", "credithold")
WITH_CASH = ("auth", "pin")

ASKED_HOW_OFTEN = (
    *("auth",) * 10,
    "pin",
    "pin",
    "pin",
    "pinhold",
    "pinhold",
    "atm",
    "atm",
    "atmhold",
    "chips",
    "chipshold",
    "fund",
    "fundhold",
    "credit",
    "credit",
    "credithold",
    "credithold",
)

FOLLOWED_BY = {
    "auth": ("clear", "clear", "clear", "reverse", "reverse", "reverse", "advise", "grow", "grow", "refund", "refund", "force"),
    "atmhold": ("clear", "clear", "reverse", "advise", "refund", "force"),
    "chipshold": ("clear", "clear", "reverse", "advise", "refund"),
    "pinhold": ("clear", "clear", "reverse", "refund"),
    "fundhold": ("clear", "clear", "reverse", "refund"),
    "credithold": ("clear", "clear", "reverse"),
    "pin": ("reverse", "reverse", "refund", "refund", "force"),
    "atm": ("reverse", "refund"),
    "chips": ("reverse", "refund"),
    "fund": ("reverse", "refund"),
    "credit": ("reverse",),
    "announce": ("clear", "clear", "reverse", "advise"),
    "pinrefund": ("reverse",),
    "force": ("refund",),
}
"""Possible follow-ups of a step. A follow-up is drawn as often as it is in the list."""

AMOUNTS = (5_00, 10_00, 15_00, 20_00, 30_00, 30_00, 50_00, 1)
MIDS, MCCS = ("m1", "m2", "m3"), ("5411", "5812", "5999")
GROUPS = {"food": ("5411",), "fun": ("5812-5999",)}
GROUP_MEMBERS = (("5411",), ("5812",), ("5411", "5999"), ("5812-5999",), ("5999",))

AMOUNT_LIMITS = (20, 50, 50, 80, 100, 100, 200, 200, 10_000, 10_000, 10_000)
USAGE_LIMITS = (-1, -1, -1, -1, 1, 2, 3, 5, 100)

LENGTHS = {"DAY": 1, "WEEK": 7, "MONTH": 30, "QUARTER": 91, "YEAR": 365}
"""Days of a window. LIFETIME has no end, so its histories last as long as those of MONTH."""


DEFAULTS: dict[str, Any] = {
    "usage_limit": -1, "currency_code": "USD", "approvals_only": True, "include_purchases": True, "include_cashback": True,
    "include_withdrawals": True, "include_credits": False,
}  # fmt: skip
"""Default fields of a control, which the text of a step omits."""

UNTOLD = ("include_transfers",)
"""Fields that the text omits because they have no effect here."""


class Step(NamedTuple):
    """A message, or a change of a control or group, at an instant. ``of`` is the step that a message names."""

    time_ms: int
    verb: str
    fields: dict[str, Any]
    of: int | None = None

    def __str__(self) -> str:
        when = datetime.fromtimestamp(self.time_ms / 1000, UTC).isoformat(" ", "milliseconds")[:23]
        words = [f"{self.verb:9}"]
        fields = {name: value for name, value in self.fields.items() if name not in UNTOLD and DEFAULTS.get(name) != value}
        fields |= fields.pop("association", {}) | fields.pop("merchant_scope", {}) if "amount_limit" in fields else {}
        if "amount" in fields:
            words.append(f"{fields.pop('amount') / 100:.2f}")
        if cash := fields.pop("cash", 0):
            words.append(f"+ {cash / 100:.2f} cash")
        if self.of is not None:
            words.append(f"of {self.of}")
        if self.verb not in ("control", "edit") and "mid" in fields:
            words.append(f"at {fields.pop('mid')}/{fields.pop('mcc')}")
        words += [f"{name}={value}" for name, value in fields.items() if value is not None]
        return f"{when} | {' '.join(words)}"


class Opened(NamedTuple):
    """A step that began a chain: its number, verb, amount and approval, and its chain in the independent count."""

    number: int
    verb: str
    amount: int
    is_approved: bool
    chain: Chain


# --- Time ---------------------------------------------------------------------------------------


def length_ms(window: str) -> int:
    """Return the approximate length of a window in milliseconds."""
    return LENGTHS.get(window, LENGTHS["MONTH"]) * DAY_MS


def ends_of(window: str, first: int, count: int) -> list[int]:
    """Return the first instants of the next windows, by the calendar of the independent count."""
    day, ends = first // DAY_MS, list[int]()
    while len(ends) < count:
        day += 1
        if window_on(window, day) != window_on(window, day - 1):
            ends.append(day * DAY_MS)
    return ends


def drawn_times(dice: random.Random, window: str, count: int) -> list[int]:
    """Draw sorted instants: half of them near two ends of the window, or all within three months for LIFETIME."""
    first = dice.randrange(19_500, 22_000) * DAY_MS + dice.randrange(DAY_MS)
    if window == "LIFETIME":
        return sorted(first + dice.randrange(3 * length_ms(window)) for _ in range(count))
    ends = ends_of(window, first, 2)
    last = ends[1] + length_ms(window) * 2 // 3
    times, near = [first, *(end + step for end in ends for step in (-1, 0))], length_ms(window) // 8
    while len(times) < count:
        time_ms = dice.choice(ends) + dice.randrange(-near, near) if dice.random() < 0.5 else dice.randrange(first, last)
        times.append(max(first, time_ms))
    return sorted(times)


# --- Messages -----------------------------------------------------------------------------------


def merchant(dice: random.Random) -> dict[str, Any]:
    """Draw a merchant."""
    return {"mid": dice.choice(MIDS), "mcc": dice.choice(MCCS)}


def drawn_request(dice: random.Random, time_ms: int, window: str, card: dict[str, Any]) -> Step:
    """Draw a request, sometimes with the amount 0 (an account verification)."""
    verb = dice.choice(ASKED_HOW_OFTEN)
    fields: dict[str, Any] = {"amount": dice.choice(AMOUNTS), **merchant(dice), **card}
    if verb in WITH_CASH and dice.random() < 0.35:
        fields["cash"] = dice.choice((5_00, 10_00, 20_00))
    elif verb == "auth" and dice.random() < 0.04:
        fields["amount"] = 0
    if dice.random() < 0.3:
        fields["alone"] = True
    if verb in HOLDS:
        fields["hold_ms"] = dice.choice((None, length_ms(window) // 8, length_ms(window) // 2, 2 * length_ms(window)))
    return Step(time_ms, verb, fields)


def drawn_refund(dice: random.Random, time_ms: int, card: dict[str, Any]) -> Step:
    """Draw a refund without an original, or a forced clearing."""
    verb = dice.choice(("repay", "repay", "announce", "announce", "pinrefund", "force"))
    fields: dict[str, Any] = {"amount": dice.choice(AMOUNTS), **merchant(dice), **card}
    if verb == "force" and dice.random() < 0.3:
        fields["atm"] = True
    return Step(time_ms, verb, fields)


def drawn_follow_up(dice: random.Random, time_ms: int, opened: Sequence[Opened]) -> Step | None:
    """Draw a follow-up of a chain, usually of an open one, sometimes at another merchant. None if there is no chain."""
    chains = [opening for opening in opened if opening.is_approved and opening.verb in FOLLOWED_BY]
    live = [opening for opening in chains if opening.chain.held or opening.chain.settled]
    if dice.random() < 0.03 and (declined := [opening for opening in opened if not opening.is_approved]):
        return Step(time_ms, "refund", {"amount": dice.choice(AMOUNTS)}, dice.choice(declined).number)
    if not chains:
        return None
    chosen = dice.choice(live if live and dice.random() < 0.85 else chains)
    verb = dice.choice(FOLLOWED_BY[chosen.verb])
    held, settled = chosen.chain.held or chosen.amount, chosen.chain.settled
    match verb:
        case "clear":
            amount = dice.choice((held, held, held // 2, held + 5_00, held + 30_00))
        case "reverse":
            left = chosen.chain.held or settled or chosen.amount
            amount = dice.choice((left, left, left, left // 2, left // 3, left + 5_00))
        case "advise":
            total = settled + held
            amount = dice.choice((0, settled, total // 2, total - min(total, 5_00)))
        case "refund":
            amount = dice.choice((chosen.amount, chosen.amount, chosen.amount // 2, chosen.amount + 10_00))
        case _:
            amount = dice.choice(AMOUNTS)
    fields: dict[str, Any] = {"amount": amount if verb == "advise" else max(1, amount)}
    if verb == "reverse" and dice.random() < 0.15:
        fields["told"] = True
    if dice.random() < 0.25:
        fields |= merchant(dice)
    return Step(time_ms, verb, fields, chosen.number)


# --- Controls ------------------------------------------------------------------------------------


def drawn_settings(dice: random.Random, window: str, windows: Sequence[str], association: dict[str, str]) -> dict[str, Any]:
    """Draw all fields of a control."""
    scopes = {"mid": dice.choice(MIDS), "mcc": dice.choice(MCCS), "mcc_group": dice.choice(tuple(GROUPS))}
    name = dice.choice(("", "", "", *scopes))
    return {
        "amount_limit": dice.choice(AMOUNT_LIMITS), "usage_limit": dice.choice(USAGE_LIMITS), "currency_code": "USD",
        "velocity_window": window if dice.random() < 0.9 else dice.choice(windows),
        "association": association, "merchant_scope": {name: scopes[name]} if name else {}, "approvals_only": dice.random() > 0.1,
        "include_purchases": dice.random() < 0.75, "include_cashback": dice.random() < 0.6,
        "include_withdrawals": dice.random() < 0.6, "include_credits": dice.random() < 0.4,
        "include_transfers": dice.random() < 0.5,
    }  # fmt: skip


def changed(dice: random.Random, window: str, windows: Sequence[str], past: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Draw a control's fields with some changes, or return earlier ones."""
    now = past[-1]
    if len(past) > 1 and dice.random() < 0.4:
        return dict(dice.choice(past))
    fresh = drawn_settings(dice, window, windows, now["association"])
    names = dice.sample(sorted(fresh), dice.randint(1, 4))
    return {**now, **{name: fresh[name] for name in names}}
