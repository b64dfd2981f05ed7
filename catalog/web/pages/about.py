"""What this is, and the accessibility statement."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import Response

from catalog.web.visit import Visit, anybody

router = APIRouter()


@router.get("/about")
def about(visit: Annotated[Visit, Depends(anybody)]) -> Response:
    return visit.page("about.html")
