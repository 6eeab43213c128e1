"""Backtest changes: controls that a backtest adds, changes or removes, validated like real changes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from sqlalchemy import Table

from cardwright.core.problems import INVALID_INPUT, Problem, bad_field
from cardwright.core.spend_controls import Groups, MerchantRule, resolved_rule
from cardwright.core.timeline import C, Change
from cardwright.core.velocity import Control
from cardwright.kit.clock import Instant
from cardwright.resources.common.call import Call
from cardwright.resources.common.fields import Token
from cardwright.resources.common.route import Shape
from cardwright.resources.controls import auth_controls, exempt_mids, velocity_controls
from cardwright.resources.controls.auth_controls import AuthControl, AuthControlCreate, AuthControlUpdate
from cardwright.resources.controls.exempt_mids import ExemptionCreate
from cardwright.resources.controls.scope import check_references
from cardwright.resources.controls.velocity_controls import VelocityControl, VelocityCreate, VelocityUpdate
from cardwright.storage import records, tables
from cardwright.storage.controls import SHADOW, control_from, load_mcc_groups, load_merchant_groups, rule_from
from cardwright.storage.database import Row

# --- Shapes: what travels on the wire ------------------------------------------------

CHANGES_MAX = 100

NAMED: dict[str, tuple[Table, str]] = {
    "velocity_controls": (tables.velocity_controls, "a velocity control"),
    "auth_controls": (tables.auth_controls, "an authorization control"),
    "exempt_mids": (tables.exempt_mids, "an exemption"),
}
"""The request fields that name controls, with the tables of the controls."""


class VelocityChanges(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Velocity controls to add, to change like an update, and to remove by token."""

    add: Annotated[tuple[VelocityCreate, ...], Meta(max_length=CHANGES_MAX)] | None = ()
    change: Annotated[tuple[VelocityUpdate, ...], Meta(max_length=CHANGES_MAX)] | None = ()
    remove: Annotated[tuple[Token, ...], Meta(max_length=CHANGES_MAX)] | None = ()


