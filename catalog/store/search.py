"""Finding runs by words: one document of plain words per run, indexed for full text by either database.

Both sides, document and query, are folded here and cut at everything that is no letter or digit, so SQLite (FTS5) and
PostgreSQL (``tsvector``) have nothing left to disagree about. A word matches the beginning of a word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from sqlalchemy import ColumnElement, Connection, bindparam, select, text
from sqlalchemy.orm import Mapped, Session
from sqlmodel import col

from catalog.tables import RunText

_WORD = re.compile(r"[^\W_]+")
_LONGEST_WORD = 100
_LONGEST_DOCUMENT = 100_000  # characters; PostgreSQL refuses a tsvector over 1 MB

_SQLITE = (
    "CREATE VIRTUAL TABLE run_words USING fts5(words, content='run_text', content_rowid='number',"
    " tokenize='unicode61 remove_diacritics 0')",
    "CREATE TRIGGER run_text_added AFTER INSERT ON run_text BEGIN"
    " INSERT INTO run_words(rowid, words) VALUES (new.number, new.words); END",
    "CREATE TRIGGER run_text_removed AFTER DELETE ON run_text BEGIN"
    " INSERT INTO run_words(run_words, rowid, words) VALUES ('delete', old.number, old.words); END",
    "CREATE TRIGGER run_text_changed AFTER UPDATE ON run_text BEGIN"
    " INSERT INTO run_words(run_words, rowid, words) VALUES ('delete', old.number, old.words);"
    " INSERT INTO run_words(rowid, words) VALUES (new.number, new.words); END",
)
_POSTGRES = ("CREATE INDEX run_text_words ON run_text USING gin (to_tsvector('simple'::regconfig, words))",)
_SQLITE_REMOVE = (
    "DROP TRIGGER run_text_added",
    "DROP TRIGGER run_text_removed",
    "DROP TRIGGER run_text_changed",
    "DROP TABLE run_words",
)
_POSTGRES_REMOVE = ("DROP INDEX run_text_words",)

INDEX_OBJECTS = frozenset({"run_words", "run_text_words"})  # made here and unknown to the tables' metadata


def install(connection: Connection) -> None:
    """Make the full-text index over ``run_text``; the migrations call it."""
    for statement in _SQLITE if connection.dialect.name == "sqlite" else _POSTGRES:
        connection.exec_driver_sql(statement)


def remove(connection: Connection) -> None:
    """Undo ``install``."""
    for statement in _SQLITE_REMOVE if connection.dialect.name == "sqlite" else _POSTGRES_REMOVE:
        connection.exec_driver_sql(statement)


def words(texts: Iterable[str]) -> list[str]:
    """Return the words of some texts, folded: compatibility forms unified, case removed, in order, with repeats."""
    folded = unicodedata.normalize("NFKC", " ".join(texts)[: 2 * _LONGEST_DOCUMENT]).casefold()
    return [word[:_LONGEST_WORD] for word in _WORD.findall(unicodedata.normalize("NFC", folded))]


def document(texts: Iterable[str]) -> str:
    """Return the document of a run made of these texts."""
    return " ".join(words(texts))[:_LONGEST_DOCUMENT]


def add_words(session: Session, run: str, texts: Iterable[str]) -> None:
    """Put further texts into a run's document; the words it has already stay."""
    row = session.execute(select(RunText).where(col(RunText.run) == run)).scalar_one_or_none()
    if row is None:
        session.add(RunText(run=run, words=document(texts)))
    else:
        row.words = f"{row.words} {document(texts)}".strip()[:_LONGEST_DOCUMENT]
    session.flush()


def has_words(dialect: str, wanted: Iterable[str], run: Mapped[str]) -> ColumnElement[bool]:
    """Return the condition that ``run``'s document holds a word that begins with each of ``wanted`` (folded words)."""
    if dialect == "sqlite":
        match = " ".join(f'"{word}"*' for word in wanted)
        has = "run_text.number IN (SELECT rowid FROM run_words WHERE run_words MATCH :words)"
    else:
        match = " & ".join(f"{word}:*" for word in wanted)
        has = "to_tsvector('simple'::regconfig, run_text.words) @@ to_tsquery('simple'::regconfig, :words)"
    return run.in_(select(col(RunText.run)).where(text(has).bindparams(bindparam("words", match, unique=True))))
