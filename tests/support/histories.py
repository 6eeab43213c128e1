"""Random histories: months of purchases and follow-ups, which run once and again under other controls."""

import asyncio
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from cardwright.core.messages import CATEGORY_OF, Advice, Authorization, Clearing, Merchant, Refund, Reversal, VelocityCategory
from cardwright.core.transaction_row import token_of
from cardwright.core.transaction_types import WITH_CASH, RequestType
from cardwright.engine.batch import CardRequest, CardResult
from cardwright.engine.batch_runner import run_batch
from cardwright.engine.id_blocks import IdSource
from cardwright.kit.clock import DAY_MS, ProgramClock, parse_instant
from cardwright.resources.common.call import Call
from cardwright.resources.controls import auth_controls, exempt_mids, mcc_groups, merchant_groups
from cardwright.resources.controls import velocity_controls as controls
from cardwright.storage.programs import get_program, set_clock
from tests.support.in_process_platform import InProcessPlatform, card_request

BEGIN = parse_instant("2026-01-05T08:00:00")

CARDS = {"u1": ("u", "jit"), "u2": ("u", "jit2"), "w1": ("w", "jit"), "child1": ("child", "jit"), "bo1": ("bo", "plain")}
"""Cards with their users and products. ``child`` uses the account of ``u``, and ``bo`` has no JIT Funding."""

REQUEST_TYPES = (*(RequestType.PURCHASE,) * 6, RequestType.PIN_PURCHASE, RequestType.WITHDRAWAL, RequestType.PIN_HOLD)

MCCS = ("5411", "5812", "5999")


def populated(platform: InProcessPlatform) -> InProcessPlatform:
    """Create the cards of the histories on a platform without controls; return the platform."""
    platform.make("fundingsources/program", name="Bank", token="bank")
    jit = {"program_funding_source": {"enabled": True, "funding_source_token": "bank"}}
    life = {"activate_upon_issue": True, "expiration_offset": {"unit": "YEARS", "value": 9}}
    config: dict[str, Any] = {"card_life_cycle": life, "poi": {"atm": True}}
    for product in ("jit", "jit2"):
        platform.make("cardproducts", name=product, token=product, start_date="2025-01-01", config={**config, "jit_funding": jit})
    platform.make("cardproducts", name="plain", token="plain", start_date="2025-01-01", config=config)
    increase = {"authorization_controls": {"hold_increase": {"type": "PERCENT", "value": 12.5}}}
    platform.make("mccgroups", token="pumps", name="Pumps", mccs=("5999",), config=increase)
    platform.make("mccgroups", token="food", name="Food", mccs=("5411",))
    for user in ("u", "w", "bo"):
        platform.make("users", token=user)
    platform.make("users", token="child", parent_token="u", uses_parent_account=True)
    for card, (user, product) in CARDS.items():
        platform.make("cards", token=card, user_token=user, card_product_token=product)
    return platform


@dataclass
class Step:
    """The events of one instant: changes of controls, then messages. A message names an earlier one by its number."""

    time_ms: int
    changes: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)


