"""Whether a load has room, and who would have to go for it: arithmetic over stays, no decisions
are carried out here.

Memory counts as taken from the moment a load is committed until its worker is told to stop. (That
the bytes are really free is waited for before the worker starts, see ``Scheduler``.) What a worker
has that does not stop counts until it is gone: others must not wait for it who could do without.

Older wishes for memory come first. What an older one is going to free and to take is a
*reservation*: a younger load may go ahead only if it fits both now and after that, so it can never
push the older one back, and never has to wait for it either if there is room for both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from ollama_async.queue.plan import Limits, Plan
from ollama_async.queue.stay import Phase, Stay


class _Ledger:
    """Bytes per device and number of models."""

    def __init__(self, stays: Iterable[Stay]) -> None:
        self.bytes: Counter[str] = Counter()
        self.models = 0
        for stay in stays:
            self.add(stay.plan)

    def add(self, plan: Plan) -> None:
        self.bytes.update(plan.demand)
        self.models += 1

    def remove(self, plan: Plan) -> None:
        self.bytes.subtract(plan.demand)
        self.models -= 1

    def holds(self, plan: Plan, gone: Iterable[Stay], limits: Limits) -> bool:
        """Whether ``plan`` fits once ``gone`` are gone."""
        freed = _Ledger(gone)
        return self.models - freed.models < limits.models and all(
            self.bytes[device] - freed.bytes[device] + need <= limits.capacity.get(device, 0)
            for device, need in plan.demand.items()
        )


class Room:
    """The memory as it is committed at one moment, and as it will be after the reservations."""

    def __init__(self, limits: Limits, stays: Iterable[Stay]) -> None:
        self._limits = limits
        self._stays = [stay for stay in stays if stay.phase is not Phase.STOPPING]
        self._now = _Ledger(self._stays)
        self._later = _Ledger(self._stays)

    def victims(
        self, plan: Plan, own: Stay | None, rank: Callable[[Stay], tuple[float, ...]]
    ) -> list[Stay] | None:
        """Who has to go so that ``plan`` fits: ``own`` (the load it replaces) in any case, then the
        fewest possible in the order of ``rank``. None: older reservations leave no room.
        """
        if own is not None and own not in self._stays:
            return None
        chosen = [own] if own else []
        living = (stay for stay in self._stays if not stay.phase.is_over)
        candidates = sorted((stay for stay in living if stay is not own), key=rank)
        for stay in candidates:
            if self._fits(plan, chosen):
                break
            chosen.append(stay)
        if not self._fits(plan, chosen):
            return None
        for stay in [stay for stay in chosen if stay is not own]:
            rest = [other for other in chosen if other is not stay]
            if self._fits(plan, rest):
                chosen = rest
        return chosen

    def commit(self, plan: Plan, victims: Iterable[Stay]) -> None:
        """The victims are being stopped and the load is decided."""
        for ledger in (self._now, self._later):
            ledger.add(plan)
            for stay in victims:
                ledger.remove(stay.plan)
        self._forget(victims)

    def reserve(self, plan: Plan, victims: Iterable[Stay]) -> None:
        """The victims will go one day, and the load then takes their room."""
        self._later.add(plan)
        for stay in victims:
            self._later.remove(stay.plan)
        self._forget(victims)

    def _fits(self, plan: Plan, gone: list[Stay]) -> bool:
        return self._now.holds(plan, gone, self._limits) and self._later.holds(
            plan, gone, self._limits
        )

    def _forget(self, victims: Iterable[Stay]) -> None:
        gone = {stay.worker for stay in victims}
        self._stays = [stay for stay in self._stays if stay.worker not in gone]


def is_free(limits: Limits, stays: Iterable[Stay], plan: Plan) -> bool:
    """Whether ``plan`` fits beside every worker that exists, the stopping ones included."""
    living = (stay for stay in stays if stay.phase is not Phase.COMMITTED)
    return _Ledger(living).holds(plan, (), limits)
