"""Gradio components for what strangers send: files they uploaded, never addresses that the server would fetch."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from gradio.components.image import ImageData
from gradio_client.utils import is_http_url_like


class _Uploads:
    """Refuses web addresses, which Gradio would download on a visitor's behalf."""

    async def async_move_resource_to_block_cache(self, url_or_file_path: str | Path | None) -> str | None:
        if url_or_file_path is not None and is_http_url_like(str(url_or_file_path)):
            raise gr.Error("this server fetches nothing from the web: upload the picture itself", print_exception=False)
        return await super().async_move_resource_to_block_cache(url_or_file_path)  # type: ignore[misc]


class Photo(_Uploads, gr.Image):
    """A picture as the file that came: Gradio's own reading would round 16 bits and lose the reason of a failure."""

    is_template = True  # drawn as gr.Image

    def get_block_name(self) -> str:
        return "image"

    def preprocess(self, payload: ImageData | None) -> str | None:  # type: ignore[override]
        return None if payload is None else payload.path


class Painting(_Uploads, gr.ImageEditor):
    """The picture to paint a mask on."""

    is_template = True

    def get_block_name(self) -> str:
        return "imageeditor"
