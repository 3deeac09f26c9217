"""The limits in force."""

from fastapi import APIRouter
from starlette.responses import Response

from service.routes.answers import answer
from service.routes.context import Serving
from service.schemas import Limits

router = APIRouter(prefix="/v1/limits", tags=["limits"])


@router.get("", summary="Every limit in force", responses={200: {"model": Limits}})
async def get_limits(service: Serving) -> Response:
    """Each is a setting; the unit is the end of its name."""
    return answer({name: getattr(service.settings, name) for name in Limits.model_fields})
