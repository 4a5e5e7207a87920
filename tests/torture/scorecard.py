"""What is counted, and how much of it, before anybody may rely on it."""

from tests.torture.playing import Part

_SUITE = "tests.torture.suites:passed"
_SERVED = ("moto", "rclone", "gcs", "drive")

PARTS = (
    Part(
        "R1",
        "real processes killed before, or in the middle of, each call that changes a file",
        "tests.crash.points:everywhere",
        10_000,
        shards=2,
    ),
    *(
        Part(
            "R2",
            f"processes killed at calls of a place like {kind}",
            "tests.store.killed:points",
            10_000,
            shards=2,
            given={"kind": kind},
        )
        for kind in ("local", "s3", "gcs", "drive")
    ),
    *(
        Part(
            "R2",
            f"real processes killed at requests to {name}",
            "tests.conformance.points:killed",
            100,
            kind="every",
            given={"name": name},
        )
        for name in _SERVED
    ),
    Part(
        "R3",
        "states that a power cut may leave of a disk that forgets what was not synced",
        "tests.crash.power:everywhere",
        1_000_000,
        shards=2,
    ),
    *(
        Part(
            "R4",
            f"keys that eight processes race for, on {name}",
            "tests.conformance.races:creates",
            10_000,
            given={"name": name},
        )
        for name in ("local", "moto", "gcs")
    ),
    *(
        Part(
            "R4",
            f"stores into which eight processes begin to save at once, on {name}",
            "tests.conformance.races:writers",
            count,
            given={"name": name},
        )
        for name, count in {"local": 1_000, "moto": 100, "gcs": 100}.items()
    ),
    Part(
        "R5 R19",
        "rounds of writers, prunes, sweeps, a pin, a recovery and a reader, with wrong clocks",
        "tests.laws.crowd:crowds",
        100_000,
        shards=4,
    ),
    Part("R5", "rounds of a pin against prunes and sweeps", "tests.laws.interleaved:pins", 100_000),
    Part(
        "R5",
        "orders of a pin and prunes, all there are",
        "tests.laws.interleaved:pins_in_every_order",
        8_928,
        kind="every",
    ),
    Part(
        "R6", "games of 25 moves beside a dictionary", "tests.laws.machine:games", 40_000, shards=4
    ),
    Part(
        "R7",
        "flipped bits of files, manifests, seals and downloads in progress",
        "tests.damage.damaged:flips",
        40_000,
        shards=2,
    ),
    Part(
        "R7",
        "… cut, extended, exchanged, or of another time",
        "tests.damage.damaged:rearrangements",
        32_000,
        shards=2,
    ),
    Part("R7", "… of Keras models", "tests.damage.models:flips_in_models", 1_000),
    Part("R8", "damaged manifests and records", "tests.laws.fuzzing:damaged", 400_000),
    Part("R8", "… under a digest that fits", "tests.laws.fuzzing:resealed", 300_000),
    Part("R8", "… hostile, under a digest that fits", "tests.laws.fuzzing:hostile", 200_000),
    Part("R8", "names of objects", "tests.laws.fuzzing:keys", 100_000),
    Part("R8", "the largest records, in 64 MiB", "tests.laws.worst:bounded", 1, kind="every"),
    Part(
        "R9",
        "what an attacker plants, against each operation",
        "tests.hostile.hostile:plants",
        3_000,
        kind="every",
    ),
    Part("R9", "hostile names", "tests.hostile.named:named", 600, kind="every"),
    Part(
        "R10",
        "file calls that fail with one of seven errors, once or from then on",
        "tests.crash.failing:everywhere",
        15_000,
        kind="every",
        shards=4,
    ),
    Part(
        "R10",
        "limits of the process really reached",
        "tests.crash.exhausted:limits",
        200,
        kind="every",
    ),
    Part(
        "R10", "disks really full, to the block", "tests.crash.exhausted:blocks", 200, kind="every"
    ),
    Part("R10", "reads that fail", "tests.crash.exhausted:reads", 40, kind="every"),
    *(
        Part(
            "R11 R20",
            f"faults at requests to {name}",
            "tests.conformance.points:struck",
            2_000,
            kind="every",
            shards=2,
            given={"name": name},
        )
        for name in _SERVED
    ),
    Part("R12", "SIGTERMs to a plain loop", "tests.endurance.terminated:terms", 100),
    Part(
        "R12",
        "SIGTERMs to Keras's fit",
        "tests.crash.resumes:signals",
        30,
        given={"name": "terms"},
    ),
    Part("R13", "kills of a plain loop, resumed", "tests.endurance.terminated:kills", 500),
    Part(
        "R13",
        "kills of Keras's fit, resumed",
        "tests.crash.resumes:signals",
        50,
        given={"name": "kills"},
    ),
    Part(
        "R13",
        "… of a convolutional network",
        "tests.crash.resumes:signals",
        20,
        given={"name": "digits"},
    ),
    Part(
        "R14",
        "cycles on a disk of which one call in twenty fails",
        "tests.endurance.soak:soaks",
        10_000,
        given={"local": True},
    ),
    Part(
        "R14",
        "… in memory",
        "tests.endurance.soak:soaks",
        10_000,
        given={"local": False},
    ),
    Part("R15", "outages of ten minutes", "tests.endurance.outage:outages", 500),
    Part("R15", "… and the process is killed", "tests.endurance.outage:killed_outages", 500),
    Part("R15", "… through the client of S3", "tests.endurance.served:outages_on_s3", 20),
    Part("R16", "prunes of drawn histories beside an oracle", "tests.laws.oracle:plans", 10_000),
    Part(
        "R17",
        "tests with secrets in every option, under every fault",
        _SUITE,
        5,
        kind="every",
        given={"tests": ["tests/conformance/test_secrets.py"]},
    ),
    Part(
        "R18",
        "tests with the rights of each role",
        _SUITE,
        8,
        kind="every",
        given={"tests": ["tests/conformance/test_roles.py"]},
    ),
    Part("R19", "rounds with right and with wrong clocks", "tests.laws.crowd:clocks", 5_000),
    Part(
        "R20",
        "faults of every look at a store that is not empty",
        "tests.laws.unknown:looks",
        648,
        kind="every",
    ),
    Part(
        "R20", "rounds with listings that lag by up to 60 calls", "tests.laws.readers:lags", 10_000
    ),
    Part(
        "R21",
        "tests on stores of every released format, and of a newer one",
        _SUITE,
        10,
        kind="every",
        given={"tests": ["tests/compat"]},
    ),
    Part(
        "R22",
        "modules that are broken at every place, of which nine in ten have to show",
        "tests.mutation.played:scores",
        17,
        kind="every",
        shards=2,
    ),
    Part(
        "R23",
        "tests of what is installed beside each other",
        _SUITE,
        2,
        kind="every",
        given={"tests": ["tests/test_install.py"]},
    ),
    Part(
        "R24",
        "kills and failing disks under Holdfast's callbacks",
        "tests.beside.played:struck",
        200,
    ),
    Part("R24", "damage to what they have saved", "tests.beside.played:harmed", 1_000),
    Part("R25", "restores under prunes and sweeps", "tests.laws.readers:restores", 10_000),
)
