"""Template versions: immutable once submitted, published by a second person, their digest checked at each use."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import lru_cache

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlmodel import col

from catalog.access import Action, Forbidden, NotFound, Viewer, require_anywhere, visible_templates
from catalog.store.database import Database, changed
from catalog.store.events import log_by
from catalog.store.fields import one_problem, storable
from catalog.store.ids import new_id
from catalog.store.records import TemplateRecord
from catalog.tables import TemplateVersionRow
from lab_templates import checks
from lab_templates.model import InvalidInput, TemplateState, TemplateVersion, Text
from lab_templates.text import quote

_log = logging.getLogger(__name__)

# Its arguments are the very bytes and the digest, so a kept answer is never that of other bytes.
_reread = lru_cache(maxsize=128)(checks.reread)


def version_of(row: TemplateVersionRow) -> TemplateVersion:
    """Return the stored version. Raise InvalidInput (digest_differs) if one byte is another than was published."""
    return _reread(_bytes(row.notebook), _bytes(row.declaration), row.readme, row.digest)


def _bytes(value: bytes | str) -> bytes:
    """Return a column's bytes; SQLite gives text back where somebody wrote text into it by hand."""
    return value.encode() if isinstance(value, str) else value


def find_version(session: Session, name: str, version: str) -> TemplateVersionRow | None:
    """Return a version's row, whatever its state, unchecked; None if there is none."""
    query = select(TemplateVersionRow).where(
        col(TemplateVersionRow.name) == storable(name), col(TemplateVersionRow.version) == storable(version)
    )
    return session.scalars(query).one_or_none()


def newest_published(session: Session, name: str) -> TemplateVersionRow | None:
    """Return the row of the highest published version, None if nothing of that name is published."""
    published = select(col(TemplateVersionRow.version)).where(
        col(TemplateVersionRow.name) == storable(name), col(TemplateVersionRow.state) == TemplateState.PUBLISHED.value
    )
    versions = session.scalars(published).all()
    return find_version(session, name, max(versions, key=_order)) if versions else None


def text_of(value: dict[str, str] | None) -> Text:
    """Return a stored text in the three languages."""
    kept = value or {}
    return Text(kept.get("nb", ""), kept.get("nn", ""), kept.get("en", ""))


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else -1 for part in version.split("."))


