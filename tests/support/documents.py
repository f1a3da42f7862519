"""Small sources in memory, and a tokenizer of bytes: what a plan is made from, written down in a test."""

import io
from dataclasses import dataclass

from PIL import Image

from lensmith.core.config import hash_of_values
from lensmith.data.documents import BadRecordError, Document, PictureRef
from lensmith.data.plan.tokens import Tokens

BEGIN, END, IMAGE = 256, 257, 258


def picture(colour="red", side_px=24, kind="PNG"):
    file = io.BytesIO()
    Image.new("RGB", (side_px, side_px), colour).save(file, kind)
    return file.getvalue()


@dataclass
class MemorySource:
    """`records`: each a tuple of texts and colours in angle brackets (`<red>`: a picture), or the cause it is bad."""

    records: list

    @property
    def fingerprint(self):
        return hash_of_values({"records": [list(record) for record in self.records]})

    def __len__(self):
        return len(self.records)

    def document(self, index):
        record = self.records[index]
        if isinstance(record, str):
            raise BadRecordError(record, actual=f"record {index}")
        pieces = tuple(PictureRef(place=piece[1:-1]) if piece.startswith("<") else piece for piece in record)
        return Document(key=str(index), pieces=pieces)

    def picture(self, ref):
        return b"no picture" if ref.place == "broken" else picture(ref.place)


def byte_tokens(per_picture=3):
    return Tokens(
        encode=lambda text: list(text.encode()),
        pieces=[*map(chr, range(256)), "<begin>", "<end>", "<image>"],
        begin=BEGIN,
        end=END,
        image=IMAGE,
        per_picture=per_picture,
        fingerprint="bytes",
    )
