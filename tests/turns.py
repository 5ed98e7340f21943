"""The lanes of a block, each a thread of its own, that take turns: one runs until it has to wait for others."""

from queue import SimpleQueue

WARP = 32


class Lanes:
    """A block of lanes. Of those that need not wait, the first runs on: the first forwards, or the first backwards.

    So whatever a lane must not yet have read, or must have read before, shows in one of the two orders. They turn round at
    each barrier: where all lanes store what they know, the last one is not the one that has read last.
    """

    def __init__(self, count, backwards):
        self.order = range(count)[:: -1 if backwards else 1]
        self.may_run = [SimpleQueue() for _ in self.order]  # where a lane waits for its turn
        self.where = [None] * count  # what a lane waits for; None while it may run
        self.waiting = {}  # how many lanes wait there
        self.broken = None
        self.sent = [[] for _ in self.order]

    def run(self, threads):
        """Starts these, one a lane, which call `begin` and `end`, and waits for them all."""
        for thread in threads:
            thread.start()
        self.may_run[self.order[0]].put(None)
        for thread in threads:
            thread.join()

    def begin(self, lane):
        self.may_run[lane].get()

    def end(self, lane):
        self.where[lane] = "the end"
        self.next()

    def wait(self, lane, where, count=None):
        """Until this lane's group of so many lanes, all if None, has come here; RuntimeError if some wait elsewhere."""
        count = count or len(self.where)
        group = range(lane // count * count, lane // count * count + count)
        where = (*where, group)
        self.where[lane] = where
        self.waiting[where] = self.waiting.get(where, 0) + 1
        if self.waiting[where] == count:
            del self.waiting[where]
            for other in group:
                self.where[other] = None
            if len(group) == len(self.where):
                self.order = self.order[::-1]
        self.next()
        self.may_run[lane].get()
        if self.broken:
            raise RuntimeError(self.broken)

    def shuffle(self, lane, where, value):
        """What all lanes of this lane's warp give here, and when all have: so do those of a GPU."""
        self.sent[lane].append(value)
        step = len(self.sent[lane]) - 1
        self.wait(lane, where, WARP)
        first = lane // WARP * WARP
        return [self.sent[other][step] for other in range(first, first + WARP)]

    def next(self):
        """Lets the first lane run that need not wait."""
        ready = next((lane for lane in self.order if self.where[lane] is None), None)
        if self.broken or ready is None:
            if set(self.where) != {"the end"}:
                self.broken = self.broken or f"lanes wait at different places: {sorted(set(map(str, self.where)))}"
            for turn in self.may_run:  # each finds out for itself
                turn.put(None)
        else:
            self.may_run[ready].put(None)
