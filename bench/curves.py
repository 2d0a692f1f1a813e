"""The curves of `bench.py curve`: what grows when one thing of a load does. See README.md."""

from typing import NamedTuple


class Point(NamedTuple):
    """One load. A preset is a point of no curve."""

    preset: str
    args: str
    curve: str | None = None
    value: str | None = None
    env: dict = {}  # of the server
    copies: int = 1  # servers that know nothing of each other, each with a load of its own
    talks: bool = False  # only for servers that are told the room after the handshake


class Curve(NamedTuple):
    parameter: str
    key: str  # what `xfloor` compares
    columns: list
    points: list


CHECKS = [("lost", "lost"), ("dup", "dup"), ("reord", "reorder")]
LATENCY = [("p50", "latency_us.p50"), ("p99", "latency_us.p99")]
DELIVERY = [
    ("runs", None),
    ("us/msg", "server_us_per_delivered"),
    ("user", "server_user_us_per_delivered"),
    ("sys", "server_sys_us_per_delivered"),
    ("xfloor", None),
    ("msg/s", "delivered_per_s"),
    ("msg/read", "delivered_per_read"),
    ("B/msg", "bytes_per_delivered"),
    ("cpu%", "server_cpu_percent"),
    ("load%", "load_cpu_percent"),
    *LATENCY,
    ("PSS MB", "pss_end"),
    ("peak RSS MB", "rss_peak"),
    *CHECKS,
]
PUBLISH = [
    ("runs", None),
    ("us/pub", "server_us_per_publish"),
    ("user %", "server_user_percent"),
    ("xfloor", None),
    ("pub/s", "published_per_s"),
    ("cpu%", "server_cpu_percent"),
    ("ack p50", "ack_us.p50"),
    ("ack p99", "ack_us.p99"),
    *LATENCY,
    ("PSS MB", "pss_end"),
    ("refused", "refused"),
    *CHECKS,
]
FIRST = ("first us/pub", "first_server_us_per_publish")
RATE = [
    ("runs", None),
    ("pub/s", "published_per_s"),
    ("msg/s", "delivered_per_s"),
    ("us/msg", "server_us_per_delivered"),
    ("xfloor", None),
    ("cpu%", "server_cpu_percent"),
    ("load%", "load_cpu_percent"),
    *LATENCY,
    ("ack p50", "ack_us.p50"),
    ("ack p99", "ack_us.p99"),
    ("RSS MB", "rss_before"),
    ("peak RSS MB", "rss_peak"),
    *CHECKS,
]
CYCLES = 4
# Bytes are those of the same cycle; what the process has left after each shows what stays.
ROOM_MEMORY = [
    ("runs", None),
    ("empty MB", "pss_empty"),
    *[(f"B/room subscribed, {i + 1}", f"cycles.{i}.subscribed_bytes") for i in (0, CYCLES - 1)],
    *[(f"with a message, {i + 1}", f"cycles.{i}.written_bytes") for i in (0, CYCLES - 1)],
    *[(f"left {i + 1} MB", f"cycles.{i}.pss.left") for i in range(CYCLES)],
    ("rooms", "cycles.0.rooms.written"),
    ("rooms left", f"cycles.{CYCLES - 1}.rooms.left"),
    ("after ms", f"cycles.{CYCLES - 1}.left_after_ms"),
    ("us/subscribe", f"cycles.{CYCLES - 1}.server_us_per_subscribe"),
    ("us/first pub", f"cycles.{CYCLES - 1}.server_us_per_publish"),
    *CHECKS,
]
SHORT = "--secs 3 --settle 0.5"
# A process holds fewer than 20,000 sockets where its limit of open files is that.
SUBSCRIBERS = [1, 10, 100, 1000, 10_000, 18_000]
SPREAD = (50_000, 3)
# A hub keeps files back for those who publish, and refuses connections where too few are left.
FEW_PUBLISHERS = {"TWINE_MAX_HTTP_CONNECTIONS": "256"}
# The mark in a payload takes 35 bytes; a hub's `max_data` of 64 KiB has the quotes in it.
SIZES = [35, 128, 512, 2048, 8192, 65_534]
ROOMS = [10, 100, 1000, 10_000, 100_000]
ROOMS_PER_CONN = [1, 10, 100, 1000]
PUBLISHERS = [1, 16, 256]
RATES = [10, 50, 100, 200, 400, 600, 800, 1000, 2000, 4000]
# Messages, tails and sessions go after seconds, so that rooms can leave memory while one waits.
FORGETS = {
    "TWINE_TAIL_AGE": "3s",
    "TWINE_IDEMPOTENCY_WINDOW": "5s",
    "TWINE_STORE_RETENTION": "5s",
    "TWINE_SESSION_LIFETIME": "5s",
}


