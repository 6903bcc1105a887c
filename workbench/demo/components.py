"""Gradio components for what strangers send: files they uploaded, never addresses that the server would fetch."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import gradio as gr
from gradio.components.image_editor import EditorData, EditorValue
from gradio.data_classes import ImageData
from gradio_client.utils import is_http_url_like


class Photo(gr.Image):
    """A picture as the file that came: Gradio's own reading would cut 16 bits to 8 and lose the reason of a failure."""

    def get_block_name(self) -> str:
        """Drawn as its base class."""
        return "image"

    def preprocess(self, payload: ImageData | None) -> str | None:
        """The file's path."""
        return None if payload is None else payload.path

    async def async_move_resource_to_block_cache(self, url_or_file_path: str | Path | None) -> str | None:
        """Refuses web addresses, which Gradio would download on a visitor's behalf."""
        refuse_addresses(url_or_file_path)
        return await super().async_move_resource_to_block_cache(url_or_file_path)


class Painting(gr.ImageEditor):
    """A picture to paint a mask on."""

    def get_block_name(self) -> str:
        """Drawn as its base class."""
        return "imageeditor"

    def preprocess(self, payload: EditorData | None) -> EditorValue | None:
        """What was painted, and as "files" what came with it, to be removed when the visitor leaves.

        The picture under it is not read: Gradio may be writing it anew to the same file.
        """
        if payload is None or payload.id is not None:
            return super().preprocess(payload)
        files = [file.path for file in (payload.background, payload.composite, *(payload.layers or [])) if file]
        value = super().preprocess(payload.model_copy(update={"background": None, "composite": None}))
        return None if value is None else cast(EditorValue, {**value, "files": files})

    async def async_move_resource_to_block_cache(self, url_or_file_path: str | Path | None) -> str | None:
        """Refuses web addresses, which Gradio would download on a visitor's behalf."""
        refuse_addresses(url_or_file_path)
        return await super().async_move_resource_to_block_cache(url_or_file_path)


def refuse_addresses(source: str | Path | None) -> None:
    """Raise ``gr.Error`` if ``source`` is a web address."""
    if source is not None and is_http_url_like(str(source)):
        raise gr.Error("this server fetches nothing from the web: upload the picture itself", print_exception=False)
