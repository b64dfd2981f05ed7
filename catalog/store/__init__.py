"""The store: the catalog's data behind one door.

``open_catalog`` returns a ``Catalog``; its parts take a ``Viewer`` and answer with ``records``, and raise ``NotFound``,
``Forbidden`` (``catalog.access``) or ``InvalidInput`` (``lab_templates.model``). Every change commits before it returns
and writes its ``Event`` in the same transaction.
"""
