// All pictures of the board are zoomed and moved together: each frame reads the same three CSS variables.
const view = { zoom: 1, x: 50, y: 50, smooth: false, magnifier: true };
const LENS = 0.4, POWER = 3;  // of the magnifier: its side as a share of the frame's, and how much larger it shows things
const apply = () => {
  element.style.setProperty("--zoom", view.zoom);
  element.style.setProperty("--x", view.x + "%");
  element.style.setProperty("--y", view.y + "%");
  element.classList.toggle("smooth", view.smooth);
  const zoom = element.querySelector(".zoom");
  if (zoom) zoom.value = view.zoom;
  for (const name of ["smooth", "magnifier"]) {
    const box = element.querySelector("." + name);
    if (box) box.checked = view[name];
  }
};
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
element.addEventListener("input", (event) => {
  if (event.target.matches(".zoom")) view.zoom = Number(event.target.value);
  for (const name of ["smooth", "magnifier"]) if (event.target.matches("." + name)) view[name] = event.target.checked;
  if (event.target.matches(".wide")) document.body.classList.toggle("wide", event.target.checked);
  apply();
});
element.addEventListener("click", (event) => {
  if (!event.target.matches(".whole")) return;  // a box that is ticked says so by its input event, after this one
  Object.assign(view, { zoom: 1, x: 50, y: 50 });
  apply();
});
element.addEventListener("wheel", (event) => {
  const frame = event.target.closest(".frame");
  if (!frame || (view.zoom === 1 && event.deltaY > 0)) return;  // the page scrolls on
  event.preventDefault();
  const box = frame.getBoundingClientRect();
  if (view.zoom === 1) {
    view.x = (100 * (event.clientX - box.left)) / box.width;
    view.y = (100 * (event.clientY - box.top)) / box.height;
  }
  view.zoom = clamp(view.zoom * Math.exp(-event.deltaY / 400), 1, 8);
  apply();
}, { passive: false });
let from = null;
element.addEventListener("pointerdown", (event) => {
  if (view.zoom > 1 && event.target.closest(".frame")) from = event;
});
element.addEventListener("pointermove", (event) => {
  if (!from) return;
  const box = from.target.closest(".frame").getBoundingClientRect();
  const share = 100 / (view.zoom - 1);
  view.x = clamp(view.x - (share * (event.clientX - from.clientX)) / box.width, 0, 100);
  view.y = clamp(view.y - (share * (event.clientY - from.clientY)) / box.height, 0, 100);
  from = { target: from.target, clientX: event.clientX, clientY: event.clientY };
  apply();
});
for (const name of ["pointerup", "pointerleave", "pointercancel"]) element.addEventListener(name, () => { from = null; });

// The magnifier: in each frame a lens shows the spot under the pointer, by the same CSS variables for all of them.
const magnify = (event) => {
  const frame = view.magnifier && !from && event.target.closest(".frame:has(img)");
  element.classList.toggle("magnified", Boolean(frame));
  if (!frame) return;
  const box = frame.getBoundingClientRect(), size = POWER * view.zoom;
  const shares = { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  for (const [axis, share] of Object.entries(shares)) {
    const spot = view[axis] / 100 + (share - view[axis] / 100) / view.zoom;  // of the picture, which may be zoomed
    element.style.setProperty(`--lens-${axis}`, 100 * clamp(share - LENS / 2, 0, 1 - LENS) + "%");
    element.style.setProperty(`--spot-${axis}`, clamp((100 * (spot * size - LENS / 2)) / (size - LENS), 0, 100) + "%");
  }
  element.style.setProperty("--lens", 100 * LENS + "%");
  element.style.setProperty("--lens-size", (100 * size) / LENS + "%");
  for (const image of element.querySelectorAll(".frame img")) {
    const lens = image.nextElementSibling || image.parentNode.appendChild(document.createElement("span"));
    if (lens.shows === image.src) continue;
    lens.shows = image.src;
    lens.className = "lens";
    lens.style.backgroundImage = `url("${image.src}")`;
  }
};
for (const name of ["pointerdown", "pointermove", "pointerup"]) element.addEventListener(name, magnify);
element.addEventListener("pointerleave", () => element.classList.remove("magnified"));
// A file that the browser cannot draw, such as text or a TIFF, is no broken icon: page.css has a sentence instead.
for (const name of ["error", "load"]) document.addEventListener(name, (event) => {
  if (event.target.matches?.(".image-container img")) event.target.classList.toggle("undrawable", name === "error");
}, true);
// On phones, where controls hide the pictures, the newest is seen beside Restore, and leads to them; so does Restore.
const bar = element.closest("#results")?.querySelector("#bar");
const peek = Object.assign(document.createElement("button"), { id: "peek", title: "To the pictures" });
const follow = () => {
  const pictures = element.querySelectorAll(".comparison .frame img, .rows > .pictures:first-child .frame img");
  peek.style.backgroundImage = pictures.length ? `url("${[...pictures].at(-1).src}")` : "";
};
bar?.append(peek);
bar?.addEventListener("click", (event) => {
  if (event.target.closest("#go, #peek") && getComputedStyle(peek).display !== "none") element.scrollIntoView({ behavior: "smooth" });
});
watch("value", () => { apply(); follow(); });
apply();
follow();
