"""Timeline of controls: the controls in force at each revision of a program, with a change applied to its history."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Generic, NamedTuple, TypeVar

import msgspec

from cardwright.core.spend_controls import PROGRAM_LEVEL, Level, MerchantRule, Spend, applying, by_level, level_of
from cardwright.core.velocity import Control, Window, keeping, usage_keys

C = TypeVar("C", Control, MerchantRule)

ControlVersions = Sequence[tuple[int, C | None]]
"""Versions of a control in order of time, each with its first revision; None while the control was off."""

SPANS_MAX = 20_000
"""Maximum number of cached spans."""


class Holder(NamedTuple):
    """Card in a backtest: its user, the owner of its account, and its product."""

    user_token: str
    owner_token: str
    product_token: str


class Change(msgspec.Struct, Generic[C], frozen=True, kw_only=True):
    """Change of the controls of one kind in a backtest.

    ``replaced`` controls take the place of those with their ids. They are in force at the same revisions, or at all
    revisions if the id is in ``always``. ``removed`` has the ids of removed controls, ``added`` new controls.
    """

    replaced: tuple[C, ...] = ()
    always: tuple[int, ...] = ()
    removed: tuple[int, ...] = ()
    added: tuple[C, ...] = ()


class Rules(NamedTuple):
    """Rules of one card at one revision.

    ``judging`` are the velocity controls in force, ``counting`` all versions that ever applied, each with the keys of their
    usages. ``spend`` has authorization controls and exemptions.
    """

    judging: tuple[Control, ...]
    judging_keys: list[str]
    counting: tuple[Control, ...]
    counting_keys: list[str]
    has_lifetime: bool
    spend: Spend


class Span(NamedTuple):
    """Rules of a card by revision. Each entry is valid from its revision on."""

    revisions: list[int]
    rules: list[Rules]

    def rules_at(self, revision: int) -> Rules:
        """Return the rules at a revision."""
        return self.rules[bisect_right(self.revisions, revision) - 1]


class Versions(NamedTuple):
    """All versions of the controls of a program, by id of the control."""

    velocity: Mapping[int, ControlVersions[Control]]
    auth: Mapping[int, ControlVersions[MerchantRule]]
    exempt: Mapping[int, ControlVersions[MerchantRule]]


class Timeline:
    """Rules of a program's cards from the beginning of its history, under a change.

    Every version of a velocity control counts from the beginning, in force or not: a live control without a usage counts
    history too.
    """

    def __init__(
        self, versions: Versions, velocity: Change[Control], auth: Change[MerchantRule], exempt: Change[MerchantRule]
    ) -> None:
        self._velocity, self._auth = _OverlaidControls(versions.velocity, velocity), _OverlaidControls(versions.auth, auth)
        self._exempt = _OverlaidControls(versions.exempt, exempt)
        self._spans: dict[tuple[str, bool, str], Span] = {}

    def of(self, holder: Holder) -> Span:
        """Return the rules of a card. Cards of one product share them if their users own the accounts and have no controls."""
        user, owner, product = holder
        is_own = user == owner
        matters = not is_own or any(("user", user) in kind.numbers for kind in (self._velocity, self._auth, self._exempt))
        key = (user if matters else "", is_own, product)
        if (span := self._spans.get(key)) is None:
            if len(self._spans) >= SPANS_MAX:
                self._spans.clear()
            span = self._spans[key] = self._made(holder)
        return span

    def _made(self, holder: Holder) -> Span:
        user, owner, product = holder
        histories = self._velocity.of(user, product)
        ever = {control.key: control for versions in histories for _, control in versions if control is not None}
        counting = keeping(applying(by_level(ever.values()), user, product))
        counting_keys = usage_keys(counting, user, owner)
        has_lifetime = any(control.window is Window.LIFETIME for control in counting)
        velocities = self._velocity.spans(user, product)
        auths, exempts = self._auth.spans(user, product), self._exempt.spans(user, product)
        revisions = sorted({*velocities, *auths, *exempts})
        rules, judging, auth, exempt = list[Rules](), velocities[0], auths[0], exempts[0]
        for revision in revisions:
            judging = velocities.get(revision, judging)
            auth, exempt = auths.get(revision, auth), exempts.get(revision, exempt)
            keys = usage_keys(judging, user, owner)
            rules.append(Rules(judging, keys, counting, counting_keys, has_lifetime, Spend(auth, exempt)))
        return Span(revisions, rules)


class _OverlaidControls(Generic[C]):
    """Controls of one kind after the change, the oldest first, and an index by level."""

    def __init__(self, versions: Mapping[int, ControlVersions[C]], change: Change[C]) -> None:
        replaced = {control.id: control for control in change.replaced}
        self._versions: list[ControlVersions[C]] = [
            _changed(history, replaced.get(key), always=key in change.always)
            for key, history in sorted(versions.items())
            if key not in change.removed
        ]
        self._versions += [[(0, control)] for control in change.added]
        self.numbers: dict[Level, list[int]] = {}
        for number, history in enumerate(self._versions):
            for level in {level_of(control) for _, control in history if control is not None}:
                self.numbers.setdefault(level, []).append(number)

    def of(self, user: str, product: str) -> list[ControlVersions[C]]:
        """Return the versions of the controls that were ever for a user's cards of a product."""
        levels = (("user", user), ("product", product), PROGRAM_LEVEL)
        return [
            self._versions[number] for number in sorted({number for level in levels for number in self.numbers.get(level, ())})
        ]

    def spans(self, user: str, product: str) -> dict[int, tuple[C, ...]]:
        """Return the controls of these cards by the revision that changed them, beginning with revision 0."""
        changes = [
            (revision, place, control) for place, history in enumerate(self.of(user, product)) for revision, control in history
        ]
        applicable: dict[int, tuple[C, ...]] = {0: ()}
        present: dict[int, C] = {}
        for revision, changed in groupby(sorted(changes, key=lambda control: control[0]), key=lambda control: control[0]):
            for _, place, control in changed:
                if control is None:
                    present.pop(place, None)
                else:
                    present[place] = control
            applicable[revision] = applying(by_level(present[place] for place in sorted(present)), user, product)
        return applicable


def _changed(history: ControlVersions[C], new: C | None, *, always: bool) -> ControlVersions[C]:
    if new is None:
        return history
    return [(0, new)] if always else [(revision, None if control is None else new) for revision, control in history]
