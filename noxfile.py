"""What `make` runs. One session, one job; each says what it installs."""

import os
import sys
import tempfile
import zipfile
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "uv"
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = True  # else a Python that was skipped passes for a green one
nox.options.sessions = ["check", "test"]

NEWEST = "3.3.2"
# What is run on many machines: one with the task state store, one without.
DISTRIBUTED = ["3.1.8", NEWEST]
# With the day when what was current fitted it.
AIRFLOWS = {
    "2.11.2": "2026-03-25",
    "3.0.6": "2025-09-08",
    "3.1.8": "2026-03-21",
    "3.2.2": "2026-06-08",
    NEWEST: "2026-09-27",
}
# Providers whose releases serve older Airflows too. That of Celery, as Airflow 3.1 came with it, has workers
# that take tasks and never run them: https://github.com/apache/airflow/issues/59707.
AS_NEW_AS_CAN_BE = ("apache-airflow-providers-celery", "apache-airflow-providers-common-compat")
PYTHONS = ["3.11", "3.12", "3.13"]
# The newest Python that these run on; the others run on all of ours.
NEWEST_PYTHON = {"2.11.2": "3.12", "3.0.6": "3.12"}

# Five processes on two processors, since many tests wait. Each has an Airflow home of its own.
SIDE_BY_SIDE = ("--numprocesses", "5", "--dist", "worksteal", "--quiet")
LONGEST = ("--durations", "15")
TWO_FILES_AT_A_TIME = ("--numprocesses", "2", "--dist", "loadfile", *LONGEST)
# Measured on the newest Airflow: an older one runs neither the credits page nor the task state store.
COVERAGE = ("--cov", "--cov-report=term:skip-covered", "--cov-fail-under=96")

DOCS_PINS = "constraints/docs.txt"

# Airflow has a thousand modules; without their compiled form each start takes seconds longer.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pythons(airflow: str) -> list[str]:
    """Return the Pythons, oldest first, that a release of Airflow runs on."""
    return PYTHONS[: PYTHONS.index(NEWEST_PYTHON.get(airflow, PYTHONS[-1])) + 1]


