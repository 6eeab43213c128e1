"""Which controls are in force at which revision of a program, when a change is laid over its history."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Generic, NamedTuple, TypeVar

import msgspec

from cardwright.core.spend_controls import PROGRAM_LEVEL, Level, MerchantRule, Spend, applying, by_level, level_of
from cardwright.core.velocity import Control, Window, keeping, usage_keys

C = TypeVar("C", Control, MerchantRule)

ControlVersions = Sequence[tuple[int, C | None]]
"""What a control said from which revision on, None while it was off, in the order of time."""

SPANS_MAX = 20_000
"""So many different kinds of holders are remembered at once."""


class Holder(NamedTuple):
    """A card as a backtest sees it: its user, the owner of the account, its product."""

    user_token: str
    owner_token: str
    product_token: str


class Change(msgspec.Struct, Generic[C], frozen=True, kw_only=True):
    """What is tried with controls of one kind: some in place of those with their ids, in force as often as those were, or
    all the time where the id is in ``always``; some that are taken away; some that are new."""

    replaced: tuple[C, ...] = ()
    always: tuple[int, ...] = ()
    removed: tuple[int, ...] = ()
    added: tuple[C, ...] = ()


class Rules(NamedTuple):
    """What a purchase of one card is measured by, and what counts its messages, with where the usages are kept; and the
    authorization controls and exemptions that it is subject to."""

    judging: tuple[Control, ...]
    judging_keys: list[str]
    counting: tuple[Control, ...]
    counting_keys: list[str]
    has_lifetime: bool
    spend: Spend


class Span(NamedTuple):
    """The rules of a card from each of these revisions on."""

    revisions: list[int]
    rules: list[Rules]

    def rules_at(self, revision: int) -> Rules:
        """The rules at a revision."""
        return self.rules[bisect_right(self.revisions, revision) - 1]


class Versions(NamedTuple):
    """Everything that the controls of a program ever said, by id."""

    velocity: Mapping[int, ControlVersions[Control]]
    auth: Mapping[int, ControlVersions[MerchantRule]]
    exempt: Mapping[int, ControlVersions[MerchantRule]]


class Timeline:
    """What the cards of a program are subject to, from the beginning of its history, under a change.

    Every version of a velocity control is counted from the beginning, whether in force or not: that is what looking back gives.
    """

    def __init__(
        self, versions: Versions, velocity: Change[Control], auth: Change[MerchantRule], exempt: Change[MerchantRule]
    ) -> None:
        self._velocity, self._auth = _OverlaidControls(versions.velocity, velocity), _OverlaidControls(versions.auth, auth)
        self._exempt = _OverlaidControls(versions.exempt, exempt)
        self._spans: dict[tuple[str, bool, str], Span] = {}

    def of(self, holder: Holder) -> Span:
        """What applies to a card; worked out once for all cards that differ in nothing that matters."""
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
    """What the controls of one kind would have said, the oldest first, and which of them are for whom."""

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
        """Those that were ever for a user's cards of a product."""
        levels = (("user", user), ("product", product), PROGRAM_LEVEL)
        return [
            self._versions[number] for number in sorted({number for level in levels for number in self.numbers.get(level, ())})
        ]

    def spans(self, user: str, product: str) -> dict[int, tuple[C, ...]]:
        """What applies to these cards, from the beginning and from each revision on that changes it."""
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
