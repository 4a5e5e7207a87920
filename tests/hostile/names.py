"""Names that try to lead elsewhere, to be taken for others, or not to fit: by their kinds."""

from collections.abc import Iterator

_UPS = ("..", "../..", "../../..", "a/../..", "a/b/../../..", "./..", "a/./../..", "..//..")
_VICTIMS = ("", "/secret", "/outside/secret", "/nowhere/x", "/manifests", "/.ssh/authorized_keys")
_DEVICES = (
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{port}{n}" for port in ("com", "lpt") for n in range(10)),
)
_LOOKALIKES = {
    "a full stop of another script": "\u2024\u2024/x \uff0e\uff0e/x \u3002\u3002/x \u2025/x",
    "a slash of another script": "..\u2044x ..\u2215x ..\uff0fx ..\u29f8x",
    "a letter of another script": "\u0430.bin \u043eut model\u200b.bin \uff4dodel.bin",
    "a digit of another script": "\u0661.bin \u0967.bin \u00b2.bin \uff11.bin",
    "composed in two ways": "\u00e4.bin a\u0308.bin \ufb01le.bin \u212bng",
    "invisible": "\u200bx x\u200d \u2060x \ufeffx \u00adx x\u034f \u061cx",
    "turned around": "\u202egnp.exe x\u202e \u2066x\u2069 \u200fx",
}


def by_kind() -> dict[str, list[str]]:
    """Hundreds of names that no place may be asked to keep."""
    spaces = ("\u00a0", "\u2003", "\u2028", "\u2029", "\u3000")
    return {
        "traversal": [up + victim for up in _UPS for victim in _VICTIMS],
        "traversal of Windows": [
            f"{up}\\{victim}" for up in ("..", "..\\..", "a\\..\\..") for victim in ("x", "secret")
        ],
        "traversal in disguise": [
            *("%2e%2e/x", "%2e%2e%2fx", "..%2fx", "..%5cx", "%252e%252e/x", "..%c0%afx", "..;/x"),
            *("..\0/x", "x\0/../y", "..\x7f/x", "..\n/x", ".. /x", " ../x", "...//x", "....//x"),
        ],
        "absolute": [
            *("/", "//", "/x", "//x", "///x", "/nowhere", "/dev/stdin", "/proc/self/environ"),
            *("/dev/fd/0", "/tmp/x", "/./x", "//server/share", "//?/C:/x", "//./pipe/x"),
        ],
        "drive letters": [
            *("C:", "C:x", "C:/x", "c:/x", "C:\\x", "C:\\", "z:x", "\\x", "\\\\x\\y"),
            *("\\\\?\\C:\\x", "\\\\.\\x", "\\\\server\\share\\x", "a/C:/x", "\\??\\C:\\x"),
        ],
        "devices": [
            *_DEVICES,
            *(f"{name.upper()}.h5" for name in _DEVICES),
            *(f"a/{name}.tar.gz" for name in _DEVICES[:6]),
            *("a/CoN", "nul.", "con .h5", "conin$", "x:$DATA", "x::$INDEX_ALLOCATION"),
        ],
        "lookalikes": [name for names in _LOOKALIKES.values() for name in names.split(" ") if name],
        "control characters": [f"a{chr(code)}b" for code in (*range(32), 0x7F, 0x85, 0x9B)],
        "terminal": [
            *("\x1b[2J", "\x1b]0;x\x07", "\x1b[31mx", "x\r", "x\b\b", "\x1b[1A", "\x9b31m"),
        ],
        "blanks": [f"a{space}b" for space in (" ", *spaces)] + [" a", "a ", " ", "a/ /b"],
        "no text": ["\udc80", "a\udcff", "\ud800", "a/\udfff"],
        "too long": [
            *("x" * size for size in (129, 255, 256, 4_096)),
            *("/".join(["x"] * size) for size in (9, 64, 300)),
            *("/".join(["x" * 128] * size) for size in (4, 8)),
            "x" * 100_000,
        ],
        "nothing": ["", "a//b", "a/", "a//", "//a", "a/b/"],
        "dots": [".", "./x", "a/.", "a/./b", "a.", "a./b", "a..", "...", "a/...", ". ", ".\u200b"],
        "tildes": ["~", "~/x", "~root/x", "~x", "a/~", "a/~x", "~+/x", "~0123456789abcdef"],
        "options": ["-", "-rf", "--help", "a/-x", "--workspace=/x", "-/x"],
        "shells": [
            *("$HOME", "${HOME}", "$(id)", "`id`", "a;b", "a|b", "a&b", "a>b", "a<b", "a'b", 'a"b'),
            *("*", "a*", "a?", "[a]", "{a,b}", "!x", "#x", "a#b", "%PATH%", "a%b", "^a", "(a)"),
        ],
        "URLs": [
            *("file:///x", "http://x/y", "https://u:p@x/y", "s3://b/k", "gs://b/k", "data:,x"),
            *("file:x", "ftp://x", "memory://x", "sftp://x/y", "javascript:x", "x://", "//u@h/x"),
            *("http://169.254.169.254/latest/meta-data", "jar:file:///x!/y", "github://a:b@c/d"),
        ],
        "chains": [
            *("a::b", "::", "simplecache::s3://b/k", "zip://x::file:///y", "filecache::http://x"),
            *(
                "zip://../x::x.zip",
                "reference::x",
                "tar://x::memory://y",
                "dask::x",
                "blockcache::",
            ),
        ],
    }


def hostile() -> list[str]:
    """All of them, each once."""
    return list(dict.fromkeys(name for names in by_kind().values() for name in names))


def alike() -> Iterator[tuple[str, str]]:
    """Pairs that some places keep apart and others do not, or that cannot lie side by side."""
    yield from (("model", "MODEL"), ("a/model", "A/model"), ("a/b/c", "a/B/d"), ("a", "a"))
    yield from (("a", "a/b"), ("a/b", "a/b/c"), ("A", "a/b"), ("x.keras", "X.KERAS"))
