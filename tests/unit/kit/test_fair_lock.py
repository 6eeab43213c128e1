"""Fair lock: it serves threads in the order of their requests, exclusive and shared."""

import threading
import time

from cardwright.kit.fair_lock import FairLock


def test_waiters_come_before_a_returning_holder() -> None:
    """A holder that releases the lock and requests it again is served after all waiting threads, which keep their order."""
    lock, served = FairLock(), list[str]()

    def wait_for_it(name: str) -> None:
        with lock:
            served.append(name)

    lock.acquire()
    threads = []
    for number in range(5):
        threads.append(threading.Thread(target=wait_for_it, args=(f"waiter {number}",)))
        threads[-1].start()
        while len(lock._waiting) <= number:
            time.sleep(0.001)
    assert not lock.share(0)
    lock.release()
    wait_for_it("holder")
    for thread in threads:
        thread.join()
    assert served == [*(f"waiter {number}" for number in range(5)), "holder"]


def test_never_two_at_once() -> None:
    """Eight threads that increase a counter under the lock lose no update."""
    lock, counted = FairLock(), [0]

    def count() -> None:
        for _ in range(500):
            with lock:
                before = counted[0]
                time.sleep(0)
                counted[0] = before + 1

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counted == [4000]
    assert lock.share(0)


def test_shared_by_many_and_not_past_one_who_wants_it_alone() -> None:
    """An exclusive request waits for all shares, and later requests for a share wait for the exclusive one."""
    lock, served = FairLock(), list[str]()

    def alone() -> None:
        with lock:
            served.append("alone")

    def together() -> None:
        lock.share()
        served.append("together")
        lock.unshare()

    assert lock.share(0)
    assert lock.share(0)
    threads = []
    for number, wait in enumerate((alone, together, together)):
        threads.append(threading.Thread(target=wait))
        threads[-1].start()
        while len(lock._waiting) <= number:
            time.sleep(0.001)
    assert not lock.share(0)
    lock.unshare()
    assert served == []
    lock.unshare()
    for thread in threads:
        thread.join()
    assert served == ["alone", "together", "together"]


def test_a_wait_has_an_end() -> None:
    """A request that times out leaves the queue, and the requests behind it are served."""
    lock = FairLock()
    assert lock.acquire()
    assert not lock.acquire(0.01)
    assert not lock.share(0.01)
    lock.release()
    assert lock.share(0)
    # An exclusive request blocks later requests for a share until it times out.
    impatient = threading.Thread(target=lock.acquire, args=(0.2,))
    impatient.start()
    while not lock._waiting:
        time.sleep(0.001)
    assert not lock.share(0)
    assert lock.share(60)
    impatient.join()
    lock.unshare()
    lock.unshare()
    assert lock.acquire(0)
