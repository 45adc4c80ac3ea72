"""Errors as answers: a status, a code for programs, and one sentence for people."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from pipeline.app.search.reference import RequestError
from pipeline.app.service.models import MAX_BODY
from pipeline.artifacts import ArtifactError, StorageError
from pipeline.artifacts.decoding import ImageError
from pipeline.config import ParameterError
from pipeline.errors import as_one_line, place_of
from pipeline.query.interface import ControlError
from pipeline.retrieval.filters import FilterError

logger = logging.getLogger(__name__)

_CODES = {
    400: "malformed",
    401: "unauthorised",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "too_slow",
    413: "too_large",
    415: "unsupported_type",
}
TOO_LARGE = f"the body is too large; at most {MAX_BODY // 2**20} MiB are taken"
_SENTENCES = {
    404: "there is no such address here; /docs lists all of them",
    405: "this address does not take this method; /docs lists what it takes",
    408: "the body took too long to arrive",
    413: TOO_LARGE,
}


class ServiceError(Exception):
    """An answer that is no success.

    Args:
        status: HTTP's.
        code: For programs.
        message: For people, one sentence.
    """

    def __init__(self, status: int, code: str, message: str):
        super().__init__(message)
        self.status, self.code = status, code


def invalid(message: str) -> ServiceError:
    """What was sent cannot be used."""
    return ServiceError(422, "invalid", message)


def unknown_id(field: str, image_id: str) -> ServiceError:
    """An id that the gallery does not have, or has no longer."""
    return ServiceError(404, "unknown_id", f"{field}: {image_id[:100]!r} is no image of this gallery")


def answer_of(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The body of an error."""
    return JSONResponse({"error": {"code": code, "message": message}}, status, headers)


def as_service_error(error: Exception) -> ServiceError:
    """Any exception as an answer. One that nobody foresaw goes to the log, and its place into the answer."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, RequestError | ImageError | ControlError | ParameterError | FilterError):
        return invalid(as_one_line(error))
    logger.error("a request failed", exc_info=error)
    if isinstance(error, StorageError):
        return ServiceError(507, "disk_full", "the server's disk has no room")
    if isinstance(error, OSError) and error.filename is not None:
        return ServiceError(503, "unavailable", f"a file of this server cannot be used: {error.strerror}; see its log")
    if isinstance(error, ArtifactError):
        return ServiceError(503, "unavailable", "the index or a model of this server cannot be used; see its log")
    name = type(error).__name__
    return ServiceError(500, "internal", f"an internal error, {name} at {place_of(error)}; the server's log has more")


def handle_errors(app: FastAPI) -> None:
    """Let every error of an app's routes be answered by `answer_of`."""

    def service(_: Request, error: Exception) -> JSONResponse:
        found = as_service_error(error)
        headers = {"Retry-After": "1"} if found.status == 503 else None
        return answer_of(found.status, found.code, str(found), headers)

    def http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        phrase = HTTPStatus(error.status_code).phrase.lower()
        detail = " ".join(str(error.detail or phrase).split()).rstrip(".")
        if error.status_code == 400:
            detail = f"the body cannot be read: {detail}"
        sentence = _SENTENCES.get(error.status_code, detail)
        return answer_of(error.status_code, _CODES.get(error.status_code, "error"), sentence, error.headers)

    def validation(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return answer_of(422, "invalid", sentence_of(error.errors()))

    for kind in (ServiceError, Exception):
        app.add_exception_handler(kind, service)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, validation)


def sentence_of(errors: Sequence[Any]) -> str:
    """The first of pydantic's errors as one sentence that names the field. What was sent is not repeated."""
    first = errors[0]
    where = ".".join(str(part)[:100] for part in first["loc"] if part not in ("body", "query", "path"))
    where = where.encode("utf-8", "replace").decode()
    what = first["msg"][:1].lower() + first["msg"][1:]
    if first["type"] == "json_invalid" and "ctx" in first:
        where = "" if where.isdecimal() else where  # FastAPI puts the place in the body there
        what = f"it is no JSON ({first['ctx'].get('error', 'it cannot be read')})"
    elif "UploadFile" in what:
        what = "it is a text, where a file is expected"
    more = f" ({len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{where or 'the body'}: {what}{more}"
