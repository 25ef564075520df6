"""One run of the command line: the order of its work.

Parse, wait for its turn, make the group, start the command; whatever is heavy comes after that. A short look lets a command that is
already done be reported without trio at all.
"""

from __future__ import annotations

import sys
import time

from memrun import errors, hand, signals
from memrun.job import Attempt, Site
from memrun.options import Spec, parse
from memrun.telling import Teller, die_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from memrun.cgroup import Host
    from memrun.cron.turn import Lock
    from memrun.record import Record
    from memrun.strangers import Strangers
    from memrun.vigil import Vigil

SHORT_LOOK = 0.03  # seconds: most trivial commands are done by then; importing vigil takes 4 ms, and trio 160


def one_shot(words: list[str], mask: frozenset[int]) -> int:
    """OPTIONS -- COMMAND."""
    spec = parse(words)
    if not spec.command:
        raise errors.UsageError("no command was given", "Try: memrun --limit 500M -- COMMAND")
    spec.mask = mask
    if spec.best_effort:
        from memrun import adoption

        status = adoption.enter(spec)
        if status >= 0:
            return status
    return _told(spec, lambda teller: _in_turn(spec, teller))


def _told(spec: Spec, run: Callable[[Teller], Record]) -> int:
    """What became of it is said where the run wants it said, by `run` itself (Teller.conclude). What fails after that changes nothing."""
    teller = Teller(spec)
    try:
        record = run(teller)
    except (errors.MemrunError, OSError) as e:
        if teller.concluded is None:
            if isinstance(e, OSError):
                raise
            return _complained(teller, e)
        record = teller.concluded
        teller.remark(f"tidying up: {errors.refused(e) if isinstance(e, OSError) else e}")
    finally:
        teller.close()
    if record.signal == signals.INT and record.result == "signal":
        die_of(signals.INT)
    return record.status


def _complained(teller: Teller, e: errors.MemrunError) -> int:
    teller.complain(e)
    if isinstance(e, errors.StoppedError) and e.signal == signals.INT:
        die_of(signals.INT)
    return e.status


def _in_turn(spec: Spec, teller: Teller) -> Record:
    try:
        lock = _take_turn(spec)
        try:
            locks = () if lock is None else (lock.fd,)
            if "name" in spec.asked:
                return _claimed(spec, lambda: _live(spec, teller, locks))
            return _live(spec, teller, locks)
        finally:
            if lock is not None:
                lock.release()
    except (errors.LaunchError, errors.LimitError, errors.NoCgroupError, errors.StoppedError) as e:
        if teller.concluded is not None:
            raise
        teller.not_started(e)
        if spec.on_event and not isinstance(e, errors.StoppedError):
            from memrun import company

            company.tell_unstarted(spec, e, teller)
        raise


def _take_turn(spec: Spec) -> Lock | None:
    """Wait until it may begin."""
    if spec.lock is None and not spec.jitter:
        return None
    from memrun.cron import turn

    return turn.take(spec.jitter, None if spec.lock is None else spec.lock or spec.name, spec.lock_wait)


def _claimed(spec: Spec, live: Callable[[], Record]) -> Record:
    """Nobody else who asks for it has this name meanwhile, as far as that can be; JobNameError where it was asked for and is taken."""
    from memrun.names import Claim

    claim = Claim(spec.name, insist="name" in spec.asked)
    try:
        return live()
    finally:
        claim.release()


def _live(spec: Spec, teller: Teller, locks: tuple[int, ...]) -> Record:
    site = Site(locks, host=_in_place_of_groups(spec, teller) if spec.adopted else None)
    try:
        if "name" in spec.asked:  # else there is no file yet, and the command comes first
            _name_files(site, spec, teller)
        if site.unprotected(spec):
            _load_all()
        attempt = Attempt(site, spec, guarded=True)
        try:
            return _attend(attempt, teller)
        except BaseException:
            attempt.abandon()  # unless it is over: nothing of it is left to itself, nor its guard, which would keep the hand waiting
            raise
    finally:
        site.close()


