"""Native elements of HTML in NiceGUI: what a keyboard and a screen reader know how to use.

Quasar's components, which NiceGUI brings, are built of generic elements and scripts; buttons, radio buttons, ranges and
tables of the browser need no roles, no key handlers and no repair.
"""

from collections.abc import Callable, Sequence
from typing import Any

from nicegui.elements.mixins.text_element import TextElement

VALUE = "(event) => emit(event.target.value)"
"""A handler in the browser that sends what was chosen or written."""
KINDS = "image/png,image/jpeg,image/webp,image/gif,image/bmp,image/tiff"
Attribute = str | int | bool | None


def tag(name: str, text: str = "", /, *, classes: str = "", **attributes: Attribute) -> TextElement:
    """An element with a text, which is never read as HTML, and attributes as `change` takes them."""
    element = TextElement(tag=name, text=text)
    if classes:
        element.classes(classes)
    change(element, **attributes)
    return element


def change(element: TextElement, /, **attributes: Attribute) -> None:
    """Sets attributes: `aria_label` is aria-label, `for_` is for, and None takes one away."""
    for name, value in attributes.items():
        key = name.rstrip("_").replace("_", "-")
        if value is None:
            element.props.pop(key, None)
        else:
            element.props[key] = value
    element.update()


def button(
    text: str, on_click: Callable[[], Any], /, *, classes: str = "button", **attributes: Attribute
) -> TextElement:
    """A button that calls a function of no argument."""
    return tag("button", text, classes=classes, type="button", **attributes).on("click", on_click, args=[])


def brand(path: str) -> None:
    """The name, which leads to the start."""
    with tag("a", href=path, classes="brand"):
        tag("img", src=f"{path}own/icon.svg", alt="", width=28, height=28)
        tag("span", "lensmith")


def opener(text: str, *, classes: str, hint: str = "") -> None:
    """A file input that looks like a button, or like a place to drop something; `app.js` sends what is chosen."""
    with tag("label", classes=f"opener {classes}"):
        tag("input", type="file", accept=KINDS, classes="unseen", data_opens="screenshot")
        tag("span", text, classes="button primary")
        if hint:
            tag("span", hint, classes="dim")


class RadioGroup:
    """Radio buttons that look like one control: Tab reaches it, arrow keys move in it."""

    def __init__(
        self,
        label: str,
        options: Sequence[tuple[str, str]],
        *,
        value: str,
        on_change: Callable[[str], None],
        classes: str = "",
    ) -> None:
        """`options`: values and what they are called."""
        self.value = value
        self._on_change = on_change
        self._inputs: dict[str, TextElement] = {}
        self._labels: dict[str, TextElement] = {}
        with tag("fieldset", classes=f"choice {classes}") as self.element:
            tag("legend", label, classes="unseen")
            name = f"choice-{self.element.id}"
            for option, text in options:
                with tag("label") as self._labels[option]:
                    self._inputs[option] = tag("input", type="radio", name=name, value=option)
                    tag("span", text)
                self._inputs[option].on("change", self._chosen, js_handler=VALUE)
        self.set(value)

    def set(self, value: str) -> None:
        """Chooses one without telling anybody."""
        self.value = value
        for option, element in self._inputs.items():
            change(element, checked=option == value)

    def offer(self, value: str, is_offered: bool) -> None:
        """Shows or hides an option."""
        self._labels[value].set_visibility(is_offered)

    def _chosen(self, event: Any) -> None:
        if event.args in self._inputs:
            self.set(event.args)
            self._on_change(event.args)
