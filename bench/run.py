"""One run: start everything, measure, stop everything, return the figures."""

import json
import math
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from bench import boot, cast, growth, starvation, waiting
from bench.databases import POSTGRESQL, Databases, databases
from bench.figures import cpu_beyond, cpu_ratio, ratio
from bench.machine import description
from bench.peers import processes as peers
from bench.processes import SERVER_CORE, give_way, python
from bench.product import Installation, Server, build_of, serving, serving_wsgi
from bench.rounds import LEAD_IN_SECONDS, WARM_UP_SECONDS, Say, measure
from bench.targets import (
    CALLBACKS_PER_SECOND,
    LINKS_PER_SECOND,
    Target,
    introspection,
    one_query,
    one_request,
    peer_introspection,
    product_targets,
    wrong_answers,
    yardstick,
)

COMPARED: Final = (
    "token_read",
    "status_read",
    "call",
    "create",
    "begin",
    "callback",
    "django_oauth_toolkit",
    "oidc_provider",
)
OTHERS: Final = ("profile", "starvation", "hanging_api", "waiting", "boot", "growth", "home_page")
# Left out unless it is asked for, so that a run takes less than ten minutes.
USUAL: Final = tuple(name for name in (*COMPARED, *OTHERS) if name != "home_page")
PROFILED: Final = ("token_read", "status_read", "call", "create", "begin")
PROFILED_REQUESTS: Final = 240
YARDSTICK: Final = "yardstick"
_BEFORE: Final = "_before"
_DATABASE_BEFORE: Final = "product_before"
_ONE_REQUEST: Final = "one_request"
_OTHER_SERVERS: Final = ("django_oauth_toolkit", "oidc_provider")
_SIDE_BY_SIDE: Final = (
    YARDSTICK,
    "one_query",
    "token_read",
    "oidc_provider",
    "django_oauth_toolkit",
    "call",
    _ONE_REQUEST,
)
# One process for the ratios; for everything else two processes with the default number of threads.
_SMALL: Final = {"workers": 1, "threads": 4}
_USUAL: Final = {"workers": 2, "threads": 16}


@dataclass(frozen=True)
class Options:
    """What to measure, on what, and for how long."""

    database: str
    conversations: int
    rounds: int
    seconds: float
    only: Collection[str] = USUAL
    sizes: tuple[int, ...] = growth.SIZES
    # A commit whose build is measured in the same rounds, on a database that its own code has seeded.
    beside: str = ""

    @property
    def compared(self) -> list[str]:
        """The chosen targets that are measured in rounds, without the yardstick."""
        return [name for name in COMPARED if name in self.only]


@dataclass(frozen=True)
class Stage:
    """What all parts of a run share. They write into `report`."""

    options: Options
    store: Databases
    brand: peers.Brand
    folder: Path
    report: dict[str, Any]
    say: Say


def run(options: Options, folder: Path, say: Say) -> dict[str, Any]:
    """Measure; return a report of JSON types."""
    report: dict[str, Any] = {
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": description(),
        "database": options.database,
        "conversations": options.conversations,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "skipped": {},
    }
    with databases(options.database, folder) as store, peers.brand(folder) as brand:
        stage = Stage(options, store, brand, folder, report, say)
        if store.kind == POSTGRESQL:
            Installation.new(folder, store.create(growth.TABLES, again=True)).make_tables()
        growing = {"growth", "home_page"}
        if set(options.only) - growing:
            _measure_one_size(stage)
        if growing & set(options.only):
            report["growth"] = growth.measure(
                store,
                folder,
                options.sizes,
                rounds=options.rounds,
                seconds=options.seconds,
                say=say,
                has_home_page="home_page" in options.only,
            )
    report["ended"] = datetime.now(UTC).isoformat(timespec="seconds")
    return report


