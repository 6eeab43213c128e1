"""Backtest worker: a process that replays the purchases of a program, account by account, under changed spend controls.

It is a separate process so that the server's event loop loses no time. It reads its task from standard input and writes parts
of the result to standard output, each as MessagePack behind its length (``kit.framing``). It only reads the database. It ends
when its standard input ends, because then its parent has ended.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import BinaryIO, Literal, assert_never

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection

from cardwright.core.backtest import Refusal, Replay, ReplayedDecision
from cardwright.core.money import decimal_text, exponent_of
from cardwright.core.render import details_decoder
from cardwright.core.responses import REASON_OF
from cardwright.core.snapshot import Snapshot
from cardwright.core.spend_controls import MerchantRule
from cardwright.core.timeline import Holder, Timeline
from cardwright.core.transaction_row import TransactionRow, token_of
from cardwright.core.velocity import LimitResult, Window
from cardwright.kit.clock import DAY_MS, iso_ms
from cardwright.kit.framing import LENGTH_BYTES, framed, length_of
from cardwright.resources.analysis.configuration import configuration_as_of
from cardwright.storage.backtests import (
    CardOf,
    Job,
    Sums,
    count_in,
    history_of,
    load_cards_of,
    load_versions,
    next_accounts,
)
from cardwright.storage.database import Database
from cardwright.storage.failures import Unavailable

MODULE = "cardwright.resources.analysis.backtest_worker"

ControlType = Literal["velocity_control", "auth_control"]
"""The kinds of controls that decline a purchase."""

VELOCITY: ControlType = "velocity_control"
AUTH: ControlType = "auth_control"

ACCOUNTS_AT_ONCE = 64
"""The number of accounts per read."""

PART_ROWS = 10_000
PART_S = 1.0
"""A part ends after this number of rows or of seconds. The server stores each part in a commit."""

LONGEST_WINDOW_MS = 31 * DAY_MS

NICE = 10
"""The niceness of the process: the server's decisions have priority over a backtest."""


class BacktestTask(msgspec.Struct, frozen=True, kw_only=True):
    """The task of a worker.

    ``cursor`` is the id of the last account that is done. ``flips_max`` is the number of flips that may still be stored.
    """

    address: str
    job: Job
    cursor: int
    flips_max: int


class ReplayedPart(msgspec.Struct, frozen=True, kw_only=True):
    """The result of the accounts up to ``cursor`` since the previous part. The last part has ``done``."""

    cursor: int
    sums: Sums
    flips: list[str]
    done: bool


def parts(database: Database, order: BacktestTask, clock_s: Callable[[], float] = lambda: 0.0) -> Iterator[ReplayedPart]:
    """Yield the parts of a backtest's result, from the account after the task's ``cursor``.

    ``clock_s`` returns seconds of a monotonic clock.
    """
    job = order.job
    with database.read() as db:
        versions = load_versions(db, job.program_id)
    controls = [control for entries in versions.velocity.values() for _, control in entries]
    controls += [*job.velocity.replaced, *job.velocity.added]
    has_lifetime = any(control is not None and control.window is Window.LIFETIME for control in controls)
    timeline = Timeline(versions, job.velocity, job.auth, job.exempt)
    worker = _Worker(timeline, job, 0 if has_lifetime else job.start_ms - LONGEST_WINDOW_MS, order.flips_max)
    cursor, begun = order.cursor, clock_s()
    while True:
        with database.read() as db:
            ids = next_accounts(db, job.program_id, cursor, ACCOUNTS_AT_ONCE)
            if ids:
                worker.work(db, ids)
                cursor = ids[-1]
        is_done = len(ids) < ACCOUNTS_AT_ONCE
        if is_done or worker.rows >= PART_ROWS or clock_s() - begun >= PART_S:
            yield ReplayedPart(cursor=cursor, sums=worker.sums, flips=worker.flips, done=is_done)
            worker.sums, worker.flips, worker.rows, begun = Sums(), [], 0, clock_s()
        if is_done:
            return


