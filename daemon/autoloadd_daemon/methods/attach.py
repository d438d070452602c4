"""Handing a shard's memory to a client: see `sharing`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autoloadd_protocol.errors import BUSY, UNSUPPORTED_PROTOCOL, RequestError
from autoloadd_protocol.image import VERSION as IMAGE_VERSION
from autoloadd_protocol.messages import pack
from autoloadd_protocol.page import VERSION as PAGE_VERSION
from autoloadd_protocol.parameters import bad_request, read_params

if TYPE_CHECKING:
    from autoloadd_daemon.session import Session

    from .context import Context

    Params = tuple[Any, ...]
    Parts = list[bytes | memoryview]


def attach(context: Context, session: Session, params: Params) -> Parts:
    """Pass the shard's image and page, sealed; `busy` where there is no image to share now."""
    image_versions, page_versions = read_params(params, 2)
    _check_versions("image", image_versions, IMAGE_VERSION)
    _check_versions("page", page_versions, PAGE_VERSION)
    if session.passing:
        raise RequestError(BUSY, "what an earlier request was answered with is not taken yet")
    shard = context.shard_of(session)
    if shard is None:
        raise RequestError(BUSY, "there is no image to share: the shard is empty")
    if shard.visible_image is None:
        context.want_image(shard)
    answer, descriptors = context.sharing.attach(session, shard)
    try:
        session.pass_descriptors(descriptors)
    except OSError as exc:
        context.sharing.detach(session)
        raise RequestError(BUSY, f"no descriptor to share memory with: {exc.strerror}") from exc
    return [pack(answer)]


def _check_versions(what: str, known: object, ours: int) -> None:
    if not isinstance(known, tuple) or not all(type(version) is int for version in known):
        raise bad_request(f"{what} versions: expected an array of integers")
    if ours not in known:
        raise RequestError(
            UNSUPPORTED_PROTOCOL,
            f"this daemon shares {what} version {ours}, the client knows {list(known)}",
            {f"{what}_version": ours},
        )


READS = {"attach": attach}
