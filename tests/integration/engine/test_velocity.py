"""Velocity controls: counted amounts and uses, windows, and the available rest; the reference's examples and the window edges."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from sqlalchemy import func

from cardwright.core.messages import Advice, Authorization, Clearing, Details, Expiry, Merchant, Refund, Reversal
from cardwright.core.render import details_decoder
from cardwright.core.transaction_types import ANNOUNCED_REFUND, PIN_REFUND, RequestType
from cardwright.core.velocity import Window, window_end, windows_at
from cardwright.engine.batch import CardResult
from cardwright.kit.clock import DAY_MS, ProgramClock, parse_instant
from cardwright.kit.page import Page
from cardwright.resources.common.call import Call
from cardwright.resources.controls import velocity_controls as controls
from cardwright.storage.programs import get_program, set_clock
from cardwright.storage.tables import config_history
from tests.stress import naive_velocity
from tests.support.in_process_platform import InProcessPlatform, card_request

KINDS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "auth": (Authorization, {}),
    "grow": (Authorization, {"request_type": RequestType.INCREMENT}),
    "pin": (Authorization, {"request_type": RequestType.PIN_PURCHASE}),
    "atm": (Authorization, {"request_type": RequestType.WITHDRAWAL}),
    "atmhold": (Authorization, {"request_type": RequestType.ATM_HOLD}),
    "credit": (Authorization, {"request_type": RequestType.ORIGINAL_CREDIT}),
    "credithold": (Authorization, {"request_type": RequestType.CREDIT_HOLD}),
    "clear": (Clearing, {}),
    "force": (Clearing, {"forced": True}),
    "reverse": (Reversal, {}),
    "advise": (Advice, {}),
    "refund": (Refund, {}),
    "repay": (Refund, {}),
    "announce": (Refund, {}),
    "pinrefund": (Refund, {}),
    "expire": (Reversal, {}),
}
REFUNDS = {"announce": ANNOUNCED_REFUND, "pinrefund": PIN_REFUND}

# Each story has lines of "when | step | answer". A step is a message of a card (`auth 80+20 at 5411 on u` with 20 of cash back,
# `reverse 80 of 2`), a new control (`control NAME key=value …`) or a change (`edit NAME …`, `off NAME`, `turn NAME` on again). A
# refund names an original, and `repay` does not. The answer is a code, or `left AMOUNT USES` of a control. Dates are UTC. A line
# without a date has the day of the line before.
STORIES = {
    "amount and count within a day": """
        2025-03-04 09:00 | control day amount_limit=120 usage_limit=4 user=u |
        09:00            | auth 80                                           | 0000
        09:01            | auth 40                                           | 0000
        09:01            | left day                                          | 0.00 2
        09:02            | auth 0.01                                         | 1834 day
        23:59:59         | auth 0.01                                         | 1834 day
        2025-03-05 00:00 | auth 120                                          | 0000
    """,
    "the third use": """
        2025-03-04 09:00 | control uses amount_limit=1000 usage_limit=2 product=p |
        09:00            | auth 1 | 0000
        09:00            | auth 1 | 0000
        09:00            | auth 1 | 1817 uses
        09:00            | left uses | 998.00 0
    """,
    "the tightest decides, the user's is named first": """
        2025-03-04 09:00 | control once amount_limit=50 window=TRANSACTION product=p |
        09:00            | control day amount_limit=120 user=u |
        09:00            | auth 60 | 1834 once
        09:00            | auth 50 | 0000
        09:00            | auth 121 | 1834 day
    """,
    "a full reversal gives amount and use back": """
        2025-03-04 09:00 | control day amount_limit=120 usage_limit=1 user=u |
        09:00            | auth 100 | 0000
        09:01            | auth 1 | 1817 day
        09:02            | reverse 100 of 1 | 0000
        09:03            | auth 110 | 0000
    """,
    "a partial one only the amount": """
        2025-03-04 09:00 | control day amount_limit=120 usage_limit=2 user=u |
        09:00            | auth 100 | 0000
        09:02            | reverse 40 of 1 | 0000
        09:03            | left day | 60.00 1
        09:04            | advise 10 of 1 | 0000
        09:05            | left day | 110.00 1
    """,
    "a clearing beyond the hold is counted and never refused": """
        2025-03-04 09:00 | control day amount_limit=120 user=u |
        09:00            | auth 100 | 0000
        09:01            | clear 130 of 1 | 0000
        09:02            | left day | 0.00 -1
        09:03            | auth 1 | 1834 day
    """,
    "a refund lifts nothing above the limit": """
        2025-03-04 09:00 | control day amount_limit=120 user=u |
        09:00            | auth 50 | 0000
        09:01            | clear 50 of 1 | 0000
        09:02            | refund 70 of 1 | 0000
        09:03            | left day | 120.00 -1
    """,
    "weeks begin on Sunday": """
        2025-03-08 09:00 | control week amount_limit=100 window=WEEK user=u |
        23:59:59         | auth 100 | 0000
        23:59:59         | auth 1 | 1834 week
        2025-03-09 00:00 | auth 100 | 0000
        2025-03-15 23:59:59 | auth 1 | 1834 week
    """,
    "months begin on the first": """
        2025-02-28 09:00 | control month amount_limit=100 window=MONTH user=u |
        23:59:59         | auth 100 | 0000
        23:59:59         | auth 1 | 1834 month
        2025-03-01 00:00 | auth 100 | 0000
        2025-03-31 23:59:59 | auth 1 | 1834 month
    """,
    "a new control looks back": """
        2025-03-04 09:00 | auth 90 | 0000
        10:00            | control day amount_limit=100 user=u |
        10:30            | left day | 10.00 -1
        11:00            | auth 20 | 1834 day
        11:00            | auth 10 | 0000
    """,
    "a lifetime one does not": """
        2025-03-04 09:00 | auth 90 | 0000
        10:00            | control life amount_limit=100 window=LIFETIME user=u |
        11:00            | auth 20 | 0000
        2026-03-04 11:00 | auth 81 | 1834 life
        11:00            | auth 80 | 0000
    """,
    "an edit counts again, and resets nothing": """
        2025-03-04 09:00 | control day amount_limit=100 user=u |
        09:00            | auth 60 at 5411 | 0000
        09:01            | auth 30 at 5812 | 0000
        09:02            | edit day mcc=5411 |
        09:03            | left day | 40.00 -1
        09:04            | auth 41 at 5411 | 1834 day
        09:05            | edit day amount_limit=101 |
        09:06            | auth 41 at 5411 | 0000
        09:07            | off day |
        09:08            | auth 500 at 5411 | 0000
    """,
    "a new control takes over no usage of one that was switched off": """
        2025-03-04 09:00 | control day amount_limit=100 user=u |
        09:00            | auth 30 | 0000
        09:01            | off day |
        09:02            | auth 40 | 0000
        09:03            | control again amount_limit=100 user=u |
        09:04            | left again | 30.00 -1
        09:05            | auth 31 | 1834 again
        09:06            | control twin amount_limit=90 user=u |
        09:07            | left twin | 20.00 -1
        09:08            | auth 20 | 0000
        09:09            | left again | 10.00 -1
    """,
    "a program's control is a cap for each user": """
        2025-03-04 09:00 | control all amount_limit=100 |
        09:00            | auth 100 on u | 0000
        09:00            | auth 100 on w | 0000
        09:00            | auth 1 on w | 1834 all
    """,
    "a child on its parent's account has its own": """
        2025-03-04 09:00 | control all amount_limit=100 |
        09:00            | auth 100 on u | 0000
        09:00            | auth 100 on child | 0000
        09:00            | auth 1 on child | 1834 all
    """,
    "only the merchants of its scope": """
        2025-03-04 09:00 | control mcc amount_limit=30 mcc=5813 user=u |
        09:00            | auth 30 at 5813 | 0000
        09:00            | auth 500 at 5411 | 0000
        09:00            | auth 1 at 5813 | 1834 mcc
    """,
    "declines are not counted, unless only they are": """
        2025-03-04 09:00 | control once amount_limit=50 window=TRANSACTION user=u |
        09:00            | control fails amount_limit=1000 usage_limit=2 approvals_only=false product=p |
        09:00            | auth 60 | 1834 once
        09:00            | auth 60 | 1834 once
        09:00            | auth 40 | 1817 fails
    """,
    "a give-back of last month lifts nothing": """
        2025-03-28 09:00 | control month amount_limit=100 usage_limit=2 window=MONTH user=u |
        09:00            | auth 80 | 0000
        2025-04-01 09:00 | left month | 100.00 2
        09:00            | reverse 80 of 1 | 0000
        09:00            | left month | 100.00 2
        09:01            | auth 100 | 0000
        09:01            | auth 0.01 | 1834 month
        09:02            | reverse 100 of 3 | 0000
        09:02            | left month | 100.00 2
    """,
    "a hold of last month that expires lifts nothing": """
        2025-03-28 09:00 | control month amount_limit=100 usage_limit=2 window=MONTH user=u |
        09:00            | auth 80 | 0000
        2025-04-04 09:00 | expire of 1 | 0000
        09:00            | left month | 100.00 2
        09:01            | auth 100 | 0000
        09:01            | auth 0.01 | 1834 month
    """,
    "the use of last month is not given back in this one": """
        2025-03-28 09:00 | control month amount_limit=100 usage_limit=1 window=MONTH user=u |
        09:00            | auth 10 | 0000
        2025-04-01 09:00 | auth 10 | 0000
        09:00            | reverse 10 of 1 | 0000
        09:00            | left month | 90.00 0
        09:00            | auth 10 | 1817 month
    """,
    "an edit counts as it was counted on the way": """
        2025-03-28 09:00 | control month amount_limit=100 usage_limit=9 window=MONTH user=u |
        09:00            | auth 80 at 5411 | 0000
        2025-04-01 09:00 | auth 50 at 5812 | 0000
        09:00            | auth 20 at 5411 | 0000
        09:00            | reverse 80 of 1 | 0000
        09:01            | left month | 30.00 7
        09:01            | edit month mcc=5411 |
        09:01            | left month | 80.00 8
        09:01            | auth 10 at 5812 | 0000
        09:01            | edit month any=1 |
        09:01            | left month | 20.00 6
        09:02            | edit month amount_limit=120 |
        09:02            | left month | 40.00 6
        09:02            | off month |
        09:02            | reverse 50 of 2 | 0000
        09:02            | turn month |
        09:02            | left month | 90.00 7
    """,
    "a lifetime control counts and gives back what came after it": """
        2025-03-04 09:00 | auth 90 | 0000
        10:00            | control life amount_limit=100 usage_limit=9 window=LIFETIME user=u |
        11:00            | auth 40 | 0000
        11:01            | reverse 90 of 1 | 0000
        11:02            | left life | 60.00 8
        2026-03-04 09:00 | reverse 40 of 2 | 0000
        09:00            | left life | 100.00 9
        09:00            | auth 100.01 | 1834 life
    """,
    "cash that does not count is not given back": """
        2025-03-04 09:00 | control goods amount_limit=50 include_cashback=false user=u |
        09:00            | auth 30+20 | 0000
        09:00            | left goods | 20.00 -1
        09:01            | auth 20 | 0000
        09:01            | left goods | 0.00 -1
        09:02            | reverse 50 of 1 | 0000
        09:02            | left goods | 30.00 -1
        09:03            | auth 30.01 | 1834 goods
        09:03            | auth 30 | 0000
    """,
    "nor is it when the hold expires": """
        2025-03-04 09:00 | control goods amount_limit=50 include_cashback=false window=MONTH user=u |
        09:00            | auth 30+20 | 0000
        09:01            | auth 20 | 0000
        2025-03-11 09:00 | expire of 1 | 0000
        09:00            | left goods | 30.00 -1
    """,
    "goods that do not count are not given back, and go before the cash": """
        2025-03-04 09:00 | control cash amount_limit=50 usage_limit=9 include_purchases=false user=u |
        09:00            | pin 30+20 | 0000
        09:00            | left cash | 30.00 8
        09:01            | reverse 30 of 1 | 0000
        09:01            | left cash | 30.00 8
        09:02            | reverse 15 of 1 | 0000
        09:02            | left cash | 45.00 8
        09:03            | reverse 5 of 1 | 0000
        09:03            | left cash | 50.00 9
    """,
    "withdrawals that do not count are not given back": """
        2025-03-04 09:00 | control shop amount_limit=50 usage_limit=9 include_withdrawals=false user=u |
        09:00            | auth 50 | 0000
        09:00            | atm 20 | 0000
        09:00            | left shop | 0.00 8
        09:01            | reverse 20 of 2 | 0000
        09:01            | left shop | 0.00 8
        09:01            | auth 1 | 1834 shop
    """,
    "original credits count where they are included": """
        2025-03-04 09:00 | control in amount_limit=50 usage_limit=9 include_credits=true include_purchases=false user=u |
        09:00            | credit 20 | 0000
        09:00            | credithold 20 | 0000
        09:00            | left in | 10.00 7
        09:01            | clear 25 of 2 | 0000
        09:01            | left in | 5.00 7
        09:01            | credit 5.01 | 1834 in
        09:02            | reverse 20 of 1 | 0000
        09:02            | left in | 25.00 8
    """,
    "the merchant of the purchase decides, not that of the reversal": """
        2025-03-04 09:00 | control bars amount_limit=60 mcc=5813 user=u |
        09:00            | auth 30 at 5813 | 0000
        09:00            | auth 30 at 5411 | 0000
        09:00            | auth 30 at 5813 | 0000
        09:01            | reverse 30 of 2 at 5813 | 0000
        09:01            | left bars | 0.00 -1
        09:02            | reverse 30 of 1 at 5411 | 0000
        09:02            | left bars | 30.00 -1
    """,
    "the newest part is given back first": """
        2025-03-31 09:00 | control month amount_limit=120 usage_limit=9 window=MONTH user=u |
        09:00            | auth 50 | 0000
        2025-04-01 09:00 | grow 30 of 1 | 0000
        09:00            | left month | 90.00 9
        09:01            | reverse 60 of 1 | 0000
        09:01            | left month | 120.00 9
        09:02            | auth 100 | 0000
        09:02            | reverse 20 of 1 | 0000
        09:02            | left month | 20.00 8
    """,
    "what a clearing takes beyond the hold is given back first": """
        2025-03-31 09:00 | control month amount_limit=120 usage_limit=9 window=MONTH user=u |
        09:00            | auth 50 | 0000
        2025-04-01 09:00 | clear 70 of 1 | 0000
        09:00            | auth 40 | 0000
        09:00            | left month | 60.00 8
        09:01            | refund 15 of 1 | 0000
        09:01            | left month | 75.00 8
        09:01            | refund 55 of 1 | 0000
        09:01            | left month | 80.00 8
    """,
    "a refund gives back what its original counted, once": """
        2025-03-04 09:00 | control day amount_limit=120 usage_limit=9 user=u |
        09:00            | auth 60 | 0000
        09:00            | auth 50 | 0000
        09:01            | clear 60 of 1 | 0000
        09:02            | refund 60 of 1 | 0000
        09:02            | left day | 70.00 7
        09:02            | refund 60 of 1 | 0000
        09:02            | left day | 70.00 7
        09:03            | refund 20 of 2 | 0000
        09:03            | reverse 50 of 2 | 0000
        09:03            | left day | 120.00 8
    """,
    "a refund of last month lifts nothing": """
        2025-03-28 09:00 | control month amount_limit=100 window=MONTH user=u |
        09:00            | auth 80 | 0000
        09:00            | clear 80 of 1 | 0000
        2025-04-01 09:00 | auth 50 | 0000
        09:00            | refund 80 of 1 | 0000
        09:00            | left month | 50.00 -1
    """,
    "a refund of what was declined lifts nothing": """
        2025-03-04 09:00 | control day amount_limit=100 user=u |
        09:00            | auth 80 | 0000
        09:00            | auth 30 | 1834 day
        09:00            | refund 30 of 2 | 0000
        09:00            | left day | 20.00 -1
    """,
    "a refund without an original lowers to nothing at most": """
        2025-03-04 09:00 | control day amount_limit=120 usage_limit=9 user=u |
        09:00            | auth 50 | 0000
        09:01            | repay 70 | 0000
        09:01            | left day | 120.00 8
        09:02            | auth 120 | 0000
        09:02            | auth 0.01 | 1834 day
        09:03            | reverse 50 of 1 | 0000
        09:03            | left day | 50.00 8
    """,
    "an announced refund lowers when it is cleared, by the merchant that it names": """
        2025-03-04 09:00 | control bars amount_limit=100 mcc=5813 user=u |
        09:00            | auth 80 at 5813 | 0000
        09:01            | announce 30 at 5813 | 0000
        09:01            | left bars | 20.00 -1
        09:02            | clear 40 of 2 | 0000
        09:02            | left bars | 60.00 -1
        09:03            | repay 60 at 5411 | 0000
        09:03            | left bars | 60.00 -1
    """,
    "a refund that is taken back counts again": """
        2025-03-04 09:00 | control day amount_limit=100 usage_limit=9 user=u |
        09:00            | pin 80 | 0000
        09:01            | pinrefund 30 | 0000
        09:01            | left day | 50.00 8
        09:02            | reverse 20 of 2 | 0000
        09:02            | left day | 30.00 8
    """,
    "what a final clearing releases is given back": """
        2025-03-04 09:00 | control day amount_limit=100 usage_limit=9 user=u |
        09:00            | atmhold 80 | 0000
        09:01            | clear 50 of 1 | 0000
        09:01            | left day | 50.00 8
        09:01            | refund 80 of 1 | 0000
        09:01            | left day | 100.00 8
    """,
    "a purchase cleared in part is a use": """
        2025-03-04 09:00 | control day amount_limit=100 usage_limit=9 user=u |
        09:00            | auth 80 | 0000
        09:00            | auth 10 | 0000
        09:01            | clear 30 of 1 | 0000
        09:01            | reverse 50 of 1 | 0000
        09:01            | reverse 4 of 2 | 0000
        09:01            | left day | 64.00 7
        09:02            | advise 0 of 2 | 0000
        09:02            | left day | 70.00 8
    """,
    "a forced clearing counts as a use, an account verification as nothing": """
        2025-03-04 09:00 | control day amount_limit=100 usage_limit=3 user=u |
        09:00            | auth 0 | 1830
        09:00            | auth 10 | 0000
        09:00            | force 20 of 2 | 0000
        09:00            | left day | 70.00 1
    """,
}


@pytest.fixture
def platform(migrated_url: str) -> Iterator[InProcessPlatform]:
    """Two users and a child with cards of a Managed JIT product."""
    platform = InProcessPlatform(migrated_url)
    platform.make("fundingsources/program", name="Bank", token="bank")
    jit = {"program_funding_source": {"enabled": True, "funding_source_token": "bank"}}
    life = {"activate_upon_issue": True, "expiration_offset": {"unit": "YEARS", "value": 9}}
    config = {"card_life_cycle": life, "jit_funding": jit, "poi": {"atm": True}}
    platform.make("cardproducts", name="p", token="p", start_date="2025-01-01", config=config)
    for user in ("u", "w"):
        platform.make("users", token=user)
    platform.make("users", token="child", parent_token="u", uses_parent_account=True)
    for user in ("u", "w", "child"):
        platform.make("cards", token=user, user_token=user, card_product_token="p")
    yield platform
    platform.close()


class Story:
    """A runner of the lines of a story."""

    def __init__(self, platform: InProcessPlatform) -> None:
        self.platform = platform
        self.outcomes: list[CardResult] = []
        self.now = 0

    def set_time(self, when: str, day: str) -> str:
        """Set the clock and return the day."""
        day, _, time = when.rpartition(" ") if " " in when else (day, "", when)
        self.set(parse_instant(f"{day}T{time if time.count(':') == 2 else time + ':00'}"))
        return day

    def set(self, now: int) -> None:
        """Set the clock to an instant."""
        self.now = now
        with self.platform.database.write() as db:
            set_clock(db, self.platform.program_id, ProgramClock(0, now))

    def act(self, action: Any, body: msgspec.Struct | None, **path: str) -> Any:
        """Run an action of the API."""
        with self.platform.database.write() as db:
            program = get_program(db, self.platform.program_id)
            call = Call(self.platform.app, db, program, self.now, path, page=Page(100, 0, controls.PAGING.sort_by))
            return action(call, body) if body is not None else action(call)

    def play(self, step: str) -> str:
        """Run one line and return its answer."""
        verb, *words = step.split()
        match verb:
            case "control":
                body = {"token": words[0], "name": words[0], "velocity_window": "DAY", "currency_code": "USD"} | control_fields(
                    words[1:]
                )
                self.act(controls.create_control, msgspec.convert(body, controls.VelocityCreate, strict=False))
                return ""
            case "edit":
                change = msgspec.convert(control_fields(words[1:]), controls.VelocityUpdate, strict=False)
                self.act(controls.update_control, change, token=words[0])
                return ""
            case "off":
                self.act(controls.delete_control, None, token=words[0])
                return ""
            case "turn":
                self.act(controls.update_control, controls.VelocityUpdate(active=True), token=words[0])
                return ""
            case "left":
                docs = map(msgspec.json.decode, self.act(controls.list_available, None, user_token="u").docs)
                left = next(doc["available"] for doc in docs if doc["token"] == words[0])
                return f"{left['amount']:.2f} {left['uses']}"
            case _:
                return self.message(verb, words)

    def left(self, user: str) -> dict[str, tuple[int, int]]:
        """Return the rest of each control of a user as the API shows it: minor units and uses."""
        docs = map(msgspec.json.decode, self.act(controls.list_available, None, user_token=user).docs)
        return {doc["token"]: (round(doc["available"]["amount"] * 100), doc["available"]["uses"]) for doc in docs}

    def message(self, verb: str, words: list[str]) -> str:
        """Decide a message of a card and return its code, with the limiting control if there is one."""
        words = ["0", *words] if verb == "expire" else words
        options = dict(zip(words[1::2], words[2::2], strict=True))
        kind, request_type = KINDS[verb]
        root = self.outcomes[int(options["of"]) - 1].row.id if "of" in options else None
        goods, _, cash = words[0].partition("+")
        details: dict[str, Any] = {"cash_back": round(float(cash) * 100)} if cash else {}
        if "at" in options:
            details["merchant"] = Merchant(mcc=options["at"])
        amount = round(float(goods) * 100)
        message = card_request(
            self.platform,
            options.get("on", "u"),
            amount,
            seed=len(self.outcomes),
            kind=kind,
            root_id=root,
            **request_type,
            **details,
        )
        if verb == "expire":
            message = message._replace(message=Expiry(details=Details(mid="")))
        if verb in REFUNDS:
            message = message._replace(message=msgspec.structs.replace(message.message, type_id=REFUNDS[verb]))
        (outcome,) = self.platform.run([[message]])
        assert isinstance(outcome, CardResult)
        self.outcomes.append(outcome)
        limited_by = details_decoder.decode(outcome.row.details).limited_by
        return f"{outcome.row.code:04d}{f' {limited_by}' if limited_by else ''}"


def control_fields(words: list[str]) -> dict[str, Any]:
    """Return ``key=value`` words as fields of a control."""
    pairs = dict(word.split("=") for word in words)
    body: dict[str, Any] = {key: value for key, value in pairs.items() if key not in ("user", "product", "window", "mcc")}
    if "window" in pairs:
        body["velocity_window"] = pairs["window"]
    if "mcc" in pairs:
        body["merchant_scope"] = {"mcc": pairs["mcc"]}
    if body.pop("any", None):
        body["merchant_scope"] = {}
    if "user" in pairs:
        body["association"] = {"user_token": pairs["user"]}
    if "product" in pairs:
        body["association"] = {"card_product_token": pairs["product"]}
    return body


@pytest.mark.parametrize("name", STORIES)
def test_velocity_story_has_the_expected_answers(platform: InProcessPlatform, name: str) -> None:
    """Each line of a story has the expected answer. An independent count agrees with the outcomes and the available amounts."""
    story, day = Story(platform), ""
    for line in STORIES[name].strip().splitlines():
        when, step, answer = (" ".join(cell.split()) for cell in line.split("|"))
        day = story.set_time(when, day)
        assert story.play(step) == answer, line
    books = naive_velocity.read(platform.database, platform.program_id)
    assert books.judged() == naive_velocity.LimitResult()
    for user in ("u", "w", "child"):
        assert books.left(user, datetime.fromtimestamp(story.now / 1000, UTC)) == story.left(user)


# Ways to give back a purchase of 80: its kind, the messages that follow at once, and the messages in a later window.
GIVE_BACKS = {
    "a reversal": ("auth", (), ("reverse 80 of {n}",)),
    "two reversals": ("auth", (), ("reverse 30 of {n}", "reverse 50 of {n}")),
    "an advice": ("auth", (), ("advise 0 of {n}",)),
    "an expiry": ("auth", (), ("expire of {n}",)),
    "a reversal of a PIN debit": ("pin", (), ("reverse 80 of {n}",)),
    "a refund of what was cleared": ("auth", ("clear 80 of {n}",), ("refund 80 of {n}",)),
    "a refund and an expiry of the same hold": ("auth", (), ("refund 80 of {n}", "expire of {n}")),
    "two refunds of the same purchase": ("pin", (), ("refund 80 of {n}", "refund 80 of {n}")),
    "a refund without an original": ("auth", (), ("repay 80 at {mcc}",)),
}


@pytest.mark.parametrize("window", [window for window in Window if window is not Window.TRANSACTION])
def test_no_give_back_lifts_the_room_above_the_limit(platform: InProcessPlatform, window: Window) -> None:
    """After the window's end, 80 of a limit of 100 is given back: exactly 100 is available, and one more cent is declined."""
    story, start_ms = Story(platform), parse_instant("2025-03-28T12:00:00")
    story.set(start_ms)
    roots = {}
    for number, (name, (verb, follow_ups, _)) in enumerate(GIVE_BACKS.items()):
        mcc = f"{2000 + number}"
        story.play(f"control c{number} amount_limit=100 window={window} user=u mcc={mcc}")
        assert story.play(f"{verb} 80 at {mcc}") == "0000"
        roots[name] = {"n": str(len(story.outcomes)), "mcc": mcc, "control": f"c{number}"}
        for line in follow_ups:
            assert story.play(line.format(**roots[name])) == "0000", name
    # Holds expire after seven days. A window without an end gives back the amount that it counted.
    story.set(max(window_end(window, start_ms) or 0, start_ms + 8 * DAY_MS))
    for name, (_, _, lines) in GIVE_BACKS.items():
        root = roots[name]
        for line in lines:
            assert story.play(line.format(**root)) == "0000", name
        assert story.play(f"left {root['control']}") == "100.00 -1", name
        assert story.play(f"auth 100 at {root['mcc']}") == "0000", name
        assert story.play(f"auth 0.01 at {root['mcc']}") == f"1834 {root['control']}", name
    assert naive_velocity.read(platform.database, platform.program_id).judged() == naive_velocity.LimitResult()


