"""
Ways in which bytes are not what they were.

Each changes some of the things that it is given, by their names, and says which it has changed.
"""

import random

from holdfast import layout

Things = dict[str, bytes]


def flip(things: Things, rng: random.Random) -> set[str]:
    """One bit."""
    name = rng.choice([name for name, data in things.items() if data])
    data = bytearray(things[name])
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    things[name] = bytes(data)
    return {name}


def truncate(things: Things, rng: random.Random) -> set[str]:
    """The end is missing."""
    name = rng.choice([name for name, data in things.items() if data])
    size = len(things[name])
    things[name] = things[name][: rng.choice([0, size - 1, rng.randrange(size)])]
    return {name}


def extend(things: Things, rng: random.Random) -> set[str]:
    """Something follows: zeros, anything, or the same once more."""
    name = rng.choice([*things])
    more = rng.randint(1, 64)
    things[name] += rng.choice([bytes(more), rng.randbytes(more), things[name] or b"\n"])
    return {name}


def swap(things: Things, rng: random.Random) -> set[str]:
    """Two of one size have changed places, or the same one of two checkpoints."""
    one = rng.choice([name for name, data in things.items() if data])
    other = rng.choice(
        [
            name
            for name, data in things.items()
            if (len(data) == len(things[one]) or last(name) == last(one)) and data != things[one]
        ]
    )
    things[one], things[other] = things[other], things[one]
    return {one, other}


def replay(things: Things, rng: random.Random) -> set[str]:
    """An older one lies in the place of a newer one."""
    names = sorted(things)
    pairs = [
        (older, newer)
        for at, older in enumerate(names)
        for newer in names[at + 1 :]
        if last(newer) == last(older) and things[newer] != things[older]
    ]
    older, newer = rng.choice(pairs)
    things[newer] = things[older]
    return {newer}


def last(name: str) -> str:
    """What things of several checkpoints have in common: the path in a checkpoint, or the kind."""
    parsed = layout.parse_file_key(name)
    return parsed[1] if parsed else name.partition("/")[0] + name.rpartition("/")[2][-5:]


REARRANGED = (truncate, extend, swap, replay)
