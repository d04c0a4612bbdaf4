"""The file of a journal: created, locked, checked and upgraded here.

One process writes it and holds a lock beside it; others can read it meanwhile. The file says
whether a run has it open: that shows a copy which lacks the write-ahead log.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs

from aifaceswap._api import codec
from aifaceswap.bulk._identity import content_identity
from aifaceswap.errors import JournalError

VERSION = 3
# Of these a journal is rewritten, or given the columns that it lacks.
_WITHOUT_OWNER, _WITHOUT_FILES = 1, 2
# "AFSJ": marks our files among other SQLite databases.
_APPLICATION = 0x4146534A
_BUSY_SECONDS = 5.0
# When the rows of version 1 were sent is not known.
_LONG_AGO = 0.0
_UNKNOWN_KEY = 0

_SCHEMA = f"""
CREATE TABLE journal (base_url TEXT NOT NULL, salt BLOB NOT NULL, is_open INTEGER NOT NULL);
CREATE TABLE keys (id INTEGER PRIMARY KEY, fingerprint BLOB NOT NULL UNIQUE);
CREATE TABLE rows (
    number INTEGER PRIMARY KEY,
    state INTEGER NOT NULL,
    key TEXT NOT NULL,
    body BLOB NOT NULL,
    identity BLOB NOT NULL,
    occurrence INTEGER NOT NULL,
    key_id INTEGER NOT NULL,
    sent_at REAL,
    swap_id TEXT,
    swap_json TEXT,
    error_json TEXT,
    path BLOB,
    cost REAL,
    earlier_cost REAL NOT NULL,
    attempts INTEGER NOT NULL,
    seconds REAL NOT NULL,
    place BLOB,
    files TEXT
);
CREATE UNIQUE INDEX identities ON rows (identity, occurrence);
CREATE INDEX places ON rows (place) WHERE place IS NOT NULL;
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {VERSION};
"""


_ADD_FILES = f"""
ALTER TABLE rows ADD COLUMN place BLOB;
ALTER TABLE rows ADD COLUMN files TEXT;
CREATE INDEX places ON rows (place) WHERE place IS NOT NULL;
PRAGMA user_version = {VERSION}
"""
# Stands before the table of a file that is only read.
_SHOW_FILES = "CREATE TEMP VIEW rows AS SELECT *, NULL AS place, NULL AS files FROM main.rows"


@attrs.frozen
class Owner:
    """The service and the API key that a journal belongs to.

    Attributes:
        base_url: The base URL of the service.
        fingerprint: Makes of a salt what recognises the key; the key itself is not stored.
    """

    base_url: str
    fingerprint: Callable[[bytes], bytes]


@attrs.define
class JournalFile:
    """A journal's file, open for the one who writes it."""

    path: str
    connection: sqlite3.Connection
    reader: sqlite3.Connection
    version: int
    _cleanup: ExitStack

    def close(self) -> None:
        """Move everything into the one file, and let others open it."""
        with self._cleanup:
            if self.version != VERSION:  # nothing has claimed it
                return
            try:
                self._mark(is_open=False)
            except (sqlite3.Error, JournalError):
                # The mark says that the log is needed: the last to close would delete it, unless
                # that is the one who only reads.
                self.connection.close()

    def newest_swap_id(self) -> str | None:
        """The id of the newest swap of a journal of version 1."""
        query = "SELECT swap_id FROM rows WHERE swap_id IS NOT NULL ORDER BY row DESC LIMIT 1"
        found = self.connection.execute(query).fetchone()
        return found[0] if found else None

    def claim(self, owner: Owner, *, accept_new_key: bool) -> int:
        """Check that the journal belongs to this service and key; return the key's id."""
        with self.connection:
            self.connection.execute("BEGIN")
            check_owner(self.connection, self.path, owner, accept_new_key=accept_new_key)
            self.connection.execute("UPDATE journal SET base_url = ?", (owner.base_url,))
            key_id = self._key_id(owner)
            if self.version == _WITHOUT_FILES:
                _execute_each(self.connection, _ADD_FILES)
        self.version = VERSION
        self._mark(is_open=True)
        return key_id

    @property
    def lacks_owner(self) -> bool:
        """Whether it is a journal of version 1, which says nothing of its key."""
        return self.version == _WITHOUT_OWNER

    def upgrade(self, owner: Owner, *, is_proven: bool) -> None:
        """Rewrite a journal of version 1; if not proven, its rows belong to an unknown key."""
        upgrade(self.connection, owner.base_url, owner if is_proven else None)
        os.chmod(self.path, 0o600)
        self.version = VERSION

    def _key_id(self, owner: Owner) -> int:
        execute = self.connection.execute
        (salt,) = execute("SELECT salt FROM journal").fetchone()
        fingerprint = owner.fingerprint(salt)
        known = execute("SELECT id FROM keys WHERE fingerprint = ?", (fingerprint,)).fetchone()
        if known is None:
            # Ids are never used twice; 0 is the unknown key of version 1.
            known = execute("SELECT coalesce(max(id), 0) + 1 FROM keys").fetchone()
            execute("INSERT INTO keys VALUES (?, ?)", (*known, fingerprint))
        key_id: int = known[0]
        return key_id

    def _mark(self, *, is_open: bool) -> None:
        with self.connection:
            self.connection.execute("UPDATE journal SET is_open = ?", (is_open,))
        (is_busy, *_) = self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if is_busy:
            raise JournalError(f"{self.path} is in use by another program; close it there first")