def test_the_second_count_finds_what_is_wrong(platform: InProcessPlatform) -> None:
    """The independent count finds a wrong approval or decline after the limit in the history was lowered or increased."""
    story = Story(platform)
    story.set(parse_instant("2025-03-04T09:00:00"))
    story.play("control day amount_limit=20 usage_limit=2 user=u")
    assert [story.play("auth 10") for _ in range(3)] == ["0000", "0000", "1834 day"]
    for old, new, breaches in (("2000", "1999", 1), ("1999", "2000", 0), ("2000", "5000", 0), ('limit":2,', 'limit":3,', 1)):
        with platform.database.write() as db:
            doc = config_history.c.doc
            db.execute(config_history.update().where(config_history.c.kind == 5).values(doc=func.replace(doc, old, new)))
        assert len(naive_velocity.read(platform.database, platform.program_id).judged().breaches) == breaches, (old, new)


EDGES = [
    ("DAY", "2025-03-04T23:59:59.999", "2025-03-05T00:00:00", "2025-03-05T00:00:00"),
    ("WEEK", "2025-03-08T23:59:59.999", "2025-03-09T00:00:00", "2025-03-09T00:00:00"),
    ("WEEK", "2024-02-24T23:59:59.999", "2024-02-25T00:00:00", "2024-02-25T00:00:00"),
    ("MONTH", "2024-02-29T23:59:59.999", "2024-03-01T00:00:00", "2024-03-01T00:00:00"),
    ("MONTH", "2024-12-31T23:59:59.999", "2025-01-01T00:00:00", "2025-01-01T00:00:00"),
]


