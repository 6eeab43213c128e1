"""Room: limits of the posts in progress, so that endpoints that do not answer take none from the others."""

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple

ENDPOINTS_MAX: Final = 10_000
"""Maximum number of endpoints whose state a process remembers. The endpoint with the oldest post is new again."""


class EndpointState(IntEnum):
    """State of an endpoint after its latest post from this process. The order is that of the claims.

    ``ANSWERING`` is an answer with any status, or before the first post a recent delivery of any process. ``NEW`` is an endpoint
    without either, ``SILENT`` one that did not answer.
    """

    ANSWERING = 1
    NEW = 2
    SILENT = 3


class EndpointRecord(NamedTuple):
    """Knowledge of an endpoint: its state, and the number of its latest post, counted over all endpoints."""

    state: EndpointState
    latest_post: int


NO_RECORD: Final = EndpointRecord(EndpointState.NEW, 0)
LEARNED: Final = EndpointRecord(EndpointState.ANSWERING, 0)


@dataclass(slots=True)
class Room:
    """Room for posts beyond those in progress, ``posts`` by the id of their endpoint.

    * An endpoint that answers gets at most ``endpoint_max`` posts at once, any other endpoint one.
    * The endpoints of each state get at most ``sends_max`` posts together, so each state has a share of its own.
    * Of the share of answering endpoints, half is reserved for the first post to an endpoint. So some of them can stop answering
      with many posts in progress, and the others still get one.
    """

    records: dict[int, EndpointRecord]
    posts: Counter[int]
    sends_max: int
    endpoint_max: int
    _by_state: Counter[EndpointState] = field(default_factory=Counter)
    _further: int = 0

    def __post_init__(self) -> None:
        posts, self.posts = self.posts, Counter()
        for endpoint_id, count in posts.items():
            self.take(endpoint_id, count)

    def free(self, endpoint_id: int) -> int:
        """Return the number of posts to the endpoint that may begin."""
        state, posts = self.record(endpoint_id).state, self.posts[endpoint_id]
        share = self.sends_max - self._by_state[state]
        if state is not EndpointState.ANSWERING:
            return max(0, min(1 - posts, share))
        further = self.sends_max // 2 - self._further
        return max(0, min(self.endpoint_max - posts, share, max(0, further) + (posts == 0)))

    def take(self, endpoint_id: int, count: int) -> None:
        """Count posts to the endpoint, at least one, as in progress."""
        state = self.record(endpoint_id).state
        if state is EndpointState.ANSWERING:
            self._further += count - (self.posts[endpoint_id] == 0)
        self._by_state[state] += count
        self.posts[endpoint_id] += count

    def learn(self, endpoint_id: int) -> None:
        """Count an endpoint without a record as answering, because of a recent delivery."""
        self.records.setdefault(endpoint_id, LEARNED)

    def record(self, endpoint_id: int) -> EndpointRecord:
        """Return what is known of the endpoint. It is also the sort key of claims: the state, then the oldest latest post."""
        return self.records.get(endpoint_id, NO_RECORD)


class Endpoints:
    """Endpoints of this process: their states and their posts in progress. Only the event loop uses it."""

    def __init__(self, *, sends_max: int, endpoint_max: int) -> None:
        self._sends_max = sends_max
        self._endpoint_max = endpoint_max
        self._records: OrderedDict[int, EndpointRecord] = OrderedDict()
        self._count = 0
        self.posts: Counter[int] = Counter()

    def begin(self, endpoint_id: int, *, has_answered: bool = False) -> None:
        """Count a post as in progress. With ``has_answered`` the claim found a recent delivery."""
        self._count += 1
        self.posts[endpoint_id] += 1
        state = self._records.get(endpoint_id, LEARNED if has_answered else NO_RECORD).state
        self._put(endpoint_id, EndpointRecord(state, self._count))

    def end(self, endpoint_id: int, *, has_answered: bool) -> None:
        """Count a post as ended, and remember whether the endpoint answered."""
        self.posts[endpoint_id] -= 1
        if not self.posts[endpoint_id]:
            del self.posts[endpoint_id]
        state = EndpointState.ANSWERING if has_answered else EndpointState.SILENT
        self._put(endpoint_id, EndpointRecord(state, self._records.get(endpoint_id, NO_RECORD).latest_post))

    def room(self) -> Room:
        """Return the room for further posts, a copy that another thread may use."""
        return Room(dict(self._records), self.posts, self._sends_max, self._endpoint_max)

    def _put(self, endpoint_id: int, record: EndpointRecord) -> None:
        self._records[endpoint_id] = record
        self._records.move_to_end(endpoint_id)
        if len(self._records) > ENDPOINTS_MAX:
            self._records.popitem(last=False)
