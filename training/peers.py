"""Processes started by hand (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT): one that ends with an error ends the others
with its reason, within seconds. torchrun watches its processes itself.

Rank 0 serves a store. In each process a thread looks for a reason there, over a connection of its own, so a peer that
waits in a collective, or for the others to come, hears of it as well. Nobody leaves before all have heard: a closed
connection would otherwise be their first news.
"""
import os
import sys
import threading
import time
from datetime import timedelta

import torch.distributed as dist

SECONDS = 5  # that a process which ends waits for the others to hear why
START = 60    # if it ends before they have met: they may still be importing torch
_peers = None


class Peers:
    """The connections of this process to the store. RuntimeError (torch's DistError) if rank 0 is not there."""

    def __init__(self, timeout: timedelta):
        self.rank, self.world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), self.world_size
        self.store = dist.TCPStore(*place, self.rank == 0, timeout, wait_for_workers=False)
        self.line = dist.TCPStore(*place, False, timeout, wait_for_workers=False)
        self.ends, self.parted = threading.Lock(), threading.Event()
        self.thread = threading.Thread(target=self._listen, daemon=True)

    def _listen(self):
        """End this process as soon as another one has left a reason."""
        try:
            while not self.line.check(["reason"]):
                if self.parted.wait(0.2):
                    return
            reason = self.line.get("reason").decode()
        except RuntimeError:  # rank 0 has gone without one
            return
        if self.ends.acquire(blocking=False):
            print(reason, file=sys.stderr, flush=True)
            self._leave(SECONDS)

    def end(self, reason: str, seconds: float):
        """End this process, and leave the reason for the others unless one of them was first."""
        if not self.ends.acquire(blocking=False):
            time.sleep(10 * SECONDS)  # the thread is ending it
        try:
            self.line.compare_set("reason", "", f"rank {self.rank} ended this run: {reason}")
        except RuntimeError:
            pass
        self._leave(seconds)

    def _leave(self, seconds):
        self.wait_for_all("ended", seconds)
        self.wait_for_all("gone", 2 if self.rank == 0 else 0)  # with it goes the store, of which torch would complain
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:  # a pipe may be closed
            os._exit(1)

    def wait_for_all(self, key: str, seconds: float):
        """Until all processes have come here, or rank 0 has gone, at most so long."""
        deadline = time.monotonic() + seconds
        try:
            count = self.line.add(key, 1)
            while count < self.world_size and time.monotonic() < deadline:
                time.sleep(0.05)
                count = self.line.add(key, 0)
        except RuntimeError:
            pass


def started_by_hand() -> bool:
    env = os.environ
    return ("TORCHELASTIC_RUN_ID" not in env and env.get("WORLD_SIZE", "1") != "1"
            and {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= set(env))


def init_process_group(backend: str, timeout: timedelta):
    """As torch's; processes started by hand watch each other from now on, until `part`."""
    global _peers
    if not started_by_hand():
        dist.init_process_group(backend, timeout=timeout)
        return
    peers = _peers = Peers(timeout)
    peers.thread.start()
    dist.init_process_group(backend, timeout=timeout, store=peers.store, rank=peers.rank, world_size=peers.world_size)
    show = sys.excepthook  # torch's, which names the rank

    def hook(kind, error, traceback):
        if not peers.ends.locked():  # else the reason that a peer has left is the one to print
            show(kind, error, traceback)
        if _peers:
            end(f"{kind.__name__}: {error}")

    sys.excepthook = hook


def part():
    """The regular end: nobody watches any more. Rank 0 stays until all have come here."""
    global _peers
    if _peers:
        _peers.parted.set()
        _peers.thread.join()
        _peers.wait_for_all("parted", SECONDS if _peers.rank == 0 else 0)
        _peers = None


def end(reason: str):
    """End this process, and with it its peers, which print the reason. Does nothing but under started_by_hand."""
    if _peers:
        _peers.end(reason, SECONDS)
    if started_by_hand() and not dist.is_initialized():
        try:
            Peers(timedelta(seconds=START)).end(reason, START)
        except (RuntimeError, ValueError):  # no rank 0 there, or no port
            pass
