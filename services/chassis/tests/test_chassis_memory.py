import sys

import psutil
import pytest

from services.chassis import release_free_memory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc_trim")
def test_what_a_burst_freed_goes_back_to_the_system():
    burst = [bytes(4_000) for _ in range(20_000)]  # blocks of the heap, not maps of their own
    high = psutil.Process().memory_info().rss
    last = burst.pop()  # the newest block stays, and would hold the heap's top
    del burst
    release_free_memory()
    assert high - psutil.Process().memory_info().rss > 60_000_000
    assert last is not None