def _attend(attempt: Attempt, teller: Teller) -> Record:
    """The command runs: until it is over, and told of."""
    spec = attempt.spec
    teller.started(attempt.group.limit)
    if spec.verbose:
        teller.remark(f"its group is {attempt.group.path}, {attempt.site.host.way}")
    done = _already_done(attempt, spec)
    if not done and "name" not in spec.asked:
        _name_files(attempt.site, spec, teller)
    vigil = None if done else _load(attempt, teller)
    if done:  # else the event loop does that, when it listens
        attempt.relieve()
        return teller.conclude(attempt.finish(""))
    if "name" in spec.asked:
        return teller.conclude(_wait(attempt, teller, vigil))
    # A name of nobody's choice can wait, and mostly need not be claimed.
    return _claimed(spec, lambda: teller.conclude(_wait(attempt, teller, vigil)))


def _name_files(site: Site, spec: Spec, teller: Teller) -> None:
    """Tell the hand which files would stay if memrun were killed."""
    from memrun.names import traces

    site.hand.tell_of_files(traces(spec.name, 0, spec.report, teller.who))


def _load(attempt: Attempt, teller: Teller) -> Vigil | None:
    """The command runs by now: whoever is to wait for it is loaded. None: an event loop is."""
    spec = attempt.spec
    grows = spec.on_oom == "pause" and spec.grow > 1
    acts = grows or spec.at or spec.pressure or spec.on_event or spec.events
    if not (acts or spec.adopted or attempt.site.unprotected(spec)):
        from memrun.vigil import Vigil

        return Vigil(attempt, teller)
    _load_all()
    return None


def _load_all() -> None:
    import trio  # noqa: F401

    from memrun import company  # noqa: F401


def _wait(attempt: Attempt, teller: Teller, vigil: Vigil | None) -> Record:
    record = None if vigil is None else vigil.keep()
    if record is not None:
        return record
    from memrun.company import supervise

    return supervise(attempt, teller, vigil)


def _in_place_of_groups(spec: Spec, teller: Teller) -> Host:
    from memrun import adoption

    return adoption.host(spec, teller.say)


def _already_done(attempt: Attempt, spec: Spec) -> bool:
    """A short look: whether the command has ended, nothing is left of it, and it is not to be started again. Cut short when it is
    out of memory, for then there may be something to do."""
    if spec.on_oom == "restart" or spec.restart != "no" or spec.at or spec.on_event or spec.events:
        return False
    import select  # the command runs: what its end needs is loaded beside it, the rest of it by `history`

    from memrun import history, interference, record  # noqa: F401

    child, group = attempt.child, attempt.group
    listens = spec.on_oom == "kill"  # who is to be held has a guard, whose news is left alone
    look, until = select.poll(), time.monotonic() + SHORT_LOOK
    look.register(child.pidfd, select.POLLIN)
    if listens:
        look.register(group.notice_fd(), select.POLLIN)
    while child.reap() is None:
        left = until - time.monotonic()
        if left <= 0 or (listens and ((heard := interference.hear(group)) is None or heard.own)):
            return False
        look.poll(left * 1000 + 1)
    return not group.pids()


def attach(words: list[str]) -> int:
    """memrun attach OPTIONS PID...: everything is loaded first, because these processes run already."""
    import trio  # noqa: F401

    from memrun import attach, company, strangers  # noqa: F401

    if "--help" in words or "-h" in words:
        sys.stdout.write(attach.USAGE)
        return errors.SUCCESS
    spec, pids = attach.parse(words)
    found = strangers.find(pids)
    try:
        attach.introduce(spec, found)
        return _told(spec, lambda teller: _claimed(spec, lambda: _borrow(spec, teller, found)))
    finally:
        found.close()


def _borrow(spec: Spec, teller: Teller, found: Strangers) -> Record:
    from memrun import company
    from memrun.attach import Attachment

    site = Site(script=hand.LET_GO)
    try:
        _name_files(site, spec, teller)
        stay = Attachment(site, spec, found)
        teller.started(stay.group.limit)
        teller.say(stay.account)
        return teller.conclude(company.supervise(stay, teller))
    finally:
        site.close()
