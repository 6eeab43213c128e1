"""The gate is handed on in the order of asking."""

import threading
import time

from cardwright.kit.fair_lock import Gate


def test_those_who_wait_come_before_the_one_who_comes_back() -> None:
    """A holder that releases and asks again is served after everybody who waited meanwhile, in their order."""
    gate, served = Gate(), list[str]()

    def wait_for_it(name: str) -> None:
        with gate:
            served.append(name)

    gate.acquire()
    threads = []
    for number in range(5):
        threads.append(threading.Thread(target=wait_for_it, args=(f"waiter {number}",)))
        threads[-1].start()
        while len(gate._waiting) <= number:
            time.sleep(0.001)
    assert not gate.share(0)
    gate.release()
    wait_for_it("holder")
    for thread in threads:
        thread.join()
    assert served == [*(f"waiter {number}" for number in range(5)), "holder"]


def test_never_two_at_once() -> None:
    """Many threads that raise a counter under the gate lose no count."""
    gate, counted = Gate(), [0]

    def count() -> None:
        for _ in range(500):
            with gate:
                before = counted[0]
                time.sleep(0)
                counted[0] = before + 1

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counted == [4000]
    assert gate.share(0)


def test_shared_by_many_and_not_past_one_who_wants_it_alone() -> None:
    """Several share it; who wants it alone waits for all of them, and those who come after him to share it wait for him."""
    gate, served = Gate(), list[str]()

    def alone() -> None:
        with gate:
            served.append("alone")

    def together() -> None:
        gate.share()
        served.append("together")
        gate.unshare()

    assert gate.share(0)
    assert gate.share(0)
    threads = []
    for number, wait in enumerate((alone, together, together)):
        threads.append(threading.Thread(target=wait))
        threads[-1].start()
        while len(gate._waiting) <= number:
            time.sleep(0.001)
    assert not gate.share(0)
    gate.unshare()
    assert served == []
    gate.unshare()
    for thread in threads:
        thread.join()
    assert served == ["alone", "together", "together"]


def test_a_wait_has_an_end() -> None:
    """A thread that gives up leaves the queue: it gets no turn later, and those behind it get theirs."""
    gate = Gate()
    assert gate.acquire()
    assert not gate.acquire(0.01)
    assert not gate.share(0.01)
    gate.release()
    assert gate.share(0)
    # One that waits alone keeps those behind it out, also from sharing, until it gives up.
    impatient = threading.Thread(target=gate.acquire, args=(0.2,))
    impatient.start()
    while not gate._waiting:
        time.sleep(0.001)
    assert not gate.share(0)
    assert gate.share(60)
    impatient.join()
    gate.unshare()
    gate.unshare()
    assert gate.acquire(0)
