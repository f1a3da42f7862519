"use strict";
// What must follow a finger: dropping, pasting and opening files, the slider, and frames that fit their place.
window.lensmith = (() => {
  const base = new URL("..", document.currentScript.src);

  function alert(text) {
    const place = document.getElementById("alert");
    if (place) place.textContent = text;
  }

  async function send(file, name) {
    alert("");
    document.body.classList.add("sending");
    const headers = { "X-File-Name": encodeURIComponent(name) };
    try {
      const answer = await fetch(new URL("screenshots", base), { method: "POST", headers, body: file });
      const told = await answer.json();
      if (answer.ok) location.href = new URL(`?project=${told.project}`, base);
      else alert(told.error);
    } catch {
      alert("The app does not answer. Is it still running in the terminal?");
    } finally {
      document.body.classList.remove("sending");
    }
  }

  // Chosen in the dialog.
  document.addEventListener("change", (event) => {
    const input = event.target;
    if (!(input instanceof HTMLInputElement) || input.dataset.opens !== "screenshot" || !input.files.length) return;
    send(input.files[0], input.files[0].name);
    input.value = ""; // so that the same file may be chosen again
  });

  // Dropped anywhere on the page.
  let depth = 0;
  const holdsFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const veil = (isOver) => document.body.classList.toggle("over", isOver);
  document.addEventListener("dragenter", (event) => holdsFiles(event) && veil(++depth > 0));
  document.addEventListener("dragleave", (event) => holdsFiles(event) && veil((depth = Math.max(0, depth - 1)) > 0));
  document.addEventListener("dragover", (event) => holdsFiles(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    veil((depth = 0) > 0);
    const file = event.dataTransfer.files[0];
    if (file) send(file, file.name);
  });

  // Pasted. Text that is pasted into a field is none of ours.
  document.addEventListener("paste", (event) => {
    const file = event.clipboardData?.files[0];
    if (file) {
      event.preventDefault();
      send(file, "Pasted screenshot");
    } else if (!event.target.closest("input, textarea, [contenteditable=true]")) {
      alert("There is no picture in the clipboard.");
    }
  });

  // The slider.
  document.addEventListener("input", (event) => {
    const wipe = event.target.closest(".wipe");
    if (wipe) wipe.style.setProperty("--cut", `${event.target.value}%`);
  });

  // Frames are as wide as their device, and scaled down to where there is less room.
  function fit(frame) {
    const page = frame.querySelector("iframe");
    const room = frame.parentElement.clientWidth;
    const width = Number(frame.dataset.width);
    const height = Number(frame.dataset.height);
    if (!page || !room || !width) return;
    const scale = Math.min(1, room / width);
    Object.assign(page.style, { width: `${width}px`, height: `${height}px`, transform: `scale(${scale})` });
    Object.assign(frame.style, { width: `${width * scale}px`, height: `${height * scale}px` });
  }
  const resized = new ResizeObserver((entries) => entries.forEach((each) => fitIn(each.target)));
  const fitIn = (place) => place.querySelectorAll(":scope > [data-frame]").forEach(fit);
  const known = new WeakSet();
  let isPlanned = false;
  function lookAround() {
    isPlanned = false;
    for (const frame of document.querySelectorAll("[data-frame]")) {
      if (!known.has(frame)) {
        known.add(frame);
        resized.observe(frame.parentElement);
      }
      fit(frame);
    }
    for (const code of document.querySelectorAll(".cm-content:not([aria-label])")) {
      code.setAttribute("aria-label", "HTML of the page. Escape, then Tab leaves the editor.");
      colour(code.closest(".editor"));
    }
  }

  // The editor follows the colours that the person has chosen for the system.
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const colour = (editor) => getElement(editor)?.setTheme(dark.matches ? "githubDark" : "vscodeLight");
  dark.addEventListener("change", () => document.querySelectorAll(".editor").forEach(colour));
  new MutationObserver(() => {
    if (!isPlanned) requestAnimationFrame(lookAround);
    isPlanned = true;
  }).observe(document, {
    subtree: true,
    childList: true,
    attributes: true,
    attributeFilter: ["data-width", "data-height", "class"],
  });

  function pointAt(id) {
    // Once the view is shown and its pictures have their size.
    setTimeout(() => {
      document.querySelectorAll(".mark.pointed").forEach((mark) => mark.classList.remove("pointed"));
      const mark = document.getElementById(id);
      mark?.classList.add("pointed");
      mark?.scrollIntoView({ block: "center" });
    }, 150);
  }

  // Whether the text is in the clipboard now: browsers may refuse, and have no clipboard for pages from elsewhere.
  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      return false;
    }
  }

  return { alert, copy, pointAt };
})();