@pytest.mark.parametrize(("window", "last", "first", "end"), EDGES)
def test_windows_end_where_the_next_begins(window: str, last: str, first: str, end: str) -> None:
    """The last millisecond of a window belongs to it, the next one to the following window, and window_end is exactly between."""
    kind = Window(window)
    assert windows_at(parse_instant(last))[kind] + 1 == windows_at(parse_instant(first))[kind]
    assert window_end(kind, parse_instant(last)) == parse_instant(end)


# The last second of a window and the first of the next. The clock of the program counts, because messages carry no time. An
# instant is the same in every time zone, so midnight in another zone is no edge.
LAST_SECONDS = [
    ("DAY", "2025-03-04T23:59:59Z", "2025-03-05T00:00:00Z"),
    ("DAY", "2025-03-06T00:59:59+01:00", "2025-03-06T01:00:00+01:00"),
    ("DAY", "2025-03-06T18:59:59-05:00", "2025-03-06T19:00:00-05:00"),
    ("DAY", "2025-03-08T05:29:59+05:30", "2025-03-08T05:30:00+05:30"),
    ("DAY", "2028-02-29T00:59:59+01:00", "2028-02-29T01:00:00+01:00"),
    ("WEEK", "2025-03-08T23:59:59Z", "2025-03-09T00:00:00Z"),
    ("WEEK", "2025-03-23T13:59:59+14:00", "2025-03-23T14:00:00+14:00"),
    ("WEEK", "2025-04-05T11:59:59-12:00", "2025-04-05T12:00:00-12:00"),
    ("WEEK", "2026-01-03T18:59:59-05:00", "2026-01-03T19:00:00-05:00"),
    ("MONTH", "2025-03-31T23:59:59Z", "2025-04-01T00:00:00Z"),
    ("MONTH", "2025-05-01T01:59:59+02:00", "2025-05-01T02:00:00+02:00"),
    ("MONTH", "2025-12-31T15:59:59-08:00", "2025-12-31T16:00:00-08:00"),
    ("MONTH", "2028-03-01T08:59:59+09:00", "2028-03-01T09:00:00+09:00"),
]
NO_EDGES = [
    ("DAY", "2025-06-04T23:59:59+01:00", "2025-06-05T00:00:00+01:00"),
    ("DAY", "2025-06-04T23:59:59-05:00", "2025-06-05T00:00:00-05:00"),
    ("WEEK", "2025-06-07T23:59:59+02:00", "2025-06-08T00:00:00+02:00"),
    ("WEEK", "2025-06-08T23:59:59Z", "2025-06-09T00:00:00Z"),
    ("MONTH", "2025-07-31T23:59:59-08:00", "2025-08-01T00:00:00-08:00"),
    ("MONTH", "2025-07-31T23:59:59+09:00", "2025-08-01T00:00:00+09:00"),
    ("LIFETIME", "2025-12-31T23:59:59Z", "2026-01-01T00:00:00Z"),
    ("LIFETIME", "2028-12-31T23:59:59+09:00", "2031-01-01T00:00:00Z"),
]


