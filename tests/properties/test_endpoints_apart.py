"""Property: whatever other endpoints do, an endpoint that answers gets a post at its next claim, and each endpoint its turn."""

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from cardwright.outbox.delivery_queue import Queue, claimable
from cardwright.outbox.room import Endpoints, EndpointState

SENDS_MAX, ENDPOINT_MAX = 64, 8
GOOD = 0


def begin_posts(endpoints: Endpoints, ids: list[int]) -> Counter[int]:
    """Claim as ``claim`` does, with long queues for these endpoints, and begin the posts. Return their numbers."""
    room, counts = endpoints.room(), Counter[int]()
    for queue in claimable([Queue(-1 - number, number, 0, 0, True, False) for number in ids], room):
        if count := room.free(queue.endpoint_id):
            room.take(queue.endpoint_id, count)
            counts[queue.endpoint_id] += count
    for endpoint_id, count in counts.items():
        for _ in range(count):
            endpoints.begin(endpoint_id)
    return counts


@given(
    seed=st.integers(0, 2**32),
    dead=st.integers(0, 150),
    answering=st.integers(0, 30),
    answer_rate=st.floats(0, 1),
)
def test_no_endpoint_waits_for_another(seed: int, dead: int, answering: int, answer_rate: float) -> None:
    """A good endpoint that has answered gets a post in every turn, beside dead endpoints and 30 others that answer at times.

    No endpoint has more than its maximum of posts in progress, and silent ones never exceed their share by new posts.
    """
    drawn = random.Random(seed)
    endpoints = Endpoints(sends_max=SENDS_MAX, endpoint_max=ENDPOINT_MAX)
    others = list(range(1, 1 + answering))
    dead_ids = list(range(1_000, 1_000 + dead))
    endpoints.begin(GOOD)
    endpoints.end(GOOD, has_answered=True)
    for _ in range(20):
        before = endpoints.room()
        counts = begin_posts(endpoints, [GOOD, *others, *dead_ids])
        assert counts[GOOD] >= 1, "the good endpoint waited for others"
        for endpoint_id, posts in endpoints.posts.items():
            assert posts <= ENDPOINT_MAX
            if counts[endpoint_id] and before.record(endpoint_id).state is not EndpointState.ANSWERING:
                assert posts == 1
        after, in_progress = endpoints.room(), Counter[EndpointState]()
        for endpoint_id, posts in endpoints.posts.items():
            in_progress[after.record(endpoint_id).state] += posts
        for state in {before.record(endpoint_id).state for endpoint_id in counts} - {EndpointState.ANSWERING}:
            assert in_progress[state] <= SENDS_MAX
        for _ in range(endpoints.posts[GOOD]):
            endpoints.end(GOOD, has_answered=True)
        for endpoint_id in others:
            for _ in range(drawn.randint(0, endpoints.posts[endpoint_id])):
                endpoints.end(endpoint_id, has_answered=drawn.random() < answer_rate)
        for endpoint_id in dead_ids:
            if endpoints.posts[endpoint_id] and drawn.random() < 0.1:
                endpoints.end(endpoint_id, has_answered=False)


@given(seed=st.integers(0, 2**32), count=st.integers(1, 200))
def test_no_endpoint_is_left_out(seed: int, count: int) -> None:
    """Of silent endpoints with due rows, none gets a second post before each has had one."""
    drawn = random.Random(seed)
    endpoints = Endpoints(sends_max=SENDS_MAX, endpoint_max=ENDPOINT_MAX)
    ids, posts = list(range(count)), Counter[int]()
    for endpoint_id in drawn.sample(ids, count):
        endpoints.begin(endpoint_id)
        endpoints.end(endpoint_id, has_answered=False)
    while min(posts[endpoint_id] for endpoint_id in ids) == 0:
        assert max(posts.values(), default=0) <= 1
        posts += begin_posts(endpoints, ids)
        running = [endpoint_id for endpoint_id in ids if endpoints.posts[endpoint_id]]
        assert running
        for endpoint_id in drawn.sample(running, drawn.randint(1, len(running))):
            endpoints.end(endpoint_id, has_answered=False)