def points(curve, values, args, **more):
    return [Point(f"{curve}/{v}", f"{args(v)} {SHORT}", curve, f"{v:,}", **more) for v in values]


def spread(total, copies):
    args = f"--scenario saturate --conns {total // copies} --concurrency 64 {SHORT}"
    return Point(f"subscribers/{total}", args, "subscribers", f"{total:,} on {copies}", FEW_PUBLISHERS, copies)


def rooms(n):
    """One subscriber a room; no more connections than a process can have, nor publishers than rooms."""
    conns = min(n, 10_000)
    return f"--scenario publish --rooms {n} --conns {conns} --rooms-per-conn {n // conns} --pub-conns 8 --prime"


def many_rooms(n):
    return [p._replace(talks=n > 10_000) for p in points("rooms", [n], rooms)]


CURVES = {
    "subscribers": Curve(
        "subscribers",
        "server_us_per_delivered",
        DELIVERY[:1] + [("conns", "subscribed")] + DELIVERY[1:],
        points("subscribers", SUBSCRIBERS, lambda n: f"--scenario saturate --conns {n}", env=FEW_PUBLISHERS)
        + [spread(*SPREAD)],
    ),
    "size": Curve(
        "bytes of payload",
        "server_us_per_delivered",
        DELIVERY,
        points("size", SIZES, lambda n: f"--scenario saturate --conns 100 --payload {n}"),
    ),
    "rooms": Curve(
        "rooms",
        "server_us_per_publish",
        PUBLISH[:4] + [FIRST] + PUBLISH[4:],
        [p for n in ROOMS for p in many_rooms(n)],
    ),
    # Publishes one after the other, for each room is published to by one connection.
    "rooms-per-conn": Curve(
        "rooms of each of 4 connections",
        "server_us_per_publish",
        PUBLISH,
        points(
            "rooms-per-conn",
            ROOMS_PER_CONN,
            lambda n: f"--scenario publish --rooms {n} --conns 4 --rooms-per-conn {n} --pub-conns 1 --prime",
            talks=True,
        ),
    ),
    "room-memory": Curve(
        "rooms a cycle",
        "pss_empty",
        ROOM_MEMORY,
        [
            Point(
                "room-memory/100000",
                f"--scenario rooms --rooms {CYCLES * 100_000} --cycles {CYCLES} --rooms-per-conn 1000 --pub-conns 16",
                "room-memory",
                "100,000",
                env=FORGETS,
                talks=True,
            )
        ],
    ),
    "rate": Curve(
        "publishes/s due, to 1,000",
        "server_us_per_delivered",
        RATE,
        points("rate", RATES, lambda n: f"--scenario fanout --conns 1000 --rate {n} --pipeline 16"),
    ),
    "publishers": Curve(
        "publishing connections",
        "server_us_per_publish",
        PUBLISH,
        points("publishers", PUBLISHERS, lambda n: f"--scenario publish --pub-conns {n}"),
    ),
    # The same with nobody there: only taking and storing counts.
    "publishers-alone": Curve(
        "publishing connections, no subscriber",
        "server_us_per_publish",
        [c for c in PUBLISH if c not in LATENCY + CHECKS],
        points("publishers-alone", PUBLISHERS, lambda n: f"--scenario publish --conns 0 --pub-conns {n}"),
    ),
}
