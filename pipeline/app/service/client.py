"""A client for `cir serve`.

It loads neither torch nor any model:

    client = Client("http://localhost:8000")
    answer = client.search("twemoji/2764", "in brown", top=3)
    print([hit.id for hit in answer.hits])
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from pipeline.app.service import models

AnyModel = TypeVar("AnyModel", bound=models.Model)
Image = str | Path | bytes | models.Reference
"""A reference: an id of the gallery as a text, a file as a `Path`, its bytes, or a `Reference` with a weight."""


class ClientError(Exception):
    """The server's answer was an error.

    Args:
        status: HTTP's; 0 where there was no answer.
        code: For programs, such as `unknown_id`.
        message: One sentence.
    """

    def __init__(self, status: int, code: str, message: str):
        super().__init__(message)
        self.status, self.code = status, code


class Client:
    """Asks one server. Use it as a context manager, or `close` it.

    Args:
        url: The server's address, such as `http://localhost:8000`.
        key: Its API key; None: that of the environment variable CIR_API_KEY, if there is one.
        seconds: How long to wait for an answer.
    """

    def __init__(self, url: str, key: str | None = None, seconds: float = 60.0):
        key = os.environ.get("CIR_API_KEY", "") if key is None else key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=seconds)

    def search(self, references: Image | Sequence[Image], text: str, **fields: Any) -> models.Answer:
        """Search the gallery.

        Args:
            references: One reference or several.
            text: What should be different.
            fields: Other fields of `models.Search`, such as `method`, `top`, `negative`, `liked`.

        Returns:
            The best images.

        Raises:
            ClientError: The server cannot answer this.
            pydantic.ValidationError: A field is unknown or out of its range.
        """
        return self._post("/v1/search", _search(references, text, fields), models.Answer)

    def search_batch(self, searches: Sequence[models.Search]) -> list[models.Answer]:
        """Search several times in one request. Raises ClientError where one of them cannot be answered."""
        return self._post("/v1/search/batch", models.Searches(searches=list(searches)), models.Answers).answers

    def describe(self, references: Image | Sequence[Image], text: str, concept: str = "") -> list[str]:
        """The target as the multimodal LLM describes it, the likeliest first. Raises ClientError."""
        sent = _search(references, text, {"concept": concept})
        return self._post("/v1/describe", sent, models.Description).descriptions

    def explain(self, references: Image | Sequence[Image], text: str, **fields: Any) -> models.Explanation:
        """Why a method answers as it does; the arguments are those of `search`. Raises ClientError."""
        return self._post("/v1/explain", _search(references, text, fields), models.Explanation)

    def add(
        self,
        files: Sequence[str | Path],
        folder: str = "",
        metadata: Mapping[str, Mapping[str, str | float | bool]] | None = None,
        replace: bool = False,
    ) -> models.Added:
        """Add images to the library: all of them, or none.

        Args:
            files: Image files. Their names, behind `folder`, become their ids.
            folder: A folder below the library's root.
            metadata: Id -> field -> value.
            replace: Whether files of these names may be replaced.

        Returns:
            What was added. It is on the server's disk, and searches find it.

        Raises:
            ClientError: The server does not take one of them.
        """
        sent = [("image", (Path(file).name, Path(file).read_bytes())) for file in files]
        form = {"folder": folder, "metadata": json.dumps(metadata or {}), "replace": str(replace).lower()}
        return self._read(self._send("POST", "/v1/images", data=form, files=sent), models.Added)

    def remove(self, image_id: str, file: bool = False) -> None:
        """Remove an image from the library, and its file where `file` says so. Raises ClientError for an unknown id."""
        self._send("DELETE", f"/v1/images/{quote(image_id)}", params={"file": file})

    def images(self, contains: str = "", where: str = "", offset: int = 0, limit: int = 100) -> models.Images:
        """A page of the gallery's images, of which `where` is a filter on metadata. Raises ClientError."""
        sent: dict[str, str | int] = {"contains": contains, "filter": where, "offset": offset, "limit": limit}
        return self._read(self._send("GET", "/v1/images", params=sent), models.Images)

    def image(self, image_id: str, side: int = 1024) -> bytes:
        """An image of the gallery as WebP, at most `side` pixels long. Raises ClientError for an unknown id."""
        return self._send("GET", f"/v1/images/{quote(image_id)}", params={"side": side}).content

    def info(self) -> models.Info:
        """What the server searches, and how. Raises ClientError."""
        return self._read(self._send("GET", "/v1/info"), models.Info)

    def is_healthy(self) -> bool:
        """Whether the server answers."""
        try:
            return self._read(self._send("GET", "/health"), models.Health).status == "ok"
        except ClientError:
            return False

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _post(self, path: str, sent: models.Model, expected: type[AnyModel]) -> AnyModel:
        body, headers = sent.model_dump_json(exclude_unset=True), {"Content-Type": "application/json"}
        return self._read(self._send("POST", path, content=body, headers=headers), expected)

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise ClientError(0, "no_answer", f"{self._http.base_url}: no answer ({error})") from None
        if response.is_success:
            return response
        try:
            problem = models.ErrorAnswer.model_validate_json(response.content).error
        except ValueError:
            problem = models.Problem(code="no_service", message=f"{path}: an answer of something else")
        raise ClientError(response.status_code, problem.code, problem.message)

    def _read(self, response: httpx.Response, expected: type[AnyModel]) -> AnyModel:
        try:
            return expected.model_validate_json(response.content)
        except ValueError:
            raise ClientError(response.status_code, "no_service", f"{response.url}: this is no `cir serve`") from None


def reference(image: Image, weight: float = 1.0) -> models.Reference:
    """A reference as it is sent.

    Args:
        image: An id of the gallery, a file as a `Path`, its bytes, or a finished reference, which keeps its weight.
        weight: Below 0, the query moves away from the image.
    """
    if isinstance(image, models.Reference):
        return image
    if isinstance(image, str):
        return models.Reference(id=image, weight=weight)
    content = image.read_bytes() if isinstance(image, Path) else image
    return models.Reference(image=base64.b64encode(content).decode(), weight=weight)


def _search(references: Image | Sequence[Image], text: str, fields: dict[str, Any]) -> models.Search:
    given = [references] if isinstance(references, Image) else references
    return models.Search(references=[reference(one) for one in given], text=text, **fields)