def _measure_one_size(stage: Stage) -> None:
    options = stage.options
    stage.say(f"{options.database}: seeding {options.conversations:,} conversations")
    address = stage.store.create("product", like=growth.TABLES)
    installation = Installation.new(stage.folder, address, stage.brand.ca_file)
    with ExitStack() as servers:
        # Their databases are filled meanwhile.
        with ThreadPoolExecutor(max_workers=1) as thread:
            others = thread.submit(_other_targets, servers, stage)
            made = installation.seed(
                "product",
                **_rows_to_compare(stage),
                rival_callbacks=starvation.RIVAL_CALLBACKS if "starvation" in options.only else 0,
                hanging_callbacks=starvation.HANGING_CALLBACKS if "starvation" in options.only else 0,
            )
        if options.compared:
            _compare(stage, installation, made, others.result())
    if "profile" in options.only:
        stage.say("profiles")
        stage.report["profile"] = _profile(installation, made)
    if {"starvation", "hanging_api", "waiting", "boot"} & set(options.only):
        _measure_the_usual_shape(stage, installation, made)


def _rows_to_compare(stage: Stage) -> dict[str, Any]:
    """Say what a build needs in its database for all rounds. Every build's seeding knows these names."""
    options = stage.options
    measured_seconds = math.ceil(options.rounds * (options.seconds + LEAD_IN_SECONDS)) + WARM_UP_SECONDS
    return {
        "conversations": options.conversations,
        "links": (LINKS_PER_SECOND * measured_seconds if "begin" in options.only else 0) + PROFILED_REQUESTS,
        "callbacks": CALLBACKS_PER_SECOND * measured_seconds if "callback" in options.only else 0,
        "issuer": stage.brand.issuer,
    }


def _compare(stage: Stage, installation: Installation, made: dict[str, Any], others: list[Target]) -> None:
    """Measure our targets and those of other servers in interleaved rounds."""
    with ExitStack() as stack:
        targets = sorted([*_targets(stack, stage, installation, made), *others], key=_place)
        rounds, seconds = stage.options.rounds, stage.options.seconds
        series = measure(
            targets, rounds=rounds, seconds=seconds, databases=stage.store, database="product", say=stage.say
        )
    stage.report["targets"] = {
        target.name: {"label": target.label, "connections": target.connections}
        | series[target.name].summary()
        | {"of_yardstick": ratio(series[target.name], series[YARDSTICK])}
        | {"cpu_of_yardstick": cpu_ratio(series[target.name], series[YARDSTICK])}
        for target in targets
    }
    if {"call", _ONE_REQUEST} <= series.keys():
        beyond = cpu_beyond(series["call"], series[_ONE_REQUEST], series[YARDSTICK])
        stage.report["call_beyond_requests"] = beyond
    before = {name: f"{name}{_BEFORE}" for name in stage.options.compared if f"{name}{_BEFORE}" in series}
    stage.report["beside"] = {
        name: {"cpu": cpu_ratio(series[name], series[old]), "rate": ratio(series[name], series[old])}
        for name, old in before.items()
    }
    stage.report["token_read_against"] = {
        name: cpu_ratio(series["token_read"], series[name])
        for name in _OTHER_SERVERS
        if name in series and "token_read" in series
    }


def _place(target: Target) -> int:
    """Put what is compared with each other side by side. The others keep their order behind them."""
    name = target.name.removesuffix(_BEFORE)
    return _SIDE_BY_SIDE.index(name) if name in _SIDE_BY_SIDE else len(_SIDE_BY_SIDE)


def _targets(stack: ExitStack, stage: Stage, installation: Installation, made: dict[str, Any]) -> list[Target]:
    """Start one server for each target, with one process and four threads."""
    only, folder = stage.options.only, stage.folder
    server = stack.enter_context(serving_wsgi("bench.yardstick:application", folder, {}, **_SMALL))
    ours = _product_targets(stack, stage, installation, made)
    targets = [yardstick(server), one_query(_asking_once(stack, stage)), *ours]
    if "call" in only:
        targets.append(one_request(_requesting_once(stack, stage)))
    return targets


def _other_targets(stack: ExitStack, stage: Stage) -> list[Target]:
    """Fill the databases of servers that others wrote, and start them."""
    targets = []
    for name in _OTHER_SERVERS:
        reason = missing(name, stage.store)
        if name in stage.options.only and reason:
            stage.report["skipped"][name] = reason
        elif name in stage.options.only:
            targets.append(_other_server(name, stack, stage))
    return targets


def _product_targets(stack: ExitStack, stage: Stage, installation: Installation, made: dict[str, Any]) -> list[Target]:
    """Return the targets of the product; each beside that of the other build, if one was asked for."""
    server = stack.enter_context(serving(installation, **_SMALL))
    ours = [one for one in product_targets(server, made) if one.name in stage.options.only]
    before = _targets_before(stack, stage) if stage.options.beside and ours else {}
    return [one for new in ours for one in (new, before.get(new.name)) if one]