class _Worker:
    """A replay of accounts, with the sums and the flips since the last part."""

    def __init__(self, timeline: Timeline, job: Job, from_ms: int, flips_max: int) -> None:
        self._timeline, self._job, self._from_ms, self._room = timeline, job, from_ms, flips_max
        self._snapshots: dict[tuple[int | None, int, int, int | None, str], Snapshot] = {}
        self.sums, self.flips, self.rows = Sums(), list[str](), 0

    def work(self, db: Connection, ids: list[int]) -> None:
        """Replay the purchases of these accounts."""
        owned = load_cards_of(db, ids)
        holders: dict[int, Holder] = {card_id: card.holder for card_id, card in owned.items()}
        self._snapshots.clear()
        past = history_of(db, ids, self._from_ms, self._job.end_ms)
        for _, rows in groupby(past, key=lambda entry: entry[0].holder_id):
            for again in Replay(self._timeline, holders, lambda row: self._see(db, row)).run(rows, self._job.start_ms):
                self._add(again, owned)
        self.sums.accounts += len(ids)

    def _see(self, db: Connection, row: TransactionRow) -> Snapshot:
        mcc = details_decoder.decode(row.details).merchant.mcc
        key = (row.card_id, row.holder_revision, row.program_revision, row.source_id, mcc)
        if key not in self._snapshots:
            snapshot = configuration_as_of(db, row)
            self._snapshots[key] = replace(snapshot, spend=replace(snapshot.spend, merchant_blocks=(), exemptions=()))
        return self._snapshots[key]

    def _add(self, again: ReplayedDecision, owned: dict[int, CardOf]) -> None:
        sums, row, new = self.sums, again.row, again.again
        self.rows += 1
        sums.purchases += 1
        if row.impacted is not None:
            sums.approved_before += 1
            sums.amount_before += row.amount
        if new.impacted is not None:
            sums.approved_after += 1
            sums.amount_after += new.amount
        match again.refusal:
            case LimitResult() as limit:
                count_in(sums.declined_by, limit.control.token, 1, row.request_amount)
            case MerchantRule() as rule:
                count_in(sums.blocked_by, rule.token, 1, row.request_amount)
            case None:
                pass
            case _:
                assert_never(again.refusal)
        if again.is_flipped:
            assert row.card_id is not None, "a purchase has a card"
            self._flip(again, owned[row.card_id])

    def _flip(self, again: ReplayedDecision, card: CardOf) -> None:
        sums, row = self.sums, again.row
        if row.impacted is None:
            sums.to_approved += 1
            sums.to_approved_amount += again.again.amount
        else:
            sums.to_declined += 1
            sums.to_declined_amount += row.amount
        if self._room > 0:
            self._room -= 1
            sums.flips += 1
            self.flips.append(flip_json(again, card))


def flip_json(again: ReplayedDecision, card: CardOf) -> str:
    """Return the JSON of a purchase that the change approves or declines, contrary to its first decision."""
    row, new, details = again.row, again.again, again.details
    places = exponent_of(row.currency) or 0
    shown = {
        "transaction_token": details.chosen_token or token_of(row),
        "created_time": iso_ms(row.created_ms),
        "user_token": card.holder.user_token,
        "card_token": card.token,
        "mid": details.mid,
        "mcc": details.merchant.mcc,
        "request_amount": decimal_text(row.request_amount, places),
        "currency_code": row.currency,
        "before": _outcome(row, places, details.limited_by),
        "after": _outcome(new, places, None) | _refusal(again.refusal, places),
    }
    return msgspec.json.encode(shown).decode()


def _refusal(refusal: Refusal | None, places: int) -> dict[str, object]:
    """Return the control that declines, and the usage before the purchase if it is a velocity control."""
    match refusal:
        case None:
            return {}
        case MerchantRule():
            return {"control": refusal.token, "control_type": AUTH, "control_name": refusal.name}
        case LimitResult():
            control = refusal.control
            return {
                "control": control.token, "control_type": VELOCITY, "control_name": control.name,
                "velocity_window": control.window, "amount_limit": decimal_text(control.amount_limit, places),
                "used_before": decimal_text(refusal.used_amount, places),
                "usage_limit": control.usage_limit, "uses_before": refusal.used_count,
            }  # fmt: skip
        case _:
            assert_never(refusal)


def _outcome(row: TransactionRow, places: int, limited_by: str | None) -> dict[str, object]:
    reason = REASON_OF[row.code]
    outcome: dict[str, object] = {
        "outcome": "DECLINED" if row.impacted is None else "APPROVED",
        "response": {"code": reason.code, "memo": reason.memo},
    }
    if row.impacted is not None:
        outcome["amount"] = decimal_text(row.amount, places)
    return outcome | ({"declined_by": limited_by} if limited_by is not None else {})


NO_DATABASE = 75
"""The exit code for an unavailable database (EX_TEMPFAIL of sysexits.h)."""


def packed(message: msgspec.Struct) -> bytes:
    """Return a message as MessagePack behind its length."""
    return framed(msgspec.msgpack.encode(message))


def main(given: BinaryIO, taken: BinaryIO) -> None:
    """Read the task from ``given`` and write the parts of its result to ``taken``."""
    length = length_of(given.read(LENGTH_BYTES))
    order = msgspec.msgpack.decode(given.read(length), type=BacktestTask)
    threading.Thread(target=_end_with, args=(given,), daemon=True).start()
    database = Database(order.address)
    try:
        for part in parts(database, order, time.monotonic):
            taken.write(packed(part))
            taken.flush()
    except Unavailable:
        sys.exit(NO_DATABASE)
    finally:
        database.close()


def _end_with(given: BinaryIO) -> None:
    """End this process when ``given`` ends, because then the parent has ended."""
    given.read()
    os._exit(0)


if __name__ == "__main__":
    if hasattr(os, "nice"):
        os.nice(NICE)
    main(sys.stdin.buffer, sys.stdout.buffer)
