"""Clocks go on from the freeze: neither back, nor forward by the time for which the instance was no more."""
from kind import *

CLOCKS = {"monotonic": time.CLOCK_MONOTONIC, "boottime": time.CLOCK_BOOTTIME, "raw": time.CLOCK_MONOTONIC_RAW,
          "coarse": 6}


def test():
    last = {name: time.clock_gettime(c) for name, c in CLOCKS.items()}
    worst = dict.fromkeys(CLOCKS, 0.0)
    wall = time.time()
    cpu = time.process_time()
    with open("/proc/uptime") as f:
        uptime = float(f.read().split()[0])
    start = dict(last)
    ready()
    while not there("GO"):
        time.sleep(0.005)
        for name, c in CLOCKS.items():
            now = time.clock_gettime(c)
            check(now >= last[name], f"{name} goes back from {last[name]} to {now}")
            worst[name] = max(worst[name], now - last[name])
            last[name] = now
    for name, jump in worst.items():
        check(jump < 1.0, f"{name} jumps by {jump:.3f} s")
    passed = {name: last[name] - start[name] for name in CLOCKS}
    within("boottime against monotonic", passed["boottime"] - passed["monotonic"], -0.1, 0.1)
    check(time.time() - wall >= passed["monotonic"] - 0.1, "wall clock behind")
    with open("/proc/uptime") as f:
        up = float(f.read().split()[0])
    within("uptime", up - uptime, passed["boottime"] - 0.2, passed["boottime"] + 0.2)
    check(time.process_time() - cpu < 10, "processor time")


main(test)
