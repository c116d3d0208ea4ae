"""Reading a packed data set from any process.

py-lmdb keeps a list of the paths it has open, refuses to open one twice, and carries that list across a fork, where
its environments must not be used. So environments are kept here, one for each path and process, shared by all data
sets of the process; all are closed before a fork, and opened again on the next read, in the parent as in the child.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import lmdb

from carkp_carfusion.data.records import HEADER_KEY, PackedSample, PackHeader, decode_sample, sample_key
from carkp_core.errors import DataError

# Guards the table and every read: an environment can't be closed for a fork while a thread reads from it.
_lock = threading.RLock()
_environments: dict[tuple[str, int], lmdb.Environment] = {}
_fork_hooks_installed = False


class PackStore:
    """Read access to one packed data set. Holds a path only, so it may be copied, pickled and sent anywhere.

    Parameters
    ----------
    path:
        The folder that holds ``data.mdb``.
    """

    def __init__(self, path: str | Path) -> None:
        # One name for a folder, whichever way it was reached: py-lmdb refuses a second one.
        self.path = Path(os.path.realpath(path))

    def header(self) -> PackHeader:
        """The header, read afresh; no environment stays open.

        Raises
        ------
        DataError
            If there is no packed data set, or it is damaged or incomplete.
        """
        with _lock:
            self.close()
            environment = _open(self.path)
            try:
                with environment.begin() as transaction:
                    header = PackHeader.from_bytes(transaction.get(HEADER_KEY), where=str(self.path))
                    entries = transaction.stat()["entries"]
            except lmdb.Error as error:
                raise _unreadable(self.path, error) from error
            finally:
                environment.close()
        if entries != header.count + 1:
            raise DataError(
                "the packed data set is incomplete",
                where=str(self.path),
                seen=f"{entries - 1} samples",
                allowed=f"the {header.count} samples its header names",
                remedy="pack the data again with `carkp carfusion-packer`",
            )
        return header

    def sample(self, index: int) -> PackedSample:
        """Sample ``index``; the environment is opened if this process hasn't opened it yet.

        Raises
        ------
        DataError
            If there is no such sample or it is damaged.
        """
        where = f"{self.path}[{index}]"
        with _lock:
            try:
                with self._environment().begin() as transaction:
                    value: bytes | None = transaction.get(sample_key(index))
            except lmdb.Error as error:
                raise _unreadable(self.path, error) from error
        if value is None:
            raise DataError(
                "the packed data set has no such sample",
                where=where,
                remedy="it was packed again while in use: start the command again",
            )
        return decode_sample(value, where)

    def close(self) -> None:
        """Close this process's environment of the path, if it is open."""
        with _lock:
            environment = _environments.pop((str(self.path), os.getpid()), None)
            if environment is not None:
                environment.close()

    def _environment(self) -> lmdb.Environment:
        key = (str(self.path), os.getpid())
        found = _environments.get(key)
        if found is None:
            _install_fork_hooks()
            found = _environments[key] = _open(self.path)
        return found


def close_all() -> None:
    """Close every environment of this process."""
    with _lock:
        while _environments:
            _environments.popitem()[1].close()


def _open(path: Path) -> lmdb.Environment:
    if not (path / "data.mdb").is_file():
        raise DataError(
            "there is no packed data set here",
            where=str(path),
            seen="no such folder" if not path.exists() else "no data.mdb in it",
            allowed="<target>/{train,test}_lmdb as `carkp carfusion-packer` makes it",
            remedy=(
                f"run `carkp carfusion-packer --src-data-dir CROPPED --target-data-dir {path.parent} "
                f"--split-name {path.name.removesuffix('_lmdb')} --pack-type lmdb`, or set data_root in the config "
                "(`--opts data_root=FOLDER`)"
            ),
        )
    try:
        environment = lmdb.open(str(path), readonly=True, lock=False, readahead=False, meminit=False, max_spare_txns=4)
    except lmdb.Error as error:
        raise _unreadable(path, error) from error
    # The file is mapped into memory: reading past the end of one that was cut short would end the process.
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    found = (path / "data.mdb").stat().st_size
    if found < needed:
        environment.close()
        raise DataError(
            "the packed data set is cut short",
            where=str(path),
            seen=f"{found} bytes",
            allowed=f"at least {needed} bytes",
            remedy="copy it again, or pack the data again with `carkp carfusion-packer`",
        )
    return environment


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        "the packed data set cannot be read",
        where=str(path),
        seen=str(error),
        remedy="pack the data again with `carkp carfusion-packer`",
    )


def _install_fork_hooks() -> None:
    """Once per process, on the first read: hold the lock over a fork and let nothing be open across it."""
    global _fork_hooks_installed
    if _fork_hooks_installed or not hasattr(os, "register_at_fork"):
        return
    _fork_hooks_installed = True

    def before() -> None:
        _lock.acquire()
        close_all()

    def after_in_parent() -> None:
        _lock.release()

    def after_in_child() -> None:
        # Only the forking thread lives on; a lock made here has no memory of the others.
        global _lock
        _lock = threading.RLock()

    os.register_at_fork(before=before, after_in_parent=after_in_parent, after_in_child=after_in_child)
