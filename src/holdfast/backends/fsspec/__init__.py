"""Any filesystem that fsspec knows."""

from holdfast.backends.fsspec.backend import FsspecBackend as FsspecBackend