class AuthChanges(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Authorization controls to add, to change like an update, and to remove by token."""

    add: Annotated[tuple[AuthControlCreate, ...], Meta(max_length=CHANGES_MAX)] | None = ()
    change: Annotated[tuple[AuthControlUpdate, ...], Meta(max_length=CHANGES_MAX)] | None = ()
    remove: Annotated[tuple[Token, ...], Meta(max_length=CHANGES_MAX)] | None = ()


class ExemptionChanges(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Exemptions to add, and to remove by token. An exemption has no other changes."""

    add: Annotated[tuple[ExemptionCreate, ...], Meta(max_length=CHANGES_MAX)] | None = ()
    remove: Annotated[tuple[Token, ...], Meta(max_length=CHANGES_MAX)] | None = ()


# --- Rules: pure ---------------------------------------------------------------------


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Put ``place`` before the field name of an INVALID_INPUT problem that the block raises."""
    try:
        yield
    except Problem as problem:
        if problem.kind is INVALID_INPUT:
            raise Problem(INVALID_INPUT, f"{place}.{problem.detail}") from None
        raise


def alone(field: str, change: Change[C]) -> Change[C]:
    """Return the change. Raises a problem if it names a control twice."""
    named = [*change.removed, *(control.id for control in change.replaced)]
    if len(set(named)) < len(named):
        raise bad_field(field, "may name each control only once")
    return change


# --- Queries: this resource's SQL ----------------------------------------------------


class ChangedControls:
    """The changes of a request as decisions use them.

    MCC groups and merchant groups are the current ones. A new velocity control counts from ``start``.
    """

    def __init__(self, call: Call, start: Instant) -> None:
        self._call, self._start = call, start
        self._groups = Groups(load_mcc_groups(call.db, call.program.id), {})

    def velocity(self, changes: VelocityChanges) -> Change[Control]:
        """Return the change of velocity controls. Raises a problem that names the field."""
        return self._change("velocity_controls", changes, changes.change or (), self._new_velocity, self._changed_velocity)

    def auth(self, changes: AuthChanges) -> Change[MerchantRule]:
        """Return the change of authorization controls. Raises a problem that names the field."""
        return self._change("auth_controls", changes, changes.change or (), self._new_auth, self._changed_auth)

    def exempt(self, changes: ExemptionChanges) -> Change[MerchantRule]:
        """Return the change of exemptions. Raises a problem that names the field."""
        return self._change("exempt_mids", changes, (), self._new_exemption, self._changed_auth)

    def _change(
        self, field: str, changes: VelocityChanges | AuthChanges | ExemptionChanges, updates: Sequence[Any],
        new: Callable[[int, Any, str], C], changed: Callable[[Row, Any], C],
    ) -> Change[C]:  # fmt: skip
        added, replaced, always = list[C](), list[C](), list[int]()
        bodies: Sequence[Any] = changes.add or ()
        for number, body in enumerate(bodies):
            with naming(f"{field}.add[{number}]"):
                added.append(new(-1 - number, body, body.token or f"added {number + 1}"))
        removed = [self._find(field, token, f"{field}.remove[{number}]").id for number, token in enumerate(changes.remove or ())]
        for number, update in enumerate(updates):
            place = f"{field}.change[{number}]"
            if update.token is None:
                raise bad_field(f"{place}.token", "may not be null")
            row = self._find(field, update.token, f"{place}.token")
            with naming(place):
                control = changed(row, update)
            if update.active is False:
                removed.append(row.id)
                continue
            replaced.append(control)
            always += [row.id] if update.active else []
        change = Change(replaced=tuple(replaced), always=tuple(always), removed=tuple(removed), added=tuple(added))
        return alone(field, change)

    def _find(self, field: str, token: str, place: str) -> Row:
        table, name = NAMED[field]
        row = records.find(self._call.db, table, self._call.program.id, token)
        if row is None or (table is tables.velocity_controls and row.shadow == SHADOW):
            raise bad_field(place, f"is not the token of {name}")
        return row

    def _new_velocity(self, control_id: int, body: VelocityCreate, token: str) -> Control:
        return self._velocity(control_id, velocity_controls.control_of(body, token), self._start)

    def _changed_velocity(self, row: Row, update: VelocityUpdate) -> Control:
        before = msgspec.json.decode(row.doc, type=VelocityControl)
        return self._velocity(row.id, velocity_controls.changed(before, update), row.created_ms)

    def _velocity(self, control_id: int, control: VelocityControl, since: Instant) -> Control:
        velocity_controls.checked(control)
        check_references(self._call, control.association, control.merchant_scope)
        return control_from(control_id, velocity_controls.fact_of(control, since), self._groups)

    def _new_auth(self, control_id: int, body: AuthControlCreate, token: str) -> MerchantRule:
        return self._auth(control_id, auth_controls.control_of(body, token))

    def _changed_auth(self, row: Row, update: AuthControlUpdate) -> MerchantRule:
        return self._auth(row.id, auth_controls.changed(msgspec.json.decode(row.doc, type=AuthControl), update))

    def _auth(self, control_id: int, control: AuthControl) -> MerchantRule:
        check_references(self._call, control.association, control.merchant_scope)
        return self._rule(control_id, auth_controls.fact_of(control))

    def _new_exemption(self, exemption_id: int, body: ExemptionCreate, token: str) -> MerchantRule:
        exemption = exempt_mids.exemption_of(body, token, self._call.now)
        exempt_mids.check_place(self._call, exemption)
        return self._rule(exemption_id, exempt_mids.fact_of(exemption))

    def _rule(self, rule_id: int, fact: str) -> MerchantRule:
        rule = rule_from(rule_id, fact)
        named = [] if rule.merchant_group is None else [rule.merchant_group]
        load_merchant_groups(self._call.db, self._call.program.id, self._groups, named)
        return resolved_rule(rule, self._groups)