def python_for(airflow: str) -> str | None:
    """Return the Python to run a release of Airflow on; None is the one that runs nox."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    return None if here in pythons(airflow) else pythons(airflow)[-1]


def pins(airflow: str) -> str:
    return f"constraints/airflow-{airflow}.txt"


def install(session: nox.Session, airflow: str, *packages: str) -> None:
    session.log(f"Installing Airflow {airflow}: about a minute the first time, a second after that.")
    pinned = ("--constraint", pins(airflow), f"apache-airflow=={airflow}")
    session.install("--quiet", "--compile-bytecode", *pinned, *packages)


@nox.session
@nox.parametrize("python, airflow", [(python_for(airflow), airflow) for airflow in AIRFLOWS], ids=AIRFLOWS)
def test(session: nox.Session, airflow: str) -> None:
    """Run the fast tests on one release of Airflow; all of them with --all, which comes first."""
    install(session, airflow, "-e", ".[dev]")
    all_of_them, arguments = session.posargs[:1] == ["--all"], session.posargs
    if not all_of_them:
        # To start five takes longer than to run a few tests.
        a_part = any(Path(argument.partition("::")[0]).exists() for argument in arguments)
        side_by_side = () if a_part else SIDE_BY_SIDE
        session.run("python", "-m", "pytest", *side_by_side, "-m", "not slow", *arguments)
    elif arguments[1:]:
        session.run("python", "-m", "pytest", *arguments[1:])
    else:
        more = ("--hypothesis-profile", "all", *(COVERAGE if airflow == NEWEST else ()))
        session.run("python", "-m", "pytest", *SIDE_BY_SIDE, "-m", "not slow", *more)
        # What they start is not measured.
        session.run("python", "-m", "pytest", *TWO_FILES_AT_A_TIME, "-m", "slow and not alone")
        session.run("python", "-m", "pytest", *LONGEST, "-m", "alone")


@nox.session
@nox.parametrize("python", PYTHONS, ids=PYTHONS)
def test_pythons(session: nox.Session) -> None:
    """Run the fast tests on each Python: about three minutes for each."""
    install(session, NEWEST, "-e", ".[dev]")
    session.run("python", "-m", "pytest", *SIDE_BY_SIDE, "-m", "not slow", *session.posargs)


@nox.session
def fab(session: nox.Session) -> None:
    """Test who sees the credits page with the auth manager of Flask-AppBuilder: about two minutes."""
    install(session, NEWEST, "-e", ".[fab]")
    session.run("python", "-m", "pytest", "tests/real_airflow/test_credits_page_fab.py", *session.posargs)


@nox.session
@nox.parametrize(
    "python, airflow", [(python_for(airflow), airflow) for airflow in DISTRIBUTED], ids=DISTRIBUTED
)
def distributed(session: nox.Session, airflow: str) -> None:
    """Top up on many machines, and kill what can be killed in between: about five minutes."""
    install(session, airflow, "-e", ".[distributed]")
    session.run("python", "-m", "pytest", "tests/distributed", *session.posargs)


@nox.session
@nox.parametrize("python, airflow", [(python_for(airflow), airflow) for airflow in AIRFLOWS], ids=AIRFLOWS)
def faults(session: nox.Session, airflow: str) -> None:
    """Let top-ups fail, die and freeze in every way, and count the charges: about ten minutes."""
    install(session, airflow, "-e", ".[dev]")
    session.run("python", "-m", "tests.faults", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Try unlikely inputs on everything that reads responses: about ten minutes."""
    install(session, NEWEST, "-e", ".[dev]")
    try:
        install(session, NEWEST, "-e", ".[fuzz]")
    except CommandFailed:
        session.warn("atheris cannot be installed here: going on without coverage-guided fuzzing.")
    session.run("python", "-m", "tests.fuzz", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure what this provider costs, beside its peers: about half an hour."""
    install(session, NEWEST, "-e", ".[bench]")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Top up in the sandbox with the weekly example Dag."""
    install(session, NEWEST, "-e", ".[sandbox]")
    session.run("python", "demo/run.py")


@nox.session
def ui(session: nox.Session) -> None:
    """Serve Airflow's UI with the credits page, and a sandbox with three accounts, until Ctrl-C."""
    install(session, NEWEST, "-e", ".[sandbox]")
    # Nox would kill it a third of a second after Ctrl-C, and leave the Airflow that it ends.
    session.run("python", "demo/ui.py", interrupt_timeout=60.0, terminate_timeout=60.0)


@nox.session
def check(session: nox.Session) -> None:
    """Lint, types, and what the built package holds."""
    install(session, NEWEST, "-e", ".[dev]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("zizmor", "--quiet", "--offline", "--strict-collection", "--min-severity=medium", ".github")
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        built = build(session, first)
        session.run("twine", "check", "--strict", *map(str, built))
        check_contents(session, next(path for path in built if path.suffix == ".whl"))
        again = build(session, second)
        if [path.read_bytes() for path in built] != [path.read_bytes() for path in again]:
            session.error("two builds of the same tree differ")
        session.log("Wheel and sdist are the same, byte for byte, when they are built again.")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into build/docs; a warning fails it."""
    session.install("--quiet", "--constraint", DOCS_PINS, "mkdocs-material", "mkdocstrings[python]")
    session.run("mkdocs", "build", "--quiet", "--strict", env={"NO_MKDOCS_2_WARNING": "1"})
    session.log("Open build/docs/index.html.")


@nox.session
def dist(session: nox.Session) -> None:
    """Build wheel and sdist into dist/."""
    install(session, NEWEST, "-e", ".[dev]")
    build(session, "dist")


def build(session: nox.Session, folder: str) -> list[Path]:
    """Build the sdist, and the wheel from it, with the builder that the constraints name."""
    session.run("uv", "build", "--quiet", "--build-constraint", pins(NEWEST), "--out-dir", folder)
    return sorted(path for path in Path(folder).iterdir() if path.suffix in (".gz", ".whl"))


def check_contents(session: nox.Session, wheel: Path) -> None:
    """Fail unless the wheel holds the package, all of it, and nothing else."""
    expected = {
        str(path)
        for path in Path("airflow_provider_cfbilling").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    if packed != expected:
        session.error(f"the wheel lacks {expected - packed} and has too much: {packed - expected}")
    session.log(f"{wheel.name} holds {len(packed)} files: the package and nothing else.")


@nox.session
@nox.parametrize("python, airflow", [(python_for(airflow), airflow) for airflow in AIRFLOWS], ids=AIRFLOWS)
def footprint(session: nox.Session, airflow: str) -> None:
    """Install the built wheel beside a bare Airflow: it adds nothing else, and Airflow finds all of it."""
    install(session, airflow)
    session.run("uv", "pip", "uninstall", "--quiet", "airflow-provider-cfbilling")
    before = frozen(session)
    with tempfile.TemporaryDirectory() as folder:
        *_, wheel = build(session, folder)
        install(session, airflow, str(wheel))
        # Not from here: the package's source would be found in place of what is installed.
        session.run("python", "-P", "tests/installed.py", env={"AIRFLOW_HOME": folder})
    added = frozen(session) - before
    if {line.split("==")[0].split(" @ ")[0] for line in added} != {"airflow-provider-cfbilling"}:
        session.error(f"installing this package also changed {added}")
    session.log(f"Beside Airflow {airflow} ({len(before)} packages) it adds itself and no other package.")


def frozen(session: nox.Session) -> set[str]:
    listed = session.run("uv", "pip", "freeze", "--quiet", silent=True)
    return set(str(listed).splitlines())


@nox.session(default=False, venv_backend="none")
def renew_pins(session: nox.Session) -> None:
    """Write constraints/ again, as plain name==version lines.

    What Airflow itself needs is as new as the Airflow is: later releases of its parts break it. All else is
    the newest.
    """
    with tempfile.TemporaryDirectory() as folder:
        wanted, pinned = Path(folder, "wanted.in"), Path(folder, "pinned.txt")

        def compiled(python: str, *arguments: str) -> set[str]:
            listed = session.run(
                *("uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate"),
                *("--python-version", python, str(wanted), *arguments),
                silent=True,
            )
            return set(str(listed).splitlines())

        for airflow, released in AIRFLOWS.items():
            # Airflow's executor for many machines breaks with later parts as Airflow does.
            wanted.write_text(f"apache-airflow{'[celery]' if airflow in DISTRIBUTED else ''}=={airflow}")
            lines = compiled(PYTHONS[0], "--exclude-newer", released)
            lines = {line for line in lines if not line.startswith(AS_NEW_AS_CAN_BE)}
            for python in pythons(airflow):
                # A newer Python keeps what an older one chose, so that one file serves them all.
                pinned.write_text("\n".join(lines))
                extras = ["--extra", "dev"]
                if airflow in DISTRIBUTED:
                    extras += ["--extra", "distributed"]
                if airflow == NEWEST:
                    extras += ["--extra", "bench", "--extra", "fab", "--extra", "fuzz"]
                lines |= compiled(python, "--constraint", str(pinned), *extras, "pyproject.toml")
            Path(pins(airflow)).write_text("\n".join(sorted(lines)) + "\n")
        wanted.write_text("mkdocs-material\nmkdocstrings[python]")
        Path(DOCS_PINS).write_text("\n".join(sorted(compiled(PYTHONS[0]))) + "\n")
