"""`python tests/fuzz/run.py SECONDS [TARGET...]`: each target for so long. With atheris, where it is installed (it follows which branches of
the code an input takes), else with hypothesis. What fails is printed with its input; the exit status is 1 then.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent.parent.parent)]


def by_atheris(name, seconds):
    import tempfile

    import atheris

    with atheris.instrument_imports(include=["memrun"]):
        from fuzz.targets import TARGETS
    act, seeds = TARGETS[name]
    corpus = Path(tempfile.mkdtemp(prefix=f"memrun-fuzz-{name}-"))
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)
    words = [
        "fuzz",
        str(corpus),
        f"-max_total_time={seconds}",
        "-max_len=4096",
        "-verbosity=0",
        f"-artifact_prefix={corpus}/failed-",
    ]
    atheris.Setup(words, act)
    atheris.Fuzz()


def by_hypothesis(name, seconds):
    from fuzz.targets import TARGETS
    from hypothesis import HealthCheck, Phase, given, settings
    from props.test_fuzz_props import inputs

    act, seeds = TARGETS[name]
    until, number = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        number += 1
        check = settings(
            max_examples=2000,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        )(given(inputs(seeds))(act))
        check()
    sys.stdout.write(f"{number * 2000} inputs\n")


def main() -> int:
    from fuzz.targets import TARGETS

    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    try:
        import atheris  # noqa: F401

        way = by_atheris
    except ImportError:
        way = by_hypothesis
    failed = []
    for name in sys.argv[2:] or TARGETS:
        sys.stdout.write(f"{name}, for {seconds} s, {way.__name__.replace('_', ' ')}\n")
        sys.stdout.flush()
        one = multiprocessing.get_context("spawn").Process(target=way, args=(name, seconds))
        one.start()
        one.join()
        if one.exitcode:
            failed.append(name)
    sys.stdout.write(f"failed: {', '.join(failed)}\n" if failed else "nothing was found\n")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
