"""Keys are read back and sort as their checkpoints do; paths stay where they belong."""

import itertools
import string

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from holdfast import layout
from holdfast.checkpoint import MAX_SESSION, MAX_STEP, CheckpointId
from holdfast.errors import InvalidInputError

ID = CheckpointId(3, 1200, "7f3a9c1e")

#: Around each number of digits, where the order of keys as text leaves that of the sessions.
sessions = (
    st.integers(1, MAX_SESSION)
    | st.integers(1, 12_000)
    | st.sampled_from([10**n + d for n in range(1, 9) for d in (-1, 0, 1)])
)


def ids_in(sessions):
    return st.builds(
        CheckpointId,
        sessions,
        st.integers(0, 3) | st.integers(0, MAX_STEP),
        st.integers(0, 2**32 - 1).map("{:08x}".format),
    )


ids = ids_in(sessions)
_FIRST = string.ascii_letters + string.digits + "._+=,@"
parts = st.builds(str.__add__, st.sampled_from(_FIRST), st.text(_FIRST + "-", max_size=6))
paths = st.lists(parts, min_size=1, max_size=4).map("/".join)


def refused(*given):
    try:
        layout.check_paths(given)
    except InvalidInputError:
        return True
    return False


@pytest.mark.parametrize(
    ("session", "key"),
    [
        (1, "0001"),
        (999, "0999"),
        (1_000, "1000"),
        (1_001, "10000"),
        (9_999, "10000"),
        (10_000, "10000"),
        (20_000, "100000"),
        (MAX_SESSION, "1000000000"),
    ],
)
def test_what_sorts_before_a_session_skips_as_many_as_can_be(session, key):
    assert layout.before_session(session) == f"manifests/{key}"


@pytest.mark.parametrize(
    ("session", "key"),
    [
        (1, "0001-000000000005-00000000.json"),
        (1_000, "1000-000000000005-00000000.json"),
        (1_001, "10000"),
        (9_999, "10000"),
        (10_000, "10000-000000000005-00000000.json"),
        (10_001, "100000"),
    ],
)
def test_what_sorts_after_a_checkpoint_skips_as_many_as_can_be(session, key):
    assert layout.after(CheckpointId(session, 5, "00000000")) == f"manifests/{key}"


def test_every_key_is_spelled_as_the_format_says():
    assert layout.manifest_key(ID) == "manifests/0003-000000001200-7f3a9c1e.json"
    assert layout.file_key(ID, "a/b") == "files/0003-000000001200-7f3a9c1e/a/b"
    assert layout.pin_key("paper", ID) == "pins/paper/0003-000000001200-7f3a9c1e"
    assert layout.doomed_key(ID, "0a") == "doomed/0003-000000001200-7f3a9c1e.0a"


@settings(deadline=None)
@given(ids, paths)
def test_every_key_is_read_back(id, path):
    assert layout.parse_manifest_key(layout.manifest_key(id)) == id
    assert layout.parse_file_key(layout.file_key(id, path)) == (id, path)
    assert layout.parse_pin_key(layout.pin_key("paper", id)) == ("paper", id)
    assert layout.parse_doomed_key(layout.doomed_key(id, "0badc0de")) == id


PARSERS = [
    layout.parse_manifest_key,
    layout.parse_file_key,
    layout.parse_pin_key,
    layout.parse_doomed_key,
]


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        "manifests/",
        "manifests/.json",
        f"manifests/{ID}",
        f"manifests/{ID}.json.json",
        f"manifests/{ID}.JSON",
        f"manifests/a/{ID}.json",
        f"manifests/~{ID}.json",
        f"/manifests/{ID}.json",
        f"../manifests/{ID}.json",
        "manifests/0000-000000001200-7f3a9c1e.json",
        "files/",
        f"files/{ID}",
        f"files/{ID}/",
        f"files//{ID}/a",
        f"files/x{ID}/a",
        f"files/{ID}/..",
        f"files/{ID}/../../x",
        f"files/{ID}/a/./b",
        f"files/{ID}/a//b",
        "pins/",
        f"pins/{ID}",
        f"pins//{ID}",
        f"pins/paper/{ID}/",
        f"pins/paper/more/{ID}",
        f"pins/../{ID}",
        f"pins/./{ID}",
        "pins/paper/",
        "doomed/",
        "doomed/.0a",
        f"doomed/x.{ID}",
        f"Manifests/{ID}.json",
    ],
)
def test_a_name_that_is_somebody_else_s_names_nothing(parse, key):
    assert parse(key) is None


