"""The pages for people, under ``/services/catalog``: server-rendered, and complete without JavaScript.

``app.create_web`` makes them of a catalog, an identity and ``settings.WebSettings``.
"""
