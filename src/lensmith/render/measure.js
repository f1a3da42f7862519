// Measures the page it runs in; called with what is wanted, answers with a JSON string.
//
// `nested` are what it cannot find by itself: closed shadow roots, and iframes whose documents are measured in turn.
//
// It runs in an isolated world, so the page's scripts cannot replace what it calls. Names in the page's markup still
// shadow the properties of document and form objects there (<form name="body">, <input name="tagName">), therefore
// those are read through the prototypes. Flat lists of integers (64ths of a pixel, the browser's own layout unit) are
// several times quicker to send and to read than one object a box.
async (wanted, ...nested) => {
  const getter = (type, name) => {
    const get = Object.getOwnPropertyDescriptor(type.prototype, name).get;
    return (object) => Reflect.apply(get, object, []);
  };
  const method = (type, name) => {
    const call = type.prototype[name];
    return (object, ...values) => Reflect.apply(call, object, values);
  };
  const makeWalker = method(Document, "createTreeWalker");
  const rectOf = method(Element, "getBoundingClientRect");
  const nameOf = getter(Element, "localName");
  const parentElementOf = getter(Node, "parentElement");
  const parentNodeOf = getter(Node, "parentNode");
  const hostOf = getter(ShadowRoot, "host");
  const styleOf = getter(HTMLElement, "style");
  const attribute = method(Element, "getAttribute");

  const unit = (value) => Math.round(value * 64);
  const pushBox = (boxes, left, top, right, bottom) =>
    boxes.push(unit(left + scrollX), unit(top + scrollY), unit(right - left), unit(bottom - top));
  const range = method(Document, "createRange")(document);

  // ---- Shadow trees: the tree as it is laid out ---------------------------------------------------------------------

  const closedRoots = new Map(nested.filter((each) => each instanceof ShadowRoot).map((root) => [hostOf(root), root]));
  const slotOf = new Map();

  function parentOf(node) {
    const parent = slotOf.get(node) ?? parentElementOf(node);
    if (parent || !wanted.shadow) return parent;
    const root = parentNodeOf(node);
    return root instanceof ShadowRoot ? hostOf(root) : null;
  }

  // Text nodes and elements in the order in which they are laid out.
  function* nodesIn(root) {
    const walker = makeWalker(document, root, NodeFilter.SHOW_TEXT | NodeFilter.SHOW_ELEMENT);
    let node = walker.nextNode();
    while (node) {
      yield node;
      if (wanted.shadow && node instanceof Element && (yield* insteadOfChildren(node))) {
        node = walker.nextSibling();
        while (!node && walker.parentNode()) node = walker.nextSibling();
      } else {
        node = walker.nextNode();
      }
    }
  }

  // What is laid out in the place of an element's children; whether there is any such thing.
  function* insteadOfChildren(element) {
    const shadow = closedRoots.get(element) ?? getter(Element, "shadowRoot")(element);
    if (shadow) {
      yield* nodesIn(shadow);
      return true;
    }
    if (!(element instanceof HTMLSlotElement)) return false;
    const assigned = method(HTMLSlotElement, "assignedNodes")(element);
    for (const node of assigned) {
      slotOf.set(node, element);
      yield node;
      if (node instanceof Element && !(yield* insteadOfChildren(node))) yield* nodesIn(node);
    }
    return assigned.length > 0;
  }

  const elementsIn = (root) =>
    wanted.shadow
      ? [...nodesIn(root)].filter((node) => node instanceof Element)
      : method(Element, "getElementsByTagName")(root, "*");

  // ---- The page as a whole -----------------------------------------------------------------------------------------

  function countNodes(root) {
    const walker = makeWalker(document, root, NodeFilter.SHOW_ALL);
    let count = 1;
    while (count <= wanted.maxNodes && walker.nextNode()) count += 1;
    if (!wanted.shadow || count > wanted.maxNodes) return count;
    const laidOut = nodesIn(root);
    let shown = 1;
    while (shown <= wanted.maxNodes && !laidOut.next().done) shown += 1;
    return Math.max(count, shown);
  }

  // The largest that root and body are or hold, in one direction, as Playwright's full-page screenshots take it.
  function contentSize(side, ...elements) {
    const sizes = ["scroll", "client"].map((kind) => getter(Element, kind + side));
    const layoutSize = getter(HTMLElement, "offset" + side);
    return Math.max(
      ...elements.flatMap((element) => sizes.map((size) => size(element))),
      ...elements.filter((element) => element instanceof HTMLElement).map(layoutSize),
    );
  }

  function pageHeight(root) {
    // In quirks mode the page's height is the body's, and scrollingElement says so.
    const scrolling = getter(Document, "scrollingElement")(document);
    const heights = [root, scrolling].filter(Boolean).map(getter(Element, "scrollHeight"));
    return Math.max(innerHeight, ...heights);
  }

  // What can be scrolled to sideways; a page that hides its overflow has no more than its window.
  function pageWidth(root, body) {
    const overflow = getComputedStyle(root).overflowX;
    const hidden = ["hidden", "clip"].includes(overflow === "visible" ? getComputedStyle(body).overflowX : overflow);
    if (hidden) return innerWidth;
    const scrolling = getter(Document, "scrollingElement")(document);
    return Math.max(innerWidth, ...[root, scrolling].filter(Boolean).map(getter(Element, "scrollWidth")));
  }

  // The picture is taken of another window than the one that was measured. What a width decides would begin to change
  // from the one to the other, and never arrive, as animations stand still.
  function forbidTransitions() {
    const still = new CSSStyleSheet();
    still.replaceSync("*, ::before, ::after { transition: none !important }");
    const { get, set } = Object.getOwnPropertyDescriptor(Document.prototype, "adoptedStyleSheets");
    set.call(document, [...get.call(document), still]);
  }

  // Each animation goes to the one state that does not depend on when we look: its end, or none if it never ends.
  function settleAnimations() {
    for (const animation of method(Document, "getAnimations")(document)) {
      if (animation.timeline !== document.timeline) continue;
      const end = animation.effect ? animation.effect.getComputedTiming().endTime : Infinity;
      if (end === Infinity || animation.playbackRate === 0) animation.cancel();
      else animation.finish();
    }
    for (const svg of method(Document, "getElementsByTagName")(document, "svg")) {
      if (!(svg instanceof SVGSVGElement)) continue;
      method(SVGSVGElement, "pauseAnimations")(svg);
      method(SVGSVGElement, "setCurrentTime")(svg, 0);
    }
    const focused = getter(Document, "activeElement")(document);
    if (focused instanceof HTMLElement) {
      styleOf(focused).setProperty("caret-color", "transparent", "important");
    }
  }

  // ---- Boxes that scroll ---------------------------------------------------------------------------------------------

  const sizes = ["scrollHeight", "clientHeight", "scrollWidth", "clientWidth"].map((name) => getter(Element, name));

  function scrolled(element) {
    const [scrollHeight, clientHeight, scrollWidth, clientWidth] = sizes.map((size) => size(element));
    // One pixel is what rounding makes of a fraction. An inline box has no size of its own.
    let down = scrollHeight > clientHeight + 1 && clientHeight ? scrollHeight - clientHeight : 0;
    let right = scrollWidth > clientWidth + 1 && clientWidth ? scrollWidth - clientWidth : 0;
    if (!down && !right) return null;
    const style = getComputedStyle(element);
    const scrolls = (overflow) => overflow === "auto" || overflow === "scroll";
    down = scrolls(style.overflowY) ? down : 0;
    right = scrolls(style.overflowX) ? right : 0;
    return down || right ? { element, down, right } : null;
  }

  function scrolledBoxes(root, body, pageClip) {
    const boxes = [];
    // The body's overflow is the window's, unless the root has its own.
    const own = getComputedStyle(root).overflowY !== "visible" && getter(Document, "scrollingElement")(document) !== body;
    for (const element of [...(own ? [body] : []), ...elementsIn(body)]) {
      const box = scrolled(element);
      if (!box || !isShown(element, lookOf(element, pageClip))) continue;
      box.seen = intersect(rectOf(element), clipOf(element, getComputedStyle(element), pageClip));
      if (box.seen.right - box.seen.left > 1 && box.seen.bottom - box.seen.top > 1) boxes.push(box);
    }
    return boxes;
  }

  function setStyle(element, values) {
    if (!(element instanceof HTMLElement)) return;
    for (const [name, value] of Object.entries(values)) styleOf(element).setProperty(name, value, "important");
  }

  // Boxes in boxes come to light round by round; what grows into a page without end is left after some.
  function expandBoxes(root, body) {
    for (let round = 0; round < 8; round += 1) {
      const boxes = scrolledBoxes(root, body, everything).filter((box) => box.down);
      lookCache.clear();
      if (!boxes.length) return;
      for (const { element, down } of boxes) {
        // By itself it would be no higher for what is placed in it absolutely.
        const height = element instanceof HTMLElement ? getter(HTMLElement, "offsetHeight")(element) + down : 0;
        setStyle(element, { "box-sizing": "border-box", "min-height": `${height}px` });
        for (let each = element; each; each = parentOf(each)) {
          const style = getComputedStyle(each);
          setStyle(each, { height: "auto", "max-height": "none", "flex-shrink": "0" });
          if (style.position === "fixed") setStyle(each, { position: "absolute" });
          if (style.position === "fixed" || style.position === "absolute") setStyle(each, { bottom: "auto" });
          if (each === element || style.overflowY === "visible") continue;
          // Beside any other value than clip, visible would become auto.
          setStyle(each, { "overflow-x": "clip", "overflow-y": "visible" });
        }
      }
    }
  }

  function reportScrolled(boxes, out) {
    const hidden = ({ down, right }) => down * 1e6 + right;
    const most = new Set([...boxes].sort((one, other) => hidden(other) - hidden(one)).slice(0, wanted.maxNotes));
    for (const box of boxes.filter((each) => most.has(each))) {
      out.scrolledTags.push(nameOf(box.element));
      pushBox(out.scrolledBoxes, box.seen.left, box.seen.top, box.seen.right, box.seen.bottom);
      out.scrolledPx.push(box.right, box.down);
    }
  }

  // ---- Characters without a glyph --------------------------------------------------------------------------------------

  // Whoever has a font has these: Latin, Greek, Cyrillic and common punctuation.
  const RARE = /[\u0530-\u1dff\u2070-\uffff\u{10000}-\u{10ffff}]/u;
  const DRAWN = /[\p{L}\p{N}\p{P}\p{S}\p{Co}]/u;
  const UNASSIGNED = "\u0378";
  // What styles put before and after elements: icons, mostly, of a font that was not loaded.
  const PUTS_RARE = /content\s*:[^;}]*(?:\\[0-9a-f]{3,6}|[\u0530-\u1dff\u2070-\uffff])/i;
  const known = new Map();
  let pen = null;

  function draw(text) {
    pen.clearRect(0, 0, 32, 32);
    pen.fillText(text, 4, 24);
    return new Uint32Array(pen.getImageData(0, 0, 32, 32).data.buffer);
  }

  // A character that looks as one that is none: the font's box.
  function hasGlyph(char, style) {
    // The weight too: a page's own font may have a character in one of its weights only.
    const font = `${style.fontStyle} ${style.fontWeight} 16px ${style.fontFamily}`;
    const key = `${char} ${font}`;
    if (known.has(key)) return known.get(key);
    pen ??= new OffscreenCanvas(32, 32).getContext("2d", { willReadFrequently: true });
    pen.font = font;
    let has = pen.measureText(char).width !== pen.measureText(UNASSIGNED).width;
    if (!has) {
      const box = draw(UNASSIGNED);
      has = draw(char).some((pixel, index) => pixel !== box[index]);
    }
    known.set(key, has);
    return has;
  }

  function countMissing(text, element, style, out, pageClip) {
    if (!RARE.test(text) || !isShown(element, lookOf(element, pageClip))) return;
    for (const char of text) {
      if (!RARE.test(char) || !DRAWN.test(char) || hasGlyph(char, style)) continue;
      out.missing += 1;
      if (out.missingChars.length < 40 && !out.missingChars.includes(char)) out.missingChars.push(char.toWellFormed());
    }
  }

  function findMissingGlyphs(root, body, out, pageClip) {
    const textOf = getter(Node, "textContent");
    const sheets = [...method(Element, "getElementsByTagName")(root, "style")];
    const puts = wanted.shadow || wanted.styles || sheets.some((sheet) => PUTS_RARE.test(textOf(sheet)));
    if (!puts && !RARE.test(textOf(body))) return;
    for (const node of nodesIn(body)) {
      if (node instanceof Text) {
        const parent = parentOf(node);
        if (!parent || !RARE.test(node.data)) continue;
        range.selectNodeContents(node);
        if (range.getClientRects().length) countMissing(node.data, parent, getComputedStyle(parent), out, pageClip);
      } else if (puts) {
        for (const side of ["::before", "::after"]) {
          const style = getComputedStyle(node, side);
          if (!style.content.startsWith('"') || style.display === "none" || !rectOf(node).width) continue;
          countMissing(style.content, node, style, out, pageClip);
        }
      }
    }
  }

  // ---- Elements and characters -------------------------------------------------------------------------------------

  function measureElements(body, out) {
    for (const element of method(Element, "getElementsByTagName")(body, "*")) {
      const rect = rectOf(element);
      out.tags.push(nameOf(element));
      pushBox(out.tagBoxes, rect.left, rect.top, rect.right, rect.bottom);
    }
  }

  function measureChars(body, out) {
    const walker = makeWalker(document, body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      let start = 0;
      for (const char of node.data) {
        range.setStart(node, start);
        start += char.length;
        range.setEnd(node, start);
        // At a line's end a character may have a second, empty box on the other line.
        let best = null;
        for (const rect of range.getClientRects()) {
          if (!best || rect.width * rect.height > best.width * best.height) best = rect;
        }
        if (best) pushBox(out.charBoxes, best.left, best.top, best.right, best.bottom);
        else out.charBoxes.push(0, 0, 0, 0);
        out.chars.push(char.toWellFormed());
      }
    }
  }

  // ---- Colours: [red, green, blue, alpha], 0 to 255 and alpha 0 to 1 ----------------------------------------------

  // What lies behind the page: the window's white, or what a frame stands on.
  const behind = { opacity: 1, backdrop: [255, 255, 255, 1], ...wanted.behind };
  const colours = new Map();
  let canvas = null;

  function parseColour(text) {
    let colour = colours.get(text);
    if (colour) return colour;
    const plain = /^rgba?\(([\d.]+), ([\d.]+), ([\d.]+)(?:, ([\d.]+))?\)$/.exec(text);
    if (plain) {
      colour = [Number(plain[1]), Number(plain[2]), Number(plain[3]), Number(plain[4] ?? 1)];
    } else {
      // oklch(), lab(), color(): the browser converts.
      canvas ??= new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = "#000";
      canvas.fillStyle = text;
      canvas.fillRect(0, 0, 1, 1);
      const [red, green, blue, alpha] = canvas.getImageData(0, 0, 1, 1).data;
      colour = [red, green, blue, alpha / 255];
    }
    colours.set(text, colour);
    return colour;
  }

  const rounded = (colour) => colour.slice(0, 3).map(Math.round);

  const over = (top, bottom, opacity) => {
    const alpha = top[3] * opacity;
    return [0, 1, 2].map((i) => top[i] * alpha + bottom[i] * (1 - alpha)).concat(1);
  };

  // A gradient counts as the mean of its stops; a picture as nothing.
  function gradientColour(image) {
    const stops = [...image.matchAll(/(?:rgba?|oklch|oklab|lab|lch|color)\([^()]*\)/g)].map((m) => parseColour(m[0]));
    return stops.length ? [0, 1, 2, 3].map((i) => stops.reduce((sum, stop) => sum + stop[i], 0) / stops.length) : null;
  }

  // ---- What an element does to what lies in it: visibility, opacity, clip, backdrop ---------------------------------

  const everything = { left: -Infinity, top: -Infinity, right: Infinity, bottom: Infinity };
  const lookCache = new Map();

  // The element whose box clips this one: an absolute or fixed box escapes ancestors that do not contain it.
  function clipParent(element, style) {
    let parent = parentOf(element);
    if (style.position !== "absolute" && style.position !== "fixed") return parent;
    for (; parent; parent = parentOf(parent)) {
      const above = getComputedStyle(parent);
      const contains = above.transform !== "none" || above.filter !== "none" || above.contain.includes("paint");
      if (contains || (style.position === "absolute" && above.position !== "static")) return parent;
    }
    return null;
  }

  function intersect(one, other) {
    return {
      left: Math.max(one.left, other.left),
      top: Math.max(one.top, other.top),
      right: Math.min(one.right, other.right),
      bottom: Math.min(one.bottom, other.bottom),
    };
  }

  function insideBorder(element, style) {
    const rect = rectOf(element);
    return {
      left: rect.left + parseFloat(style.borderLeftWidth),
      top: rect.top + parseFloat(style.borderTopWidth),
      right: rect.right - parseFloat(style.borderRightWidth),
      bottom: rect.bottom - parseFloat(style.borderBottomWidth),
    };
  }

  function clipOf(element, style, pageClip) {
    const parent = clipParent(element, style);
    const clip = parent ? lookOf(parent, pageClip).clip : pageClip;
    const cutAway = style.clip.startsWith("rect(0px, 0px, 0px, 0px") || style.clipPath.startsWith("inset(50%");
    if (cutAway) return { left: 0, top: 0, right: 0, bottom: 0 };
    // The overflow of html and body belongs to the window, and an inline box has no overflow of its own.
    const ofWindow = parentOf(element) === null || (nameOf(element) === "body" && parentOf(parentOf(element)) === null);
    const clips = style.overflowX !== "visible" || style.overflowY !== "visible" || style.contain.includes("paint");
    if (ofWindow || !clips || style.display === "inline" || style.display === "contents") return clip;
    return intersect(clip, insideBorder(element, style));
  }

  function lookOf(element, pageClip) {
    let look = lookCache.get(element);
    if (look) return look;
    const style = getComputedStyle(element);
    const parent = parentOf(element);
    const above = parent ? lookOf(parent, pageClip) : behind;
    const opacity = above.opacity * Number(style.opacity);
    const onText = style.backgroundClip.includes("text") || style.webkitBackgroundClip.includes("text");
    let own = parseColour(style.backgroundColor);
    if (style.backgroundImage !== "none") own = gradientColour(style.backgroundImage) ?? own;
    look = {
      style,
      opacity,
      clip: clipOf(element, style, pageClip),
      backdrop: onText ? above.backdrop : over(own, above.backdrop, opacity),
      textPaint: onText ? own : null,
    };
    lookCache.set(element, look);
    return look;
  }

  // ---- Texts -------------------------------------------------------------------------------------------------------

  const isVisible = method(Element, "checkVisibility");

  function isShown(element, look) {
    // An element with display: contents has no box, and checkVisibility calls it hidden: ask the next one with a box.
    let boxed = element;
    while (boxed && getComputedStyle(boxed).display === "contents") boxed = parentOf(boxed);
    if (look.style.visibility !== "visible") return false;
    return !boxed || isVisible(boxed, { opacityProperty: true });
  }

  function asRead(text, style) {
    const plain = text.replace(/[\s\u00a0]+/g, " ").trim().toWellFormed();
    switch (style.textTransform) {
      case "uppercase": return plain.toUpperCase();
      case "lowercase": return plain.toLowerCase();
      case "capitalize": return plain.replace(/(^|[\s\-(["])(\p{L})/gu, (_, before, letter) => before + letter.toUpperCase());
      default: return plain;
    }
  }

  function pushText(out, text, box, colour, look, lines) {
    const seen = intersect(box, look.clip);
    // One pixel is what the usual ways to hide a text from all but screen readers leave of it.
    if (!text || seen.right - seen.left <= 1 || seen.bottom - seen.top <= 1) return;
    if (colour[3] * look.opacity === 0) return;
    out.texts.push(text);
    pushBox(out.textBoxes, seen.left, seen.top, seen.right, seen.bottom);
    out.textColours.push(...rounded(over(colour, look.backdrop, look.opacity)));
    if (wanted.lines) for (const line of lines) pushLine(out, intersect(line, look.clip));
  }

  function pushLine(out, line) {
    if (line.right - line.left <= 1 || line.bottom - line.top <= 1) return;
    out.lineTexts.push(out.texts.length - 1);
    pushBox(out.lineBoxes, line.left, line.top, line.right, line.bottom);
  }

  function measureTextNode(node, out, pageClip) {
    if (!/\S/.test(node.data)) return;
    const parent = parentOf(node);
    if (!parent) return;
    range.selectNodeContents(node);
    const box = { left: Infinity, top: Infinity, right: -Infinity, bottom: -Infinity };
    const lines = [...range.getClientRects()];
    for (const rect of lines) {
      if (!rect.width || !rect.height) continue;
      box.left = Math.min(box.left, rect.left);
      box.top = Math.min(box.top, rect.top);
      box.right = Math.max(box.right, rect.right);
      box.bottom = Math.max(box.bottom, rect.bottom);
    }
    if (box.left >= box.right) return;
    const look = lookOf(parent, pageClip);
    // These two are visible themselves but do not show what lies in them.
    const closed = parent instanceof HTMLDetailsElement && attribute(parent, "open") === null;
    if (closed || look.style.contentVisibility === "hidden" || !isShown(parent, look)) return;
    let colour = parseColour(look.style.webkitTextFillColor);
    if (parent instanceof SVGElement) colour = parseColour(look.style[look.style.fill === "none" ? "stroke" : "fill"]);
    else if (colour[3] === 0 && look.textPaint) colour = look.textPaint;
    pushText(out, asRead(node.data, look.style), box, colour, look, lines);
  }

  const TYPED = new Set(["text", "search", "tel", "url", "email", "number"]);

  // What a form field shows, and whether that is its placeholder. Null: nothing that we can tell.
  function fieldText(field) {
    if (field instanceof HTMLOptionElement) {
      // Of a list box. The options of a closed menu have no box.
      return rectOf(field).width ? { text: getter(HTMLOptionElement, "label")(field), placeholder: false } : null;
    }
    if (field instanceof HTMLSelectElement) {
      if (getter(HTMLSelectElement, "multiple")(field) || getter(HTMLSelectElement, "size")(field) > 1) return null;
      const option = getter(HTMLSelectElement, "selectedOptions")(field)[0];
      return option ? { text: getter(HTMLOptionElement, "label")(option), placeholder: false } : null;
    }
    const type = field instanceof HTMLInputElement ? getter(HTMLInputElement, "type")(field) : "text";
    const value = getter(field instanceof HTMLInputElement ? HTMLInputElement : HTMLTextAreaElement, "value")(field);
    if (type === "submit" || type === "reset") {
      const usual = type === "submit" ? "Submit" : "Reset";
      return { text: attribute(field, "value") === null ? usual : value, placeholder: false };
    }
    if (type === "button") return { text: value, placeholder: false };
    if (type !== "password" && !TYPED.has(type)) return null;
    if (value) return { text: type === "password" ? "\u2022".repeat(value.length) : value, placeholder: false };
    return { text: attribute(field, "placeholder") ?? "", placeholder: true };
  }

  function measureField(field, out, pageClip) {
    const shown = fieldText(field);
    if (!shown || !shown.text) return;
    const look = lookOf(field, pageClip);
    if (!isShown(field, look)) return;
    const box = insidePadding(field, look.style);
    const style = shown.placeholder ? getComputedStyle(field, "::placeholder") : look.style;
    pushText(out, asRead(shown.text, look.style), box, parseColour(style.color), look, [box]);
  }

  function insidePadding(element, style) {
    const box = insideBorder(element, style);
    box.left += parseFloat(style.paddingLeft);
    box.top += parseFloat(style.paddingTop);
    box.right -= parseFloat(style.paddingRight);
    box.bottom -= parseFloat(style.paddingBottom);
    return box;
  }

  const frames = nested.filter((each) => each instanceof HTMLIFrameElement);

  // A frame's own document is measured later; here is where it lies and what it stands on.
  function measureFrame(frame, out, pageClip) {
    const look = lookOf(frame, pageClip);
    if (!isShown(frame, look)) return;
    const inside = insidePadding(frame, look.style);
    const seen = intersect(inside, look.clip);
    if (seen.right - seen.left <= 1 || seen.bottom - seen.top <= 1) return;
    const { opacity, backdrop } = look;
    const boxes = [];
    for (const each of [inside, seen]) pushBox(boxes, each.left, each.top, each.right, each.bottom);
    out.frames.push({ index: nested.indexOf(frame), at: out.texts.length, boxes, behind: { opacity, backdrop } });
  }

  function measureTexts(body, out, pageClip) {
    const fields = [HTMLInputElement, HTMLTextAreaElement, HTMLSelectElement, HTMLOptionElement];
    for (const node of nodesIn(body)) {
      if (node instanceof Text) measureTextNode(node, out, pageClip);
      else if (fields.some((field) => node instanceof field)) measureField(node, out, pageClip);
      else if (frames.includes(node)) measureFrame(node, out, pageClip);
    }
  }

  // ---- How elements are placed, and what they paint themselves ------------------------------------------------------

  const REPLACED = new Set(["img", "svg", "canvas", "video", "object", "embed", "iframe", "progress", "meter"]);
  const DRAWN_FIELDS = new Set(["checkbox", "radio", "range", "color", "file", "image"]);

  const isEmpty = (element) =>
    !getter(Element, "childElementCount")(element) && !/\S/.test(getter(Node, "textContent")(element));

  // An icon: what a style puts into an element that is empty but for it.
  function isDrawn(element, side) {
    const { content } = getComputedStyle(element, side);
    return !["none", "normal"].includes(content) && !/^"\s*"$/.test(content);
  }

  function isPicture(element, style) {
    if (REPLACED.has(nameOf(element)) || style.backgroundImage.includes("url(")) return true;
    if (isEmpty(element) && (isDrawn(element, "::before") || isDrawn(element, "::after"))) return true;
    return element instanceof HTMLInputElement && DRAWN_FIELDS.has(getter(HTMLInputElement, "type")(element));
  }

  function hasBackground({ style, textPaint }) {
    if (textPaint) return false;
    const gradient = style.backgroundImage === "none" ? null : gradientColour(style.backgroundImage);
    return (gradient ?? parseColour(style.backgroundColor))[3] > 0;
  }

  function bordersOf({ style, opacity }, backdrop) {
    return ["Top", "Right", "Bottom", "Left"].map((side) => {
      const width = parseFloat(style[`border${side}Width`]);
      const colour = parseColour(style[`border${side}Color`]);
      return width && colour[3] ? [width, ...rounded(over(colour, backdrop, opacity))] : null;
    });
  }

  function pushStyle(out, element, depth, box, fill, backdrop, look) {
    const { style } = look;
    out.styles.push([nameOf(element), depth, style.position]);
    pushBox(out.styleBoxes, box.left, box.top, Math.max(box.right, box.left), Math.max(box.bottom, box.top));
    const paint = { fill: fill && rounded(fill), behind: rounded(backdrop), picture: isPicture(element, style) };
    out.paints.push({ ...paint, borders: bordersOf(look, backdrop) });
  }

  // The background of the root, or else the body's, covers the canvas.
  function pushCanvas(out, root, body, pageClip) {
    const look = lookOf(root, pageClip);
    const own = hasBackground(look);
    const fill = own ? look.backdrop : hasBackground(lookOf(body, pageClip)) ? lookOf(body, pageClip).backdrop : null;
    pushStyle(out, root, 0, pageClip, fill, behind.backdrop, look);
    return own;
  }

  function measureStyles(root, body, out, pageClip) {
    const coversCanvas = pushCanvas(out, root, body, pageClip) ? null : body;
    const depths = new Map([[root, 0]]);
    for (const element of [body, ...elementsIn(body)]) {
      const depth = (depths.get(parentOf(element)) ?? 0) + 1;
      depths.set(element, depth);
      const drawn = element instanceof SVGElement && getter(SVGElement, "ownerSVGElement")(element);
      if (drawn || !isVisible(element)) continue;
      const look = lookOf(element, pageClip);
      const parent = parentOf(element);
      const above = parent ? lookOf(parent, pageClip) : behind;
      const holder = clipParent(element, look.style);
      const box = intersect(rectOf(element), holder ? lookOf(holder, pageClip).clip : pageClip);
      if (!isShown(element, look)) Object.assign(box, { right: box.left, bottom: box.top });
      const fill = element !== coversCanvas && hasBackground(look) ? look.backdrop : null;
      pushStyle(out, element, depth, box, fill, above.backdrop, look);
    }
  }

  // ---- All together ------------------------------------------------------------------------------------------------

  const out = { width: innerWidth, height: innerHeight, nodes: 0, tags: [], tagBoxes: [], chars: [], charBoxes: [] };
  Object.assign(out, { texts: [], textBoxes: [], textColours: [], frames: [], missing: 0, missingChars: [] });
  Object.assign(out, { scrolledTags: [], scrolledBoxes: [], scrolledPx: [], lineTexts: [], lineBoxes: [] });
  Object.assign(out, { styles: [], paints: [], styleBoxes: [] });
  Object.assign(out, { windowWidth: innerWidth, windowHeight: innerHeight, scrollX, scrollY });
  const root = getter(Document, "documentElement")(document);
  const body = getter(Document, "body")(document);
  await getter(Document, "fonts")(document).ready;
  if (!root || !body) return JSON.stringify(out);
  out.nodes = countNodes(root);
  if (out.nodes > wanted.maxNodes) return JSON.stringify(out);
  forbidTransitions();
  settleAnimations();
  if (wanted.expand) expandBoxes(root, body);
  out.width = wanted.content ? contentSize("Width", root, body) : pageWidth(root, body);
  out.height = wanted.content ? contentSize("Height", root, body) : pageHeight(root);
  if (wanted.fullPage && out.height > wanted.maxHeight) return JSON.stringify(out);
  const pageClip = { left: -scrollX, top: -scrollY, right: innerWidth - scrollX, bottom: out.height - scrollY };
  if (wanted.content) pageClip.right = out.width - scrollX;
  if (!wanted.fullPage) pageClip.bottom = innerHeight - scrollY;
  if (wanted.elements) measureElements(body, out);
  if (wanted.chars) measureChars(body, out);
  if (wanted.elementStyles) measureStyles(root, body, out, pageClip);
  if (wanted.texts || wanted.lines || frames.length) measureTexts(body, out, pageClip);
  reportScrolled(scrolledBoxes(root, body, pageClip), out);
  findMissingGlyphs(root, body, out, pageClip);
  return JSON.stringify(out);
}
