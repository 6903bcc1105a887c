// All pictures of the board are zoomed and moved together: each frame reads the same three CSS variables.
const view = { zoom: 1, x: 50, y: 50, smooth: false };
const apply = () => {
  element.style.setProperty("--zoom", view.zoom);
  element.style.setProperty("--x", view.x + "%");
  element.style.setProperty("--y", view.y + "%");
  element.classList.toggle("smooth", view.smooth);
  const zoom = element.querySelector(".zoom");
  if (zoom) zoom.value = view.zoom;
  const smooth = element.querySelector(".smooth");
  if (smooth) smooth.checked = view.smooth;
};
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
element.addEventListener("input", (event) => {
  if (event.target.matches(".zoom")) view.zoom = Number(event.target.value);
  if (event.target.matches(".smooth")) view.smooth = event.target.checked;
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
watch("value", apply);
apply();