@settings(deadline=None)
@given(st.text(max_size=60))
def test_no_text_breaks_a_parser(text):
    for parse in PARSERS:
        for start in ("", "manifests/", "files/", "pins/", "doomed/"):
            parse(start + text)


@settings(max_examples=500, deadline=None)
@given(ids, sessions)
@example(CheckpointId(10_000, 0, "0" * 8), 10_000)
@example(CheckpointId(1_001, 0, "0" * 8), 1_001)
@example(CheckpointId(10_000, 0, "0" * 8), 1_001)
@example(CheckpointId(MAX_SESSION, 0, "0" * 8), 1)
def test_a_scan_from_before_a_session_skips_none_that_it_is_for(id, session):
    assume(id.session >= session)

    start = layout.before_session(session)

    assert layout.manifest_key(id) > start


@settings(max_examples=500, deadline=None)
@given(ids, ids)
@example(CheckpointId(9_999, 5, "0" * 8), CheckpointId(10_000, 0, "0" * 8))
@example(CheckpointId(2_000, 5, "0" * 8), CheckpointId(10_000, 0, "0" * 8))
def test_a_scan_from_after_a_checkpoint_skips_no_later_one(one, other):
    assume(one != other)
    earlier, later = sorted([one, other])

    start = layout.after(earlier)

    assert layout.manifest_key(later) > start


@settings(deadline=None)
@given(st.integers(2, 999), st.data())
def test_up_to_session_999_a_scan_meets_no_earlier_session(session, data):
    id = data.draw(ids_in(st.integers(1, session - 1)))

    assert layout.manifest_key(id) < layout.before_session(session)


@settings(deadline=None)
@given(ids_in(st.integers(1, 999)))
def test_up_to_session_999_a_scan_does_not_meet_the_checkpoint_itself(id):
    assert layout.manifest_key(id) <= layout.after(id)


@settings(deadline=None)
@given(ids_in(st.integers(1, 9_999)), ids_in(st.integers(1, 9_999)))
def test_up_to_session_9999_keys_sort_as_their_checkpoints(one, other):
    assert (layout.manifest_key(one) < layout.manifest_key(other)) == (one < other)


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "..",
        "../x",
        "a/../x",
        "a/..",
        "/abs",
        "//host/share",
        "C:/x",
        "C:x",
        "a\\b",
        "..\\x",
        "~x",
        "~",
        "a/~x",
        "con",
        "CON",
        "con.txt",
        "a/nul.tar.gz",
        "LPT1.x",
        "com0",
        "x.",
        "a./b",
        "...",
        "a//b",
        "a/",
        "-rf",
        "a/-x",
        "a b",
        "a\n",
        "a\0b",
        "ä",
        "a\u0301",
        "ﬁle",
        "a*",
        "a?b",
        "a#b",
        "a%2fb",
        "a:b",
        "x" * 129,
        "/".join("abcdefghi"),
        "/".join(["x" * 128] * 4) + "x",
        "\udcff",
    ],
)
def test_a_path_that_some_place_could_not_hold_is_refused(path):
    assert refused(path)
    assert refused("fine", path)


@pytest.mark.parametrize(
    "path",
    [
        "a",
        ".zarray",
        "model.weights.h5",
        "assets/.hidden/x",
        "a=1,b=2@3+4",
        "_",
        "console",
        "com10",
        "x.con",
        "a-",
        "x" * 128,
        "/".join("abcdefgh"),
        "/".join(["x" * 127] * 4),
    ],
)
def test_a_path_that_every_place_holds_is_taken(path):
    assert not refused(path)


@pytest.mark.parametrize(
    "given",
    [
        ("a", "a"),
        ("a", "A"),
        ("a/x", "A/y"),
        ("A/b/c", "a/b/d"),
        ("a/B/c", "a/b/d"),
        ("a/x", "a/X"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("a/b/c", "a/b"),
        ("A", "a/b"),
        ("a/b", "A"),
        ("a/b", "c", "a/b"),
        ("a", "a-c", "a/b"),
        ("A", "a-", "a/b"),
        ("a/b/c", "a/b-", "A/b/d"),
    ],
)
def test_paths_that_cannot_lie_side_by_side_are_refused(given):
    assert refused(*given)
    assert refused(*reversed(given))


few = st.sampled_from(["a", "A", "a-", "a.b", "b", "B", "0"])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(few, min_size=1, max_size=3), max_size=12))
def test_of_many_paths_those_are_refused_of_which_two_collide(many):
    """Two collide if the shorter is how the longer begins, but for case, or their parents do."""

    def collide(one, other):
        shorter, longer = sorted((one, other), key=len)
        folded = [[part.lower() for part in path] for path in (shorter, longer)]
        if folded[1][: len(shorter)] == folded[0]:
            return True
        return any(
            folded[0][:length] == folded[1][:length] and one[:length] != other[:length]
            for length in range(1, len(shorter))
        )

    refusable = any(collide(*pair) for pair in itertools.combinations(many, 2))

    assert refused(*("/".join(path) for path in many)) == refusable