def test_each_window_ends_to_the_second_whatever_the_time_zone(platform: InProcessPlatform) -> None:
    """A limit that is exhausted in the last second of a window is free in the next second, by amount and by count."""
    story = Story(platform)
    edges = [(*row, True) for row in LAST_SECONDS] + [(*row, False) for row in NO_EDGES]
    # The clock only moves forward.
    edges.sort(key=lambda row: parse_instant(row[1]))
    for number, (window, last, first, is_edge) in enumerate(edges):
        amount_cap = (f"a{number}", 2000 + 2 * number, "amount_limit=10")
        caps = [amount_cap, (f"c{number}", 2001 + 2 * number, "amount_limit=99 usage_limit=1")]
        story.set(parse_instant(last))
        for name, mcc, limits in caps:
            story.play(f"control {name} {limits} window={window} user=u mcc={mcc}")
        answers = [story.play(f"auth {amount} at {mcc}") for _, mcc, _ in caps for amount in (10, 1)]
        story.set(parse_instant(first))
        answers += [story.play(f"auth {amount} at {mcc}") for _, mcc, _ in caps for amount in (10, 1)]
        over, often = f"1834 a{number}", f"1817 c{number}"
        anew = ["0000", over, "0000", often] if is_edge else [over, over, often, often]
        assert answers == ["0000", over, "0000", often, *anew], (window, last, first, answers)
        for name, _, _ in caps:
            story.play(f"off {name}")


def test_a_transaction_is_a_window_of_its_own(platform: InProcessPlatform) -> None:
    """Any number of purchases pass within one second, each up to the limit. A purchase of one cent more is declined."""
    story = Story(platform)
    story.set(parse_instant("2025-03-04T23:59:59+01:00"))
    story.play("control once amount_limit=10 window=TRANSACTION user=u")
    assert [story.play(step) for step in ("auth 10", "auth 10.01", "auth 10", "auth 10")] == ["0000", "1834 once", "0000", "0000"]
