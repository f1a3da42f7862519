"""Writes the goldens of DeepSeek-VL's processor: what the original repository's own code makes of fixed inputs.

    python scripts/deepseek_processor_goldens.py ORIGINAL CONVERTER tests/golden

ORIGINAL is a checkout of github.com/deepseek-ai/DeepSeek-VL, CONVERTER transformers' file
`models/deepseek_vl_hybrid/convert_deepseek_vl_hybrid_weights_to_hf.py`, which holds the chat template. Two things are
stubbed: `torchvision.transforms.functional.resize`, by the one call of Pillow's that it makes for a Pillow picture, and
the constructor of transformers' `ProcessorMixin`, whose arguments have changed since. The rest is the original's.
"""

import ast
import hashlib
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import transformers.processing_utils
from PIL import Image

from lensmith.models.families.deepseek_vl.tokenizer import tiny_tokenizer

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)
TOKENS = 5  # a picture; the published number only makes the file longer
MODELS: dict[str, dict[str, Any]] = {
    "1.3b": {"image_size": 384, "image_mean": HALF, "image_std": HALF, "do_normalize": True},
    "7b": {"image_size": 1024, "image_mean": CLIP_MEAN, "image_std": CLIP_STD, "do_normalize": False},
}
PICTURES = [[640, 426], [500, 333], [97, 301], [384, 384], [1, 1], [1, 40], [2000, 3]]
CONVERSATIONS: list[list[dict[str, Any]]] = [
    [{"role": "User", "content": "Hello."}, {"role": "Assistant", "content": ""}],
    [
        {"role": "User", "content": "  <image_placeholder>What is this? \n", "images": 1},
        {"role": "Assistant", "content": ""},
    ],
    [
        {
            "role": "User",
            "content": "<image_placeholder> is Figure 1.\n<image_placeholder> is Figure 2.\nWhich is brighter?",
            "images": 2,
        },
        {"role": "Assistant", "content": " The second. "},
        {"role": "User", "content": "Und wo ist der Löwe 🦁 in <image_placeholder>?", "images": 1},
        {"role": "Assistant", "content": ""},
    ],
    [{"role": "User", "content": "a"}, {"role": "Assistant", "content": "b"}],
]
# In an order that no chat has: separators go by place, not by role.
UNUSUAL: list[list[dict[str, Any]]] = [
    [{"role": "User", "content": text} for text in ("a", "b", "", "c")],
    [{"role": "Assistant", "content": "a"}, {"role": "User", "content": "b"}],
]
TEMPLATED: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": [{"type": "text", "text": " Hello. "}]}],
    [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " What is this? "}]}],
    [
        {"role": "system", "content": [{"type": "text", "text": "Be short."}]},
        {
            "role": "user",
            "content": [{"type": "text", "text": "One "}, {"type": "text", "text": " two"}, {"type": "image"}],
        },
        {"role": "assistant", "content": [{"type": "text", "text": " yes "}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "why?\n"}]},
    ],
    [
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
        {"role": "assistant", "content": [{"type": "text", "text": ""}]},
    ],
    [
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "b"}]},
    ],
]


def main() -> None:
    original, converter, out = map(Path, sys.argv[1:4])
    images, processing = load_original(original)
    goldens = {
        "made_by": "scripts/deepseek_processor_goldens.py; pictures are numpy's default_rng noise",
        "tokens_per_picture": TOKENS,
        "sizes": sizes(images),
        "pixels": pixels(images),
        "conversations": conversations(images, processing),
        "batch": batch(images, processing),
        "templated": templated(converter),
    }
    file = out / "deepseek_vl_processor.json"
    file.write_text(json.dumps(goldens, ensure_ascii=False, separators=(",", ":")) + "\n")
    print(f"{file}: {file.stat().st_size:,} bytes")
    small = out / "deepseek_vl_pixels.npz"
    np.savez_compressed(small, **small_pixels(images))
    print(f"{small}: {small.stat().st_size:,} bytes")


def load_original(root: Path) -> tuple[types.ModuleType, types.ModuleType]:
    functional: Any = types.ModuleType("torchvision.transforms.functional")
    functional.InterpolationMode = types.SimpleNamespace(BICUBIC=Image.Resampling.BICUBIC)
    functional.resize = lambda picture, size, interpolation, antialias: picture.resize(size[::-1], interpolation)
    transforms: Any = types.ModuleType("torchvision.transforms")
    transforms.functional = functional
    torchvision: Any = types.ModuleType("torchvision")
    torchvision.transforms = transforms
    modules = {"": torchvision, ".transforms": transforms, ".transforms.functional": functional}
    sys.modules.update({f"torchvision{name}": module for name, module in modules.items()})
    for name in ("deepseek_vl", "deepseek_vl.models", "deepseek_vl.utils"):
        package: Any = types.ModuleType(name)  # without what its __init__ would import
        package.__path__ = [str(root / name.replace(".", "/"))]
        sys.modules[name] = package
    mixin: Any = transformers.processing_utils.ProcessorMixin
    transformers.processing_utils.ProcessorMixin = type("ProcessorMixin", (), {"__init__": lambda *_, **__: None})
    try:
        import deepseek_vl.models.image_processing_vlm as images  # type: ignore[import-not-found]  # noqa: PLC0415
        import deepseek_vl.models.processing_vlm as processing  # type: ignore[import-not-found]  # noqa: PLC0415
    finally:
        transformers.processing_utils.ProcessorMixin = mixin
    return images, processing