def check_owner(
    connection: sqlite3.Connection, path: str, owner: Owner, *, accept_new_key: bool
) -> None:
    """Check that the rows that were sent belong to this service and key."""
    # What never reached a service belongs to none: a wrong URL or key can be corrected.
    was_sent = "SELECT 1 FROM rows WHERE sent_at IS NOT NULL OR state BETWEEN 1 AND 4 LIMIT 1"
    if connection.execute(was_sent).fetchone() is None:
        return
    base_url, salt = connection.execute("SELECT base_url, salt FROM journal").fetchone()
    if base_url != owner.base_url:
        raise JournalError(
            f"{path} belongs to {base_url}, and this client uses {owner.base_url}; "
            "use that base URL, or another journal"
        )
    query = "SELECT 1 FROM keys WHERE fingerprint = ?"
    is_known = connection.execute(query, (owner.fingerprint(salt),)).fetchone() is not None
    if not is_known and not accept_new_key:
        raise JournalError(_other_key(path))


def open_file(path: str) -> JournalFile:
    """Open a journal's file for writing, or create it; one process at a time."""
    with ExitStack() as cleanup:
        path = os.path.realpath(path)
        _lock(f"{path}.lock", path, cleanup)
        has_log = _has_log(path)
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, check_same_thread=False)
        cleanup.callback(connection.close)
        connection.execute("PRAGMA synchronous = FULL")
        version = _read_version(connection, path, has_log=has_log)
        if version is None:
            _create(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        reader = connect_to_read(path)
        cleanup.callback(reader.close)
        return JournalFile(path, connection, reader, version or VERSION, cleanup.pop_all())


@contextmanager
def open_to_read(path: str) -> Generator[sqlite3.Connection]:
    """Open a journal's file beside a run that writes it, and on read-only media."""
    with ExitStack() as cleanup:
        path = os.path.realpath(path)
        has_log = _has_log(path)
        connection: sqlite3.Connection | None = None
        try:
            connection = connect_to_read(path, has_log=has_log)
            cleanup.callback(connection.close)
            version = _read_version(connection, path, has_log=has_log)
        except sqlite3.OperationalError:
            if not has_log:
                raise
            version = (
                _WITHOUT_OWNER  # the log cannot be read where it is, e.g. on a read-only medium
            )
        if version == _WITHOUT_OWNER or connection is None:
            connection = _connect_to_copy(path, cleanup)
            version = _read_version(connection, path, has_log=has_log)
        if version == _WITHOUT_OWNER:
            upgrade(connection, "", None)
        elif version == _WITHOUT_FILES:
            connection.execute(_SHOW_FILES)
        if version is None:
            raise JournalError(f"{path} is empty; it is not the journal of a bulk run")
        yield connection


def connect_to_read(path: str, *, has_log: bool = True) -> sqlite3.Connection:
    """A connection that only reads."""
    # Without a log nobody writes; as immutable the file needs no other file beside it.
    uri = f"{Path(path).as_uri()}?{'mode=ro' if has_log else 'immutable=1'}"
    # Each statement by itself: a transaction would keep the log from being emptied.
    return sqlite3.connect(
        uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )


def _connect_to_copy(path: str, cleanup: ExitStack) -> sqlite3.Connection:
    folder = cleanup.enter_context(tempfile.TemporaryDirectory())
    copy = os.path.join(folder, "copy.sqlite")
    shutil.copyfile(path, copy)
    with suppress(FileNotFoundError):
        shutil.copyfile(f"{path}-wal", f"{copy}-wal")
    connection = sqlite3.connect(copy)
    cleanup.callback(connection.close)
    return connection


def upgrade(connection: sqlite3.Connection, base_url: str, owner: Owner | None) -> None:
    """Rewrite the rows of version 1; without an owner they belong to an unknown key."""
    with connection:
        connection.execute("BEGIN")
        connection.execute("ALTER TABLE rows RENAME TO rows_1")
        salt = _write_schema(connection, base_url)
        key_id = _UNKNOWN_KEY if owner is None else 1
        if owner is not None:
            values = (key_id, owner.fingerprint(salt))
            connection.execute("INSERT INTO keys VALUES (?, ?)", values)
        for row in connection.execute("SELECT * FROM rows_1 ORDER BY row"):
            _insert_upgraded(connection, row, key_id)
        connection.execute("DROP TABLE rows_1")


def _insert_upgraded(connection: sqlite3.Connection, row: Any, key_id: int) -> None:
    number, state, key, body, swap_id, swap_json, error_json, path, attempts, seconds = row
    identity = content_identity(body)
    query = "SELECT count(*) FROM rows WHERE identity = ?"
    (occurrence,) = connection.execute(query, (identity,)).fetchone()
    swap: Mapping[str, Any] = {} if swap_json is None else codec.loads(swap_json.encode())
    values = (
        *(number, state, key, body, identity, occurrence, key_id, _LONG_AGO, swap_id, swap_json),
        *(error_json, path, swap.get("credit_cost"), 0.0, attempts, seconds, None, None),
    )
    places = ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO rows VALUES ({places})", values)  # noqa: S608


def _create(connection: sqlite3.Connection) -> None:
    # Before the log is switched on: a file that has one always has its tables.
    with connection:
        connection.execute("BEGIN EXCLUSIVE")
        _write_schema(connection, "")


def _write_schema(connection: sqlite3.Connection, base_url: str) -> bytes:
    """Create the tables in the present transaction; return the salt of the fingerprints."""
    _execute_each(connection, _SCHEMA)
    salt = secrets.token_bytes(16)
    connection.execute("INSERT INTO journal VALUES (?, ?, FALSE)", (base_url, salt))
    return salt


def _execute_each(connection: sqlite3.Connection, statements: str) -> None:
    for statement in statements.split(";"):  # `executescript` would commit first
        connection.execute(statement)


def _has_log(path: str) -> bool:
    log = f"{path}-wal"
    if not os.path.exists(log):
        return False
    if os.path.getsize(log) and not os.path.getsize(path):
        raise JournalError(f"{path} is empty, and {log} is not: copy both files again")
    return True


def _read_version(connection: sqlite3.Connection, path: str, *, has_log: bool) -> int | None:
    """The version of a journal; None for an empty file."""
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if tables == 0 and application == 0:
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        if mode == "wal":
            raise JournalError(_missing_log(path))
        return None
    if application != _APPLICATION:
        raise JournalError(f"{path} is a database, but not the journal of a bulk run")
    if version not in range(1, VERSION + 1):
        raise JournalError(
            f"{path} is a journal of version {version}, and this package reads versions 1 to "
            f"{VERSION}: finish the run with the package that began it"
        )
    if version != _WITHOUT_OWNER and not has_log:
        (is_open,) = connection.execute("SELECT is_open FROM journal").fetchone()
        if is_open:
            raise JournalError(_missing_log(path))
    return int(version)


def _lock(lock: str, path: str, cleanup: ExitStack) -> None:
    """Hold a lock beside the file: SQLite's own would be lost when anybody here reads it."""
    try:
        import fcntl  # noqa: PLC0415 - Windows has none
    except ImportError:
        holder = sqlite3.connect(lock, timeout=0, isolation_level=None, check_same_thread=False)
        cleanup.callback(holder.close)
        holder.execute("BEGIN EXCLUSIVE")
        return
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        with ExitStack() as opened:
            opened.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _in_use(path) from None
            # The run that held it may have removed it meanwhile.
            if os.path.exists(lock) and os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                cleanup.push(opened.pop_all())
                cleanup.callback(os.unlink, lock)
                return


@contextmanager
def named(path: str) -> Generator[None]:
    """Turn errors of SQLite and of the system into ours, which name the file."""
    try:
        yield
    except (sqlite3.Error, OSError, ValueError) as error:
        # The lowest byte tells the kind of the error; not every one has a code.
        kind = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if kind == sqlite3.SQLITE_BUSY:
            raise _in_use(path) from None
        raise JournalError(_fault(path, kind, error)) from None


def _fault(path: str, kind: int, error: Exception) -> str:
    if kind == sqlite3.SQLITE_NOTADB:
        return f"{path} is not a journal of a bulk run; use another file"
    if kind == sqlite3.SQLITE_FULL:
        return f"{path} cannot be written: the disk is full; free some space and resume"
    text = getattr(error, "strerror", None) or error
    return f"{path} cannot be used as a journal: {text}"


def _in_use(path: str) -> JournalError:
    error = JournalError(
        f"{path} is in use by another run; wait until it has finished, or use another journal"
    )
    error.in_use = True
    return error


def _missing_log(path: str) -> str:
    return (
        f"{path} was copied without {path}-wal, or that file was deleted: rows that were charged "
        "may be missing from it. Copy both files again while no run uses them"
    )


def _other_key(path: str) -> str:
    return (
        f"{path} belongs to another API key. Finish the run with that key, or pass "
        "accept_new_key=True (--accept-new-key): rows that were never sent continue with the new "
        "key, and rows in progress are listed and not sent again"
    )