class Templates:
    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def list(self, viewer: Viewer, *, published_only: bool = True) -> tuple[TemplateRecord, ...]:
        """Return the newest published version of each template, by name; or all versions in every state, newest first.

        What waits for approval is shown to coordinators alone. A version whose bytes were changed is left out.
        """
        query = select(TemplateVersionRow).where(visible_templates(viewer))
        if published_only:
            query = query.where(col(TemplateVersionRow.state) == TemplateState.PUBLISHED.value)
        with self._database.read() as session:
            rows = list(session.scalars(query))
        rows.sort(key=lambda row: _order(row.version), reverse=True)
        rows.sort(key=lambda row: row.name)
        if published_only:
            rows = [row for i, row in enumerate(rows) if i == 0 or rows[i - 1].name != row.name]
        return tuple(_whole(rows))

    def get(self, viewer: Viewer, name: str, version: str | None = None) -> TemplateRecord:
        """Return one version, or the newest published one. Raise NotFound, or InvalidInput (digest_differs)."""
        with self._database.read() as session:
            row = self._visible(session, viewer, name, version)
        return _record(row)

    def versions(self, viewer: Viewer, name: str) -> tuple[TemplateRecord, ...]:
        """Return every version that the viewer may see, newest first. Raise NotFound if there is none."""
        query = select(TemplateVersionRow).where(
            visible_templates(viewer), col(TemplateVersionRow.name) == storable(name)
        )
        with self._database.read() as session:
            rows = sorted(session.scalars(query), key=lambda row: _order(row.version), reverse=True)
        if not rows:
            raise _no_template(name, None)
        return tuple(_whole(rows))

    def submit(self, viewer: Viewer, version: TemplateVersion) -> TemplateRecord:
        """Keep a version that has passed the publish gate, to wait for a second person's approval.

        Raise Forbidden, or InvalidInput: version_exists, digest_differs (the value is not what its files say).
        """
        require_anywhere(viewer, Action.PUBLISH, "publish templates")
        if _reread(version.notebook, version.declaration, version.readme, version.digest) != version:
            what = f"Template {version.name} is not what its files say. Read them anew."
            raise one_problem("digest_differs", "digest", version.digest, what)
        row = TemplateVersionRow(
            id=new_id(),
            name=version.name,
            version=version.version,
            digest=version.digest,
            state=TemplateState.SUBMITTED.value,
            title={"nb": version.title.nb, "nn": version.title.nn, "en": version.title.en},
            summary={"nb": version.summary.nb, "nn": version.summary.nn, "en": version.summary.en},
            notebook=version.notebook,
            declaration=version.declaration,
            readme=version.readme,
            published_by=viewer.name,
            published_at=self._clock(),
        )
        try:
            with self._database.write() as session:
                if find_version(session, version.name, version.version) is not None:
                    raise _version_exists(version)
                session.add(row)
                session.flush()
                self._log(session, viewer, "template.submitted", row)
        except IntegrityError as error:  # another session was first
            raise _version_exists(version) from error
        return _record(row)

    def approve(self, viewer: Viewer, name: str, version: str) -> TemplateRecord:
        """Publish a waiting version. Raise NotFound; Forbidden also to whoever submitted it; InvalidInput: not_waiting,
        digest_differs.
        """
        require_anywhere(viewer, Action.PUBLISH, "approve templates")
        with self._database.write() as session:
            row = self._visible(session, viewer, name, version)
            if row.published_by == viewer.name:
                raise Forbidden(f"{viewer.name} submitted {name} {version}. Another person must approve it.")
            version_of(row)
            row = self._move(
                session,
                viewer,
                row,
                (TemplateState.SUBMITTED,),
                TemplateState.PUBLISHED,
                approved_by=viewer.name,
                approved_at=self._clock(),
            )
            self._log(session, viewer, "template.approved", row)
        return _record(row)

    def deprecate(self, viewer: Viewer, name: str, version: str) -> TemplateRecord:
        """Let nothing new run from a version. Raise NotFound, Forbidden or InvalidInput (not_waiting)."""
        require_anywhere(viewer, Action.PUBLISH, "deprecate templates")
        with self._database.write() as session:
            row = self._visible(session, viewer, name, version)
            usable = (TemplateState.SUBMITTED, TemplateState.PUBLISHED)
            row = self._move(session, viewer, row, usable, TemplateState.DEPRECATED)
            self._log(session, viewer, "template.deprecated", row)
        return _record(row)

    def _move(
        self,
        session: Session,
        viewer: Viewer,
        row: TemplateVersionRow,
        origin: tuple[TemplateState, ...],
        goal: TemplateState,
        **values: object,
    ) -> TemplateVersionRow:
        move = update(TemplateVersionRow).where(
            col(TemplateVersionRow.id) == row.id, col(TemplateVersionRow.state).in_([state.value for state in origin])
        )
        if changed(session.execute(move.values(state=goal.value, **values))) != 1:
            what = (
                f"{row.name} {row.version} is {row.state}; only a version that is {' or '.join(origin)} can be {goal}."
            )
            raise one_problem("not_waiting", "version", row.version, what, row.state)
        session.expire(row)
        return self._visible(session, viewer, row.name, row.version)

    def _log(self, session: Session, viewer: Viewer, action: str, row: TemplateVersionRow) -> None:
        subject = f"{row.name}@{row.version}"
        log_by(session, viewer, self._clock(), action, subject=subject, detail={"digest": row.digest})

    @staticmethod
    def _visible(session: Session, viewer: Viewer, name: str, version: str | None) -> TemplateVersionRow:
        if version is None:
            row = newest_published(session, name)
        else:
            query = select(TemplateVersionRow).where(
                visible_templates(viewer), col(TemplateVersionRow.name) == storable(name)
            )
            row = session.scalars(query.where(col(TemplateVersionRow.version) == storable(version))).one_or_none()
        if row is None:
            raise _no_template(name, version)
        return row


def _no_template(name: str, version: str | None) -> NotFound:
    return NotFound(f"There is no template {quote(name)}{'' if version is None else ' ' + quote(version)}.")


def _version_exists(version: TemplateVersion) -> InvalidInput:
    what = f"Version {version.version} of {version.name} exists already and never changes. Raise the version number."
    return one_problem("version_exists", "version", version.version, what)


def _whole(rows: Iterable[TemplateVersionRow]) -> Iterable[TemplateRecord]:
    for row in rows:
        try:
            yield _record(row)
        except InvalidInput as error:
            _log.error("Template %s %s is left out of a listing: %s", row.name, row.version, error)


def _record(row: TemplateVersionRow) -> TemplateRecord:
    return TemplateRecord(
        version_of(row),
        TemplateState(row.state),
        row.published_by,
        row.published_at,
        row.approved_by,
        row.approved_at,
    )