def drawn(seed: int, count: int, days: int = 75, each: int = 40) -> list[Step]:
    """Draw ``count`` purchases over about ``days`` days, in steps of about ``each`` messages, some with later follow-ups."""
    source = random.Random(seed)
    steps, made, opened = list[Step](), 0, list[tuple[int, str, int, RequestType]]()
    numbers = itertools.count()
    sizes = count // each + 1
    time_ms = BEGIN
    while made < count:
        step = Step(time_ms)
        for _ in range(source.randint(each // 2, 3 * each // 2)):
            number = next(numbers)
            if opened and source.random() < 0.3:
                step.messages.append(_follow_up(source, opened.pop(source.randrange(len(opened)))))
                continue
            card = source.choice(tuple(CARDS))
            amount = source.choice((0, 100, 999, 20_00, 35_50, 60_00))
            cash = source.choice((0, 0, 0, 0, 10_00))
            request_type = source.choice(REQUEST_TYPES)
            cash = cash if request_type in WITH_CASH else 0
            message = {"kind": Authorization, "card": card, "amount": amount, "cash_back": cash, "request_type": request_type}
            step.messages.append(message | _shop(source))
            made += 1
            # A follow-up comes in a later step, because it needs the row id of the purchase.
            opened.append((number, card, amount + cash, request_type))
        opened = opened[-5 * each :]
        steps.append(step)
        time_ms += source.randint(1, 2 * days * DAY_MS // sizes)
    # Every fifth step has a credit for the account without JIT Funding.
    for step in steps[::5]:
        step.messages.insert(0, {"kind": Refund, "card": "bo1", "amount": source.choice((30_00, 80_00)), "of": "first of bo"})
    steps[0].messages.insert(0, {"kind": Authorization, "card": "bo1", "amount": 0, "cash_back": 0, "name": "first of bo"})
    return steps


def _shop(source: random.Random) -> dict[str, Any]:
    return {"mcc": source.choice(MCCS), "mid": source.choice(("m1", "m2"))}


def _follow_up(source: random.Random, opened: tuple[int, str, int, RequestType]) -> dict[str, Any]:
    number, card, amount, request_type = opened
    kinds = {
        RequestType.PURCHASE: (Clearing, Clearing, Reversal, Reversal, Advice, Refund),
        RequestType.PIN_HOLD: (Clearing, Reversal),
    }
    kind = source.choice(kinds.get(request_type, (Reversal,)))
    part = source.choice((amount, amount, amount // 2, amount + 500))
    return {"kind": kind, "card": card, "amount": max(part, 1), "of": number}


ACTIONS: dict[str, tuple[Any, Any]] = {
    "create": (controls.create_control, controls.VelocityCreate),
    "update": (controls.update_control, controls.VelocityUpdate),
    "regroup": (mcc_groups.update_mcc_group, mcc_groups.MccGroupUpdate),
    "block": (auth_controls.create_auth_control, auth_controls.AuthControlCreate),
    "reblock": (auth_controls.update_auth_control, auth_controls.AuthControlUpdate),
    "exempt": (exempt_mids.create_exemption, exempt_mids.ExemptionCreate),
    "switch exemption": (exempt_mids.update_exemption, exempt_mids.ExemptionUpdate),
    "group": (merchant_groups.create_merchant_group, merchant_groups.MerchantGroupCreate),
    "regroup merchants": (merchant_groups.update_merchant_group, merchant_groups.MerchantGroupUpdate),
}
CREATES = ("create", "block", "exempt", "group")


class PlayedHistory:
    """A history that ran on a platform: the outcome of each message by its number, or None if it was not sent.

    A clearing of a declined purchase is not sent. With ``again``, messages that were not sent in that history are omitted too.
    """

    def __init__(self, platform: InProcessPlatform, again: "PlayedHistory | None" = None) -> None:
        self.platform = platform
        self.again = again
        self.outcomes: dict[Any, CardResult | None] = {}
        self.names: dict[str, CardResult] = {}

    @property
    def approvals(self) -> dict[str, bool]:
        """True for each approved purchase and False for each declined one, by its name in the history."""
        purchases = {
            key: outcome for key, outcome in self.outcomes.items() if outcome is not None and self.kinds[key] is Authorization
        }
        return {key: outcome.row.impacted is not None for key, outcome in purchases.items()}

    @property
    def tokens(self) -> dict[str, Any]:
        """The names of the messages in the history by the tokens of their transactions."""
        return {token_of(outcome.row): key for key, outcome in self.outcomes.items() if outcome is not None}

    def play(self, steps: Sequence[Step]) -> "PlayedHistory":
        """Run the steps, each as a batch at its time; return this object."""
        asyncio.run(self._play(steps))
        return self

    async def _play(self, steps: Sequence[Step]) -> None:
        platform = self.platform
        worker, ids, number = await platform.store.open_worker(), IdSource(), 0
        ids.refill(platform.store.next_ids())
        self.kinds: dict[Any, Any] = {}
        for step in steps:
            self._set_clock(step.time_ms)
            for verb, token, body in step.changes:
                self._change(verb, token, body, step.time_ms)
            batch: list[tuple[Any, CardRequest]] = []
            for message in step.messages:
                key = message.get("name", f"extra {step.time_ms}" if message.get("of") == "first of bo" else number)
                number += isinstance(key, int)
                self.kinds[key] = message["kind"]
                unsent = self.again is not None and self.again.outcomes[key] is None
                if unsent or (sent := self._sent(message, len(self.outcomes) + len(batch))) is None:
                    self.outcomes[key] = None
                else:
                    batch.append((key, sent))
            if step is steps[0]:
                # Other messages of the first step name its first message, so that one is decided before them.
                first, batch = batch[:1], batch[1:]
                await self._decide(worker, ids, first, step.time_ms)
                for message in (extra for extra in step.messages if extra.get("of") == "first of bo"):
                    sent = self._sent(message, len(self.outcomes))
                    assert sent is not None
                    batch.insert(0, (f"extra {step.time_ms}", sent))
            await self._decide(worker, ids, batch, step.time_ms)
        await worker.close()
        await platform.store.close()

    async def _decide(self, worker: Any, ids: IdSource, batch: Sequence[tuple[Any, CardRequest]], time_ms: int) -> None:
        if not ids.has(len(batch)):
            ids.refill(self.platform.store.next_ids())
        requests = [sent._replace(card=await self.platform.card(sent.card)) for _, sent in batch]
        results = await run_batch(worker, self.platform.cache, ids, lambda: time_ms, requests)
        for (key, _), result in zip(batch, results, strict=True):
            assert isinstance(result, CardResult), result
            self.outcomes[key] = result

    def _sent(self, message: dict[str, Any], seed: int) -> CardRequest | None:
        """Return the request of a message, or None if it is not sent."""
        kind, details = message["kind"], dict[str, Any]()
        if kind is Authorization:
            details = {"cash_back": message["cash_back"], "merchant": Merchant(mcc=message.get("mcc", "5411"))}
            request_type = message.get("request_type", RequestType.PURCHASE)
            details["velocity_category"] = CATEGORY_OF.get(request_type, VelocityCategory.PURCHASE)
            request = card_request(self.platform, message["card"], message["amount"], seed=seed, kind=kind, **details)
            request = request._replace(message=msgspec.structs.replace(request.message, request_type=request_type))
            return with_details(request, mid=message.get("mid", "m1"))
        original = self.outcomes.get(message["of"])
        if original is None or (original.row.impacted is None and kind is Clearing):
            return None
        return card_request(self.platform, message["card"], message["amount"], seed=seed, kind=kind, root_id=original.row.id)

    def _set_clock(self, time_ms: int) -> None:
        with self.platform.database.write() as db:
            set_clock(db, self.platform.program_id, ProgramClock(0, time_ms))

    def _change(self, verb: str, token: str, body: dict[str, Any], time_ms: int) -> None:
        action, shape = ACTIONS[verb]
        with self.platform.database.write() as db:
            call = Call(self.platform.app, db, get_program(db, self.platform.program_id), time_ms, {"token": token})
            action(call, msgspec.convert({**body, **({"token": token} if verb in CREATES else {})}, shape))


def with_details(request: CardRequest, **details: Any) -> CardRequest:
    """Return the message with other details."""
    changed = msgspec.structs.replace(request.message.details, **details)
    return request._replace(message=msgspec.structs.replace(request.message, details=changed))