def noise(width_px: int, height_px: int, seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def sizes(images: Any) -> list[list[int]]:
    """200 random sizes, and to which size each model's processor asks for them."""
    rng = np.random.default_rng(0)
    functional = images.torchvision.transforms.functional
    resize, asked = functional.resize, []

    def spy(picture: Image.Image, size: list[int], **_: Any) -> Image.Image:
        asked.append(size)
        return Image.new("RGB", (2, 2))

    functional.resize = spy
    rows = []
    for width_px, height_px in np.exp(rng.uniform(0, np.log(4000), (200, 2))).astype(int).tolist():
        asked.clear()
        for settings in MODELS.values():
            images.VLMImageProcessor(**settings).resize(types.SimpleNamespace(size=(width_px, height_px)))
        rows.append([width_px, height_px, *(side for height, width in asked for side in (width, height))])
    functional.resize = resize
    return rows


def pixels(images: Any) -> list[dict[str, Any]]:
    """The hash of the float32 pixels of each picture, full size."""
    rows = []
    for model, settings in MODELS.items():
        for seed, (width_px, height_px) in enumerate(PICTURES):
            values = images.VLMImageProcessor(**settings)([noise(width_px, height_px, seed)], return_tensors="np")
            array = np.ascontiguousarray(values["pixel_values"])
            assert array.dtype == np.float32, array.dtype
            digest = hashlib.sha256(array.tobytes()).hexdigest()
            rows.append({"model": model, "picture": [width_px, height_px, seed], "sha256": digest})
    return rows


def small_pixels(images: Any) -> dict[str, Any]:
    """The pixels themselves, for a square of 32 px."""
    arrays = {}
    for model, settings in MODELS.items():
        processor = images.VLMImageProcessor(**(settings | {"image_size": 32}))
        pictures = [noise(width_px, height_px, seed) for seed, (width_px, height_px) in enumerate(PICTURES)]
        arrays[model] = processor(pictures, return_tensors="np")["pixel_values"]
    return arrays


def chat_processor(images: Any, processing: Any) -> Any:
    picture_processor = images.VLMImageProcessor(**(MODELS["1.3b"] | {"image_size": 32}))
    return processing.VLChatProcessor(picture_processor, tiny_tokenizer(), num_image_tokens=TOKENS)


def prepared(processor: Any, conversation: list[dict[str, Any]]) -> Any:
    count = sum(message.get("images", 0) for message in conversation)
    return processor.process_one(conversations=conversation, images=[noise(32, 32, 0)] * count)


def conversations(images: Any, processing: Any) -> list[dict[str, Any]]:
    processor = chat_processor(images, processing)
    rows = []
    for conversation in CONVERSATIONS:
        one = prepared(processor, conversation)
        rows.append({"messages": conversation, "prompt": one.sft_format, "input_ids": one.input_ids.tolist()})
    for conversation in UNUSUAL:
        prompt = processor.apply_sft_template_for_multi_turn_prompts(
            conversation, system_prompt=processor.system_prompt
        )
        rows.append({"messages": conversation, "prompt": prompt})
    system = processor.apply_sft_template_for_multi_turn_prompts(CONVERSATIONS[0], system_prompt="Be short.")
    return [*rows, {"messages": CONVERSATIONS[0], "system": "Be short.", "prompt": system}]


def batch(images: Any, processing: Any) -> dict[str, Any]:
    processor = chat_processor(images, processing)
    made = processor.batchify([prepared(processor, conversation) for conversation in CONVERSATIONS[:3]])
    return {"input_ids": made.input_ids.tolist(), "attention_mask": made.attention_mask.tolist()}


def templated(converter: Path) -> list[dict[str, Any]]:
    """What the chat template writes; transformers renders it."""
    tree = ast.parse(converter.read_text())
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    [template] = [node.value for node in assigned if ast.unparse(node.targets[0]) == "CHAT_TEMPLATE"]
    tokenizer = tiny_tokenizer()
    rows = []
    for messages in TEMPLATED:
        for asks in (True, False):
            prompt = tokenizer.apply_chat_template(
                messages, chat_template=ast.literal_eval(template), tokenize=False, add_generation_prompt=asks
            )
            rows.append({"messages": messages, "add_generation_prompt": asks, "prompt": prompt})
    return rows


if __name__ == "__main__":
    main()
