"""What the turns say, laid out: clients beside the bare stub, servers beside etcd, goals."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import geometric_mean

from benchmarks.report import Goal, Table
from benchmarks.throughput.contenders import BARE_AIO, WIRE, Contender, World
from benchmarks.throughput.run import CLIENTS, CROWD, SERVERS, Plan
from benchmarks.throughput.servers import ECHO, ETCD, OURS
from benchmarks.throughput.turn import Cell, Turn, Turns

CLIENT_LIMIT = 1.15
"""Our client's CPU a call at most, as a multiple of the bare stub's."""
SERVER_LIMIT = 0.35
"""Our server's calls a second at least, as a share of etcd's."""


def cpu(turn: Turn) -> float:
    return turn.cpu_us


def rate(turn: Turn) -> float:
    return turn.calls_per_second


def server_cpu(turn: Turn) -> float:
    return turn.server_cpu_us


def load_share(turn: Turn) -> float:
    return turn.cpu_seconds / turn.seconds


def number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def clients_table(turns: Turns, server: str, world: World, plan: Plan) -> Table:
    """Compare the clients of one world on one server."""
    others = world.contenders[1:]
    header = ["", f"{world.floor.title}: CPU us", "calls/s"]
    for contender in others:
        header += [f"{contender.title}: CPU", "calls/s"]
    rows = []
    for operation, callers in plan.rows:
        floor = Cell(CLIENTS, server, world.floor.name, operation, callers)
        row = [f"{operation}, {callers} caller{'s' if callers > 1 else ''}"]
        row += [number(turns.median(floor, cpu), ".0f"), number(turns.median(floor, rate), ",.0f")]
        for contender in others:
            cell = Cell(CLIENTS, server, contender.name, operation, callers)
            row += [number(turns.ratio(cell, floor, each), ".2f") for each in (cpu, rate)]
        rows.append(row)
    return Table(
        f"Clients, {world.name}, against {server}",
        header,
        rows,
        "The bare stub: CPU time of the client's process a call, calls a second. The others: "
        "multiples of it.",
    )


def servers_table(turns: Turns, plan: Plan) -> Table:
    """Compare the servers under one load, the light one and that of grpc.aio."""
    rows = [
        servers_row(turns, load, operation, server)
        for load in (WIRE, BARE_AIO)
        for operation, server in (*((each, ETCD) for each in plan.operations), ("put", ECHO))
    ]
    return Table(
        f"Servers, {CROWD} callers",
        ("", "calls/s", "CPU us", "load", "ours: calls/s", "CPU us", "load", "ratio"),
        rows,
        "CPU us: of the server, a call. Load: how many cores the load generator kept busy. "
        "Ratio: our calls a second to theirs.",
    )


def servers_row(turns: Turns, load: Contender, operation: str, server: str) -> list[str]:
    theirs = Cell(SERVERS, server, load.name, "echo" if server == ECHO else operation, CROWD)
    mine = Cell(SERVERS, OURS, load.name, operation, CROWD)
    row = [f"{operation} : {server}, {load.title}"]
    for cell in (theirs, mine):
        row.append(number(turns.median(cell, rate), ",.0f"))
        row.append(number(turns.median(cell, server_cpu), ".0f"))
        row.append(number(turns.median(cell, load_share), ".2f"))
    return [*row, number(turns.ratio(mine, theirs, rate), ".2f")]


def goals(turns: Turns, plan: Plan) -> list[Goal]:
    """Hold the numbers against what this project wants of them."""
    clients = (goal for world in plan.worlds for goal in client_goals(turns, world, plan))
    return [*clients, *server_goals(turns, plan)]


def client_goals(turns: Turns, world: World, plan: Plan) -> Iterator[Goal]:
    """Our client's cost: against the bare stub overall and in the worst row; overall against peers.

    Overall is the geometric mean of the rows. The worst row is no measure against a peer whose
    cost is near ours: with enough rows, noise alone puts us behind in one of them.
    """
    for ours in (world.ours, *world.variants):
        ratios = cpu_ratios(turns, ours, world.floor, plan)
        text = f"CPU a call, {ours.title} : {world.floor.title}"
        mean = geometric_mean(ratios) if ratios else None
        yield Goal(text, mean, at_most=CLIENT_LIMIT)
        yield Goal(f"{text}, worst row", max(ratios, default=None), at_most=CLIENT_LIMIT)
    for other in world.rivals:
        ratios = cpu_ratios(turns, world.ours, other, plan)
        text = f"CPU a call, {world.ours.title} : {other.title}"
        yield Goal(text, geometric_mean(ratios) if ratios else None, at_most=1.0)


def cpu_ratios(turns: Turns, ours: Contender, other: Contender, plan: Plan) -> list[float]:
    """Return each row's ratio against etcd; nothing unless every row has one."""
    ratios = [
        turns.ratio(
            Cell(CLIENTS, ETCD, ours.name, operation, callers),
            Cell(CLIENTS, ETCD, other.name, operation, callers),
            cpu,
        )
        for operation, callers in plan.rows
    ]
    known = [ratio for ratio in ratios if ratio is not None]
    return known if len(known) == len(ratios) else []


def server_goals(turns: Turns, plan: Plan) -> Iterator[Goal]:
    """Our server's speed under the light load, for any other measures its own client as well."""
    for operation in plan.operations:
        mine = Cell(SERVERS, OURS, WIRE.name, operation, CROWD)
        theirs = Cell(SERVERS, ETCD, WIRE.name, operation, CROWD)
        ratio = turns.ratio(mine, theirs, rate)
        yield Goal(f"{operation}s a second : etcd's, {CROWD} callers", ratio, at_least=SERVER_LIMIT)
    mine = Cell(SERVERS, OURS, WIRE.name, "put", CROWD)
    echo = Cell(SERVERS, ECHO, WIRE.name, "echo", CROWD)
    ratio = turns.ratio(mine, echo, rate)
    yield Goal(f"puts a second : empty calls of {ECHO}, {CROWD} callers", ratio, at_least=1.0)