def _targets_before(stack: ExitStack, stage: Stage) -> dict[str, Target]:
    """Seed and serve the other build; return its targets by the names of ours, without those that it does not know."""
    commit, folder = stage.options.beside, stage.folder / "before"
    stage.say(f"{commit}: seeding a database of its own")
    build = build_of(commit, folder)
    installation = Installation.new(folder, stage.store.create(_DATABASE_BEFORE), stage.brand.ca_file, build)
    made = installation.seed(_DATABASE_BEFORE, **_rows_to_compare(stage))
    server = stack.enter_context(serving(installation, **_SMALL))
    found = {}
    for target in product_targets(server, made):
        sample = target.sample() if target.sample and target.name in stage.options.only else []
        if sample and wrong_answers(server.port, sample) == len(sample):
            stage.report["skipped"][f"{target.name}{_BEFORE}"] = f"{commit} does not answer it"
            continue
        label = f"{target.label}, {commit}"
        found[target.name] = replace(target, name=f"{target.name}{_BEFORE}", label=label, database=_DATABASE_BEFORE)
    return found


def _asking_once(stack: ExitStack, stage: Stage) -> Server:
    environment = {"DATABASE_URL": stage.store.create("one_query")}
    return stack.enter_context(serving_wsgi("bench.one_query:application", stage.folder, environment, **_SMALL))


def _requesting_once(stack: ExitStack, stage: Stage) -> Server:
    url = f"{stage.brand.issuer}{cast.OPERATIONS['orders.list']}?limit=10"
    environment = {"URL": url, "CA_FILE": str(stage.brand.ca_file)}
    return stack.enter_context(serving_wsgi("bench.one_request:application", stage.folder, environment, **_SMALL))


def _other_server(name: str, stack: ExitStack, stage: Stage) -> Target:
    rows, address = stage.options.conversations, stage.store.create(name)
    if name == "oidc_provider":
        peer = stack.enter_context(peers.oidc_provider(stage.folder, stage.store.socket_folder, name, rows))
        return peer_introspection(peer, rows, peers.BASIC)
    environment = {"DATABASE_URL": address}
    python("bench.introspection_seeding", str(rows), environment=environment)
    application = "bench.introspection:application"
    peer = stack.enter_context(serving_wsgi(application, stage.folder, environment, **_SMALL))
    return introspection(peer, rows)


def missing(name: str, store: Databases) -> str:
    """Return why another server cannot be measured here; empty if it can."""
    if store.kind != POSTGRESQL:
        return "compared on PostgreSQL only"
    if name == "oidc_provider":
        return peers.missing()
    return "" if find_spec("oauth2_provider") else "django-oauth-toolkit is not installed"


def _profile(installation: Installation, made: dict[str, Any]) -> dict[str, Any]:
    """Profile some requests on the servers' core."""
    unused = made | {"links": made["links"][-PROFILED_REQUESTS:]}
    targets = {target.name: target for target in product_targets(Server(0, 0), unused)}
    orders = {name: [raw.decode() for raw in targets[name].write(PROFILED_REQUESTS)] for name in PROFILED}
    order = installation.folder / "profile.order.json"
    order.write_text(json.dumps(orders))
    return installation.python("bench.profiling", str(order), core=SERVER_CORE)


def _measure_the_usual_shape(stage: Stage, installation: Installation, made: dict[str, Any]) -> None:
    """Measure with several processes and many threads."""
    with serving(installation, **_USUAL) as server:
        if "starvation" in stage.options.only:
            stage.say("a brand that hangs")
            stage.report["starvation"] = starvation.measure(server.port, made)
        if "hanging_api" in stage.options.only:
            stage.say("an API that hangs")
            stage.report["hanging_api"] = starvation.measure_calls(server.port, made)
        if "waiting" in stage.options.only:
            stage.say("500 long polls")
            with serving(installation, **_USUAL) as group_of_polls:
                give_way(group_of_polls.pid)
                stage.report["waiting"] = waiting.measure(server.port, group_of_polls.port, made)
        if "boot" in stage.options.only:
            stage.report["boot"] = {"cpu_seconds": boot.boot_seconds(installation)} | boot.worker_memory(server)