def test_paths_may_share_a_directory_and_a_beginning():
    assert not refused("a/b", "a/c", "a-b", "a.b", "ab", "b/a", "d/a/b", "d/a/c")


@settings(max_examples=200, deadline=None)
@given(st.lists(paths, max_size=5))
def test_what_is_taken_lies_side_by_side_where_case_is_ignored(given):
    assume(not refused(*given))

    folded = [path.lower() for path in given]
    files = set(folded)
    folders = {
        "/".join(path.split("/")[:n]) for path in folded for n in range(1, path.count("/") + 1)
    }
    assert len(files) == len(given)
    assert not files & folders


@settings(max_examples=200, deadline=None)
@given(st.lists(paths, max_size=5), st.randoms(use_true_random=False))
def test_the_answer_does_not_depend_on_the_order(given, random):
    shuffled = random.sample(given, len(given))

    assert refused(*given) == refused(*shuffled)


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=20) | st.text("aA./~-\\:+ ", max_size=8))
def test_whatever_is_taken_stays_below_its_directory(text):
    taken = not refused(text)

    if taken:
        assert text.isascii()
        assert not set(text.split("/")) & {"", ".", ".."}
        assert not set(text) & set("~\\: ")


@pytest.mark.parametrize(
    "path", ["a", ".zarray", "a.b.c", "-".join("ab"), "A/b/C", "0" * 128, "con-1/x", "x" + "+=,@_"]
)
def test_what_is_plainly_portable_is_not_looked_at_part_by_part(path, monkeypatch):
    monkeypatch.setattr(layout, "check_part", None)

    layout.check_paths([path, "another"])


def test_several_thousand_paths_are_checked_at_once():
    many = [f"shard-{number:05d}/part-{part}" for number in range(2_500) for part in (0, 1)]

    assert not refused(*many)
    assert refused(*many, "SHARD-00001/other")


@pytest.mark.parametrize("key", ["~x", "files/a/~x"])
def test_an_unfinished_file_is_known_by_its_name(key):
    assert layout.is_partial(key)
    assert not layout.is_partial(key.replace("~", "x~"))


def test_the_root_of_a_store_has_six_names():
    assert {
        "manifests",
        "files",
        "pins",
        "doomed",
        ".probe",
        ".workspace",
    } == layout.TOP_LEVEL


def test_what_a_probe_is_called_is_no_key_of_a_store_or_of_another_probe():
    one, other = layout.probe_prefix("one") + "a", layout.probe_prefix("other") + "a"

    assert len({layout.PROBE, one, other}) == 3
    assert [layout.is_left_by_probe(key) for key in (layout.PROBE, one)] == [False, True]
    for key in (layout.PROBE, one):
        layout.check_paths([key])
        assert layout.parse_file_key(key) is None
        assert layout.parse_manifest_key(key) is None
        assert layout.parse_pin_key(key) is None
        assert layout.parse_doomed_key(key) is None


@pytest.mark.parametrize("name", ["con", "prn", "aux", "nul", "com0", "com9", "lpt0", "lpt9"])
def test_every_device_is_refused(name):
    for spelled in (name, name.upper(), f"{name}.txt"):
        with pytest.raises(InvalidInputError, match="device"):
            layout.check_paths([spelled])


def test_what_lies_at_the_root_has_the_names_that_every_version_knows():
    assert set(layout.TOP_LEVEL) == {
        *("manifests", "files", "pins", "doomed", ".probe", ".workspace"),
    }
    assert layout.PROBE == ".probe/write"
    assert layout.PARTIAL == "~"


def test_a_path_of_512_characters_is_the_longest():
    path = "/".join(["a" * 127, "b" * 127, "c" * 127, "d" * 128])
    assert len(path) == 512

    layout.check_paths([path])

    with pytest.raises(InvalidInputError, match="too long"):
        layout.check_paths([path.replace("a/", "aa/", 1)])


@pytest.mark.parametrize("name", ["console", "com10", "auxiliary.txt", "nullable", "con-1", ".con"])
def test_what_only_begins_as_a_device_is_taken(name):
    layout.check_paths([name, f"directory/{name}"])
